from __future__ import annotations

import logging
import math

import pytest

from agentflow.core.machine import (
    Abandon,
    Answer,
    Execute,
    Finished,
    Local,
    Note,
    Persist,
    Persisted,
    Received,
    Send,
    Unreachable,
    Woken,
)
from agentflow.errors import Closed, InvalidConfig, NoSuchNode, PeerDown, Refused
from agentflow.runtime.host import Host
from agentflow.runtime.trace import Trace
from agentflow.runtime.virtual import VirtualDriver
from agentflow.transport.memory import Network


class Stage:
    """A host under virtual time, with three nodes that only listen."""

    def __init__(self, kit, react=lambda *_: None, **network):
        self.host = kit.host(**network)
        self.driver = VirtualDriver(self.host)
        for node in ("a", "b", "c"):
            self.host.add(node, lambda *_: kit.Scripted(react))
        self.host.turn(0.0)

    def seen(self, node):
        return [event for _, event in self.host.machine(node).seen]

    def say(self, kit, source, to, number=0):
        """Let one node send one message now."""
        machine = self.host.machine(source)
        machine.effects.append(Send(to, kit.Ping(number)))
        self.host.post(source, Woken())
        self.host.turn(self.driver.now)
        machine.seen.clear()

    def kinds(self):
        return [(record.kind, record.node) for record in self.host.trace]


@pytest.fixture
def stage(kit):
    return Stage(kit, latency_ms=10)


def test_a_message_is_a_chain_of_causes(kit, stage):
    stage.say(kit, "a", "b", 7)
    stage.driver.run_for(1)
    timer, send, deliver = list(stage.host.trace)[-3:]
    assert (timer.kind, send.kind, deliver.kind) == ("timer", "send", "deliver")
    assert (send.cause, deliver.cause) == (timer.seq, send.seq)
    assert send.message == deliver.message
    assert (deliver.source, deliver.destination, deliver.type) == ("a", "b", "Ping")
    assert deliver.lamport > send.lamport
    assert deliver.time == pytest.approx(0.01)
    assert stage.seen("b") == [Received("a", kit.Ping(7))]


def test_a_wave_is_handled_whole_and_acted_on_once(kit, stage):
    for number in range(5):
        stage.host.post("a", Received("b", kit.Ping(number)))
    assert stage.host.turn(0.0) is False
    assert len(stage.seen("a")) == 5
    assert stage.host.machine("a").turns == 2  # its start, and this wave


def test_what_a_turn_queues_is_the_next_ones(kit):
    stage = Stage(kit)
    stage.host.machine("a").effects.append(Send("a", kit.Ping(0)))
    stage.host.post("a", Woken())
    stage.host.turn(0.0)
    assert stage.seen("a") == [Woken()]
    stage.driver.step()
    assert stage.seen("a") == [Woken(), Received("a", kit.Ping(0))]


# --- wires -----------------------------------------------------------------------------------------------


def test_a_partition_stops_messages_and_says_so(kit, stage):
    stage.host.network.partition({"a"}, {"b"})
    stage.say(kit, "a", "b")
    stage.say(kit, "a", "c")
    stage.driver.run_for(1)
    assert stage.seen("b") == []
    assert len(stage.seen("c")) == 1
    (drop,) = kit.kinds(stage.host, "drop")
    assert (drop.payload, drop.source, drop.destination) == ("partition", "a", "b")
    (fault,) = kit.kinds(stage.host, "fault")
    assert fault.payload == {"latency_ms": (10.0, 10.0), "partition": [["a"], ["b"]]}


def test_what_is_on_the_wire_when_it_is_cut_is_lost(kit, stage):
    stage.say(kit, "a", "b", 1)
    stage.driver.at(0.005, stage.host.network.cut, "a", "b")
    stage.driver.at(0.02, stage.host.network.heal)
    stage.driver.run_for(1)
    assert stage.seen("b") == []
    stage.say(kit, "a", "b", 2)
    stage.driver.run_for(1)
    assert stage.seen("b") == [Received("a", kit.Ping(2))]


