from __future__ import annotations

import copy

import pytest

from agentflow.core.callbacks import CallbackMachine, callbacks
from agentflow.core.machine import (
    Answer,
    Local,
    Machine,
    Note,
    Persist,
    Persisted,
    PersistFailed,
    Received,
    Send,
    Stalled,
    Woken,
)
from agentflow.errors import InvalidConfig, PeerDown
from agentflow.runtime.host import Host
from agentflow.runtime.ports import StableDisk
from agentflow.runtime.trace import Trace
from agentflow.runtime.virtual import VirtualDriver
from agentflow.storage import MemoryDisk
from agentflow.transport.memory import Network


def machine(node, **options):
    return CallbackMachine(node, "a", ["a", "b", "c"], **options)


def test_it_is_a_machine():
    class Silent:
        pass

    assert isinstance(machine(Silent()), Machine)


def test_a_message_goes_to_the_handler_of_its_type_or_to_the_general_one():
    class Node:
        def __init__(self):
            self.seen = []

        def on_VOTE(self, msg, source, ctx):
            self.seen.append(("vote", msg["term"], source))

        def on_message(self, msg, source, ctx):
            self.seen.append(("any", msg, source))

    hosted = machine(Node())
    hosted.handle(Received("b", {"type": "VOTE", "term": 3}), 0.0)
    hosted.handle(Received("b", {"type": "OTHER"}), 0.0)
    hosted.handle(Received("b", "text"), 0.0)
    hosted.handle(Received("b", {"type": "timer"}), 0.0)  # must not be taken for the callback on_timer
    assert hosted.node.seen == [
        ("vote", 3, "b"),
        ("any", {"type": "OTHER"}, "b"),
        ("any", "text", "b"),
        ("any", {"type": "timer"}, "b"),
    ]


def test_sender_and_receiver_share_nothing():
    class Node:
        def __init__(self):
            self.votes = ["a"]

        def on_start(self, ctx):
            ctx.broadcast({"votes": self.votes})
            self.votes.append("z")

        def on_message(self, msg, source, ctx):
            msg["votes"].append("mine")

    hosted = machine(Node())
    first, second = hosted.ready()
    assert (first.to, second.to) == ("b", "c")
    hosted.handle(Received("b", first.message), 0.0)
    assert first.message == second.message == {"votes": ["a"]}
    assert first.message is not second.message


def test_timers_ring_in_the_order_of_their_times_and_can_be_moved():
    class Node:
        def __init__(self):
            self.rang = []

        def on_start(self, ctx):
            ctx.set_timer("late", 3.0)
            ctx.set_timer("early", 1.0)
            ctx.set_timer_once("early", 9.0)
            ctx.set_timer("never", 2.0)
            ctx.set_timer("moved", 1.5)
            ctx.set_timer("moved", 4.0)

        def on_timer(self, name, ctx):
            self.rang.append((name, ctx.now))
            ctx.cancel_timer("never")

    hosted = machine(Node())
    while hosted.deadline < 10:
        hosted.handle(Woken(), hosted.deadline)
    assert hosted.node.rang == [("early", 1.0), ("late", 3.0), ("moved", 4.0)]


def test_a_timer_that_another_one_cancels_at_its_own_instant_stays_silent():
    class Node:
        def __init__(self):
            self.rang = []

        def on_start(self, ctx):
            ctx.set_timer("a", 1.0)
            ctx.set_timer("b", 1.0)

        def on_timer(self, name, ctx):
            self.rang.append(name)
            ctx.cancel_timer("b")

    hosted = machine(Node())
    hosted.handle(Woken(), 1.0)
    assert hosted.node.rang == ["a"]


def test_a_stall_of_the_host_moves_the_timers():
    class Node:
        def on_start(self, ctx):
            ctx.set_timer("t", 1.0)

    hosted = machine(Node())
    hosted.handle(Stalled(0.5), 0.9)
    assert hosted.deadline == 1.5


class Voter:
    def on_start(self, ctx):
        self.stable["voted_for"] = None

    def on_VOTE(self, msg, source, ctx):
        if self.stable["voted_for"] is None:
            self.stable["voted_for"] = source
        ctx.reply({"granted": self.stable["voted_for"] == source})

    def on_local(self, msg, ctx):
        self.stable["note"] = msg
        ctx.reply("kept")


def test_a_vote_leaves_only_after_it_is_durable():
    hosted = machine(Voter())
    assert hosted.ready() == [Persist(1, {"voted_for": None})]
    hosted.handle(Persisted(1), 0.1)
    hosted.handle(Received("b", {"type": "VOTE"}), 0.2)
    assert hosted.ready() == [Persist(2, {"voted_for": "b"}), Send("b", {"granted": True}, after=2)]
    # The second changes nothing, but what it says rests on a write that is still under way.
    hosted.handle(Received("c", {"type": "VOTE"}), 0.3)
    assert hosted.ready() == [Send("c", {"granted": False}, after=2)]
    hosted.handle(Persisted(2), 0.4)
    hosted.handle(Received("c", {"type": "VOTE"}), 0.5)
    assert hosted.ready() == [Send("c", {"granted": False}, after=None)]


def test_an_answer_to_the_user_waits_for_the_disk_too():
    hosted = machine(Voter())
    hosted.ready()
    hosted.handle(Persisted(1), 0.0)
    hosted.handle(Local(9, "hello"), 0.0)
    assert [type(effect) for effect in hosted.ready()] == [Persist]
    hosted.handle(Persisted(2), 0.0)
    assert hosted.ready() == [Answer(9, "kept")]


def test_a_request_can_be_answered_later():
    class Node:
        def on_local(self, msg, ctx):
            self.request = ctx.request
            ctx.send("b", msg)

        def on_message(self, msg, source, ctx):
            ctx.reply(msg, to=self.request)

    hosted = machine(Node())
    hosted.handle(Local(4, "question"), 0.0)
    assert hosted.ready() == [Send("b", "question")]
    hosted.handle(Received("b", "answer"), 0.0)
    assert hosted.ready() == [Answer(4, "answer")]


def test_only_stable_survives():
    class Node:
        def __init__(self):
            self.stable = {"starts": 0}
            self.memory = 0
            self.how = ""

        def on_start(self, ctx):
            self.how = "start"

        def on_recover(self, ctx):
            self.how = "recover"

    make = callbacks(Node, ["a", "b"])
    reborn = make("a", {"starts": 5}, 2, 7.0)
    assert (reborn.node.stable, reborn.node.memory, reborn.node.how) == ({"starts": 5}, 0, "recover")
    assert make("a", {}, 1, 0.0).node.how == "start"


def test_an_exception_is_told_and_ends_the_node():
    class Node:
        def on_message(self, msg, source, ctx):
            ctx.send("b", "before")
            raise KeyError("votes")

    hosted = machine(Node())
    hosted.handle(Received("b", "x"), 0.0)
    sent, note = hosted.ready()
    assert sent == Send("b", "before")
    assert isinstance(note, Note)
    assert (note.kind, note.payload["error"]) == ("error", "KeyError: 'votes'")
    assert 'raise KeyError("votes")' in note.payload["traceback"]
    hosted.handle(Received("b", "x"), 1.0)
    assert hosted.ready() == []


@pytest.mark.parametrize(
    ("event", "word"),
    [(Received("b", {"type": "X"}), "on_message"), (Local(1, "x"), "on_local")],
)
def test_what_nobody_handles_names_the_missing_method(event, word):
    class Deaf:
        pass

    hosted = machine(Deaf())
    hosted.handle(event, 0.0)
    (note,) = hosted.ready()
    assert word in note.payload["error"]


@pytest.mark.parametrize(
    "handler",
    [
        lambda ctx: ctx.reply("to whom"),
        lambda ctx: ctx.set_timer("t", -1),
        lambda ctx: ctx.send("b", {"votes": {"a", "b"}}),
    ],
)
def test_misuse_of_ctx_is_told(handler):
    class Node:
        def on_start(self, ctx):
            handler(ctx)

    (note,) = machine(Node()).ready()
    assert note.payload["error"].startswith("InvalidConfig")