def test_a_one_way_cut_leaves_the_way_back(kit, stage):
    stage.host.network.cut("a", "b")
    stage.say(kit, "a", "b")
    stage.say(kit, "b", "a")
    stage.driver.run_for(1)
    assert (len(stage.seen("a")), len(stage.seen("b"))) == (1, 0)


def test_a_duplicate_is_the_same_message_twice(kit):
    stage = Stage(kit, latency_ms=10, duplicate=1.0)
    stage.say(kit, "a", "b", 3)
    stage.driver.run_for(1)
    first, second = kit.kinds(stage.host, "deliver")
    assert first.message == second.message
    assert stage.seen("b") == [Received("a", kit.Ping(3))] * 2


def test_who_writes_to_a_dead_node_hears_that_nobody_listens(kit, stage):
    stage.host.crash("b")
    stage.say(kit, "a", "b", 4)
    stage.say(kit, "a", "nobody", 5)
    stage.driver.run_for(1)
    assert stage.seen("a") == [Unreachable("b", kit.Ping(4)), Unreachable("nobody", kit.Ping(5))]
    assert [record.payload for record in kit.kinds(stage.host, "drop")] == ["down", "no such node"]


def test_who_writes_to_a_dead_node_behind_a_cut_hears_nothing(kit, stage):
    stage.host.network.cut("b", "a")
    stage.host.crash("b")
    stage.say(kit, "a", "b", 4)
    stage.driver.run_for(1)
    assert stage.seen("a") == []


def test_a_lost_copy_of_a_message_proves_nothing(kit):
    stage = Stage(kit, latency_ms=10, duplicate=1.0)
    stage.say(kit, "a", "b", 4)
    stage.driver.at(0.011, stage.host.crash, "b")
    stage.driver.run_for(1)
    assert kit.kinds(stage.host, "drop")
    assert stage.seen("a") == []


def test_a_codec_is_passed_by_every_message(kit):
    class Words:
        def encode(self, message):
            return str(message.number).encode()

        def decode(self, data):
            return kit.Ping(int(data) + 100)

    stage = Stage(kit, latency_ms=10)
    stage.host.codec = Words()
    stage.say(kit, "a", "b", 4)
    stage.driver.run_for(1)
    assert stage.seen("b") == [Received("a", kit.Ping(104))]


# --- lives -----------------------------------------------------------------------------------------------


def test_messages_may_reach_the_next_life_of_a_node(kit, stage):
    stage.say(kit, "a", "b", 1)
    stage.driver.at(0.002, stage.host.crash, "b")
    stage.driver.at(0.004, stage.host.restart, "b")
    stage.driver.run_for(1)
    assert stage.seen("b") == [Received("a", kit.Ping(1))]
    assert [record.kind for record in stage.host.trace if record.node == "b"] == [
        "start",
        "crash",
        "restart",
        "deliver",
    ]


def test_nothing_of_a_life_that_ended_reaches_the_next(kit):
    def react(machine, event, now):
        if isinstance(event, Local):
            machine.effects += [Persist(1, "x"), Send("b", kit.Ping(1), after=1), Execute(9, "work")]

    started, abandoned = [], []

    class Idle:
        def launch(self, node_id, incarnation, attempt, work, done):
            started.append(done)

        def abandon(self, node_id, incarnation, attempt):
            abandoned.append((node_id, incarnation, attempt))

    host = Host(trace=Trace(), network=Network(), launcher=Idle())
    driver = VirtualDriver(host, disk_ms=10)
    disk = kit.ListDisk()
    host.add("a", lambda *_: kit.Scripted(react), disk)
    host.add("b", lambda *_: kit.Scripted(lambda *_: None))
    host.ask("a", "go", lambda *_: None)
    driver.run_for(0.001)
    host.restart("a")
    assert abandoned == [("a", 1, 9)]
    started[0]("late")
    host.saved("a", 1, 1)
    driver.run_for(1)
    assert [event for _, event in host.machine("a").seen] == []
    assert [event for _, event in host.machine("b").seen] == []
    assert disk.writes == []
    stale = [(record.type, record.payload) for record in kit.kinds(host, "drop")]
    assert stale == [("Finished", "stale"), ("Persisted", "stale")]