def test_a_disk_that_fails_ends_the_node():
    hosted = machine(Voter())
    hosted.ready()
    hosted.handle(PersistFailed(1, "disk full"), 0.0)
    (note,) = hosted.ready()
    assert "disk full" in note.payload["error"]


def test_chance_is_fixed_by_seed_node_and_life():
    class Node:
        pass

    def draw(seed, incarnation):
        return machine(Node(), seed=seed, incarnation=incarnation).ctx.random.random()

    assert draw(1, 1) == draw(1, 1)
    assert len({draw(1, 1), draw(2, 1), draw(1, 2)}) == 3


def test_a_factory_refuses_what_cannot_be_a_node():
    with pytest.raises(InvalidConfig):
        callbacks(int, ["a"])("a", None, 1, 0.0)


class Gossip:
    """Counts up in turns; remembers how far across crashes."""

    def on_start(self, ctx):
        self.stable["best"] = 0
        ctx.set_timer("gossip", 0.1)

    def on_recover(self, ctx):
        ctx.log("back", best=self.stable["best"])
        ctx.set_timer("gossip", 0.1)

    def on_timer(self, name, ctx):
        self.stable["best"] += ctx.random.randrange(2)
        ctx.send(ctx.random.choice(ctx.peers), {"type": "BEST", "best": self.stable["best"]})
        ctx.set_timer("gossip", 0.1)

    def on_BEST(self, msg, source, ctx):
        if msg["best"] > self.stable["best"]:
            self.stable["best"] = msg["best"]
            ctx.decide(msg["best"])

    def on_local(self, msg, ctx):
        if msg == "fail":
            raise RuntimeError("as you wish")
        ctx.reply(self.stable["best"])


def classroom(seed):
    host = Host(trace=Trace(), network=Network(latency_ms=(1, 20), loss=0.1))
    driver = VirtualDriver(host, seed, disk_ms=2)
    names = ["a", "b", "c"]
    for name in names:
        host.add(name, callbacks(Gossip, names, seed), StableDisk(MemoryDisk()))
    driver.at(2.0, host.crash, "a")
    driver.at(3.0, host.restart, "a")
    return driver


def test_the_same_class_runs_on_the_host_and_keeps_its_word_across_a_crash():
    driver = classroom(5)
    driver.run_for(1.999)
    before = driver.host.machine("a").node.stable["best"]
    assert before > 0
    driver.run_for(3)
    back = [record.payload for record in driver.host.trace if record.kind == "log"]
    assert back[0]["best"] >= before - 1
    answers = []
    driver.host.ask("a", "best", lambda result, final: answers.append(result))
    driver.run_for(1)
    assert answers[0] > before


def test_a_run_of_callbacks_is_fixed_by_its_seed_and_can_be_copied():
    first, second = classroom(5), classroom(5)
    first.run_for(2.5)
    second.run_for(2.5)
    twin = copy.deepcopy(first)
    for driver in (first, second, twin):
        driver.run_for(3)
    assert first.host.trace.digest() == second.host.trace.digest() == twin.host.trace.digest()


def test_an_exception_takes_down_its_node_and_leaves_the_others_running():
    driver = classroom(5)
    answers = []
    driver.run_for(0.5)
    driver.host.ask("b", "fail", lambda result, final: answers.append(result))
    driver.run_for(1)
    assert isinstance(answers[0], PeerDown)
    assert driver.host.state("b") == "down"
    (told,) = [record for record in driver.host.trace if record.kind == "error"]
    assert (told.node, told.payload["error"]) == ("b", "RuntimeError: as you wish")
    assert driver.host.state("c") == "up"
    driver.host.restart("b")
    driver.run_for(1)
    assert driver.host.state("b") == "up"


def test_on_crash_is_called_and_a_mistake_in_it_harms_nobody():
    class Node:
        def on_crash(self):
            raise ValueError("in the end")

    host = Host(trace=Trace(), network=Network())
    VirtualDriver(host)
    host.add("a", callbacks(Node, ["a"]))
    host.turn(0.0)
    host.crash("a")
    assert host.state("a") == "down"
    assert [record.kind for record in host.trace] == ["start", "crash", "error"]