def test_a_message_after_a_durable_write_leaves_at_once(kit):
    host = kit.host()
    driver = VirtualDriver(host)
    host.add("a", lambda *_: kit.Scripted(lambda *_: None), kit.ListDisk())
    host.turn(0.0)
    machine = host.machine("a")
    machine.effects += [Persist(1, "x"), Send("a", kit.Ping(1), after=1), Send("a", kit.Ping(2))]
    host.post("a", Woken())
    driver.run_for(0)
    machine.effects += [Send("a", kit.Ping(3), after=1)]
    host.post("a", Woken())
    driver.run_for(0)
    numbers = [record.payload.number for record in kit.kinds(host, "send")]
    assert numbers == [2, 1, 3]


def test_crashing_the_dead_and_resuming_the_awake_does_nothing(stage):
    stage.host.crash("a")
    length = len(stage.host.trace)
    stage.host.crash("a")
    stage.host.resume("b")
    stage.host.pause("a")
    assert len(stage.host.trace) == length
    assert [stage.host.state(node) for node in "abc"] == ["down", "up", "up"]


def test_a_paused_node_hears_in_order_what_waited(kit, stage):
    stage.host.pause("b")
    for number in range(3):
        stage.say(kit, "a", "b", number)
    stage.driver.run_for(1)
    assert stage.seen("b") == []
    assert stage.host.state("b") == "paused"
    stage.host.resume("b")
    stage.driver.run_for(0)
    assert stage.seen("b") == [Received("a", kit.Ping(number)) for number in range(3)]


def test_a_paused_node_is_not_woken_until_it_resumes(kit):
    host = kit.host()
    driver = VirtualDriver(host)
    host.add("a", lambda *_: kit.Ticker(1.0))
    driver.run_for(1.5)
    host.pause("a")
    driver.run_for(10)
    assert len(kit.kinds(host, "timer")) == 1
    assert host.deadline == math.inf
    host.resume("a")
    driver.run_for(0)
    assert kit.kinds(host, "timer")[1].time == 11.5


def test_a_node_paused_before_its_first_turn_does_nothing_until_it_resumes(kit):
    host = kit.host()
    VirtualDriver(host)
    machine = kit.Scripted(lambda *_: None)
    machine.effects.append(Note("hello"))
    host.add("a", lambda *_: machine)
    host.pause("a")
    host.turn(0.0)
    assert kit.kinds(host, "hello") == []
    host.resume("a")
    host.turn(0.0)
    assert len(kit.kinds(host, "hello")) == 1


def test_a_crash_loses_what_waited_for_a_paused_node(kit, stage):
    stage.host.pause("b")
    stage.say(kit, "a", "b")
    stage.driver.run_for(1)
    stage.host.crash("b")
    stage.host.restart("b")
    stage.driver.run_for(1)
    assert stage.seen("b") == []
    assert [record.payload for record in kit.kinds(stage.host, "drop")] == ["down"]


def test_a_removed_node_is_gone(kit, stage):
    stage.host.remove("b")
    assert stage.host.nodes == ("a", "c")
    with pytest.raises(NoSuchNode, match="a, c"):
        stage.host.crash("b")
    stage.host.add("b", lambda *_: kit.Scripted(lambda *_: None))
    assert stage.host.incarnation("b") == 1


@pytest.mark.parametrize("node", ["a", "", 5])
def test_a_name_that_is_taken_or_no_name_is_refused(kit, stage, node):
    with pytest.raises(InvalidConfig):
        stage.host.add(node, lambda *_: kit.Scripted(lambda *_: None))


def test_a_node_may_be_added_without_being_started(kit, stage):
    stage.host.add("d", lambda *_: kit.Scripted(lambda *_: None), start=False)
    assert stage.host.state("d") == "down"
    stage.host.restart("d")
    assert stage.host.state("d") == "up"
    assert kit.kinds(stage.host, "start")[-1].node == "d"


def test_a_disk_that_cannot_be_read_keeps_its_node_down(kit):
    class Torn(kit.ListDisk):
        def load(self):
            raise OSError("torn")

    host = kit.host()
    VirtualDriver(host)
    with pytest.raises(OSError, match="torn"):
        host.add("a", lambda *_: kit.Scripted(lambda *_: None), Torn())
    assert host.state("a") == "down"
    assert "OSError: torn" in kit.kinds(host, "error")[0].payload["error"]


# --- questions -------------------------------------------------------------------------------------------


def test_a_question_gets_its_answers_until_the_final_one(kit):
    def react(machine, event, now):
        if isinstance(event, Local):
            machine.effects += [
                Answer(event.token, 1, final=False),
                Answer(event.token, 2),
                Answer(event.token, 3),
            ]

    stage = Stage(kit, react)
    answers = []
    token = stage.host.ask("a", "count", lambda result, final: answers.append((result, final)))
    stage.driver.run_for(0)
    assert answers == [(1, False), (2, True)]
    ask, *given = kit.kinds(stage.host, "ask", "answer")
    assert (ask.payload, ask.type) == ("count", str(token))
    assert [record.type for record in given] == [str(token)] * 3


@pytest.mark.parametrize(("node", "error"), [("b", PeerDown), ("nobody", NoSuchNode)])
def test_who_is_not_there_answers_at_once(stage, node, error):
    stage.host.crash("b")
    answers = []
    stage.host.ask(node, "hello", lambda result, final: answers.append((type(result), final)))
    assert answers == [(error, True)]


def test_a_crash_answers_what_was_asked(stage):
    answers = []
    stage.host.ask("a", "hello", lambda result, final: answers.append((type(result), result.node)))
    stage.host.crash("a")
    stage.driver.run_for(1)
    assert answers == [(PeerDown, "a")]


def test_a_forgotten_question_hears_nothing(stage):
    answers = []
    stage.host.forget(stage.host.ask("a", "hello", lambda *result: answers.append(result)))
    stage.host.crash("a")
    assert answers == []


def test_closing_stops_all_and_answers_all(kit, stage):
    answers = []
    stage.host.ask("a", "hello", lambda result, final: answers.append(type(result)))
    stage.host.close()
    stage.host.ask("a", "hello", lambda result, final: answers.append(type(result)))
    assert answers == [Closed, Closed]
    assert [record.node for record in kit.kinds(stage.host, "stop")] == ["a", "b", "c"]
    with pytest.raises(Closed):
        stage.host.add("d", lambda *_: kit.Scripted(lambda *_: None))


def test_a_callback_that_takes_the_node_down_ends_its_turn(kit):
    def react(machine, event, now):
        if isinstance(event, Local):
            machine.effects += [Answer(event.token, "done"), Note("after")]

    stage = Stage(kit, react)
    stage.host.ask("a", "x", lambda *_: stage.host.crash("a"))
    stage.driver.run_for(0)
    assert kit.kinds(stage.host, "after") == []


# --- work ------------------------------------------------------------------------------------------------


def test_abandoned_work_is_told_to_the_launcher_once(kit):
    def react(machine, event, now):
        if isinstance(event, Local):
            machine.effects += [Execute(1, "work"), Abandon(1), Abandon(1), Abandon(2)]

    calls = []

    class Recorder:
        def launch(self, node_id, incarnation, attempt, work, done):
            calls.append(("launch", attempt, work))

        def abandon(self, node_id, incarnation, attempt):
            calls.append(("abandon", attempt))

    stage = Stage(kit, react)
    stage.host.launcher = Recorder()
    stage.host.ask("a", "x", lambda *_: None)
    stage.driver.run_for(0)
    assert calls == [("launch", 1, "work"), ("abandon", 1)]


def test_a_launcher_that_takes_no_more_fails_the_attempt_not_the_node(kit, caplog):
    def react(machine, event, now):
        if isinstance(event, Local):
            machine.effects.append(Execute(1, "work"))

    class Shut:
        def launch(self, *_):
            raise RuntimeError("cannot schedule new futures after shutdown")

        def abandon(self, *_):
            raise AssertionError("it never ran")

    stage = Stage(kit, react)
    stage.host.launcher = Shut()
    stage.host.ask("a", "x", lambda *_: None)
    with caplog.at_level(logging.CRITICAL, logger="agentflow"):
        stage.driver.run_for(0)
    outcome = stage.seen("a")[-1]
    assert isinstance(outcome, Finished)
    assert "after shutdown" in str(outcome.outcome)


# --- mistakes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strict", [True, False])
def test_a_machine_that_raises_is_crashed_and_recorded(kit, strict, caplog):
    def react(machine, event, now):
        raise ZeroDivisionError("by zero")

    stage = Stage(kit, react)
    stage.host.strict = strict
    stage.host.post("a", Woken())
    with caplog.at_level(logging.CRITICAL, logger="agentflow"):
        if strict:
            with pytest.raises(ZeroDivisionError):
                stage.host.turn(0.0)
        else:
            stage.host.turn(0.0)
    assert stage.host.state("a") == "down"
    assert stage.kinds()[-2:] == [("error", "a"), ("crash", "a")]
    assert "react" in kit.kinds(stage.host, "error")[0].payload["traceback"]


@pytest.mark.parametrize("effect", [Persist(1, "x"), "no effect"])
def test_an_effect_that_cannot_be_performed_crashes_its_node(kit, stage, effect):
    stage.host.machine("a").effects.append(effect)
    stage.host.post("a", Woken())
    with pytest.raises((Refused, TypeError)):
        stage.host.turn(0.0)
    assert stage.host.state("a") == "down"


def test_a_machine_that_would_stop_time_is_crashed(kit):
    def react(machine, event, now):
        machine.deadline = now

    host = kit.host()
    driver = VirtualDriver(host)
    host.add("a", lambda *_: kit.Scripted(react))
    host.post("a", Woken())
    with pytest.raises(RuntimeError, match="10,000 times"):
        driver.run_for(1)
    assert host.state("a") == "down"


def test_a_host_without_a_driver_says_so(kit):
    host = kit.host()
    host.add("a", lambda *_: kit.Scripted(lambda *_: None))
    host.machine("a").effects.append(Send("a", kit.Ping(0)))
    host.post("a", Woken())
    with pytest.raises(Refused, match="driver"):
        host.turn(0.0)


def test_the_write_of_a_dead_life_does_not_release_the_next_ones_messages(kit):
    host = kit.host()
    driver = VirtualDriver(host, disk_ms=10)
    host.add("a", lambda *_: kit.Scripted(lambda *_: None), kit.ListDisk())
    host.turn(0.0)
    host.machine("a").effects.append(Persist(1, "old"))
    host.post("a", Woken())
    driver.run_for(0.001)
    host.restart("a")
    driver.run_for(0.001)
    host.machine("a").effects += [Persist(1, "new"), Send("a", kit.Ping(1), after=1)]
    host.post("a", Woken())
    driver.run_for(0.0085)  # when the old write would have been durable
    assert kit.kinds(host, "send") == []
    driver.run_for(0.1)
    assert len(kit.kinds(host, "send")) == 1
    assert host._seats["a"].disk.writes == ["new"]
    assert [event for _, event in host.machine("a").seen if isinstance(event, Persisted)] == [Persisted(1)]
