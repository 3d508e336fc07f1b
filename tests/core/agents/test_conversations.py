"""Agents on bad wires, against what their contract allows, with hypothesis choosing every fate."""

from collections import defaultdict

from hypothesis import given, settings
from hypothesis import strategies as st

from agentflow import errors
from agentflow.core.agents import AgentMessage, MessageType
from agentflow.core.agents.messages import Reset
from agentflow.core.agents.requests import Outcome
from agentflow.core.machine import Answer, Send, Unreachable, Woken

NAMES = ("a", "b", "c")


class World:
    """Three agents, wires that lose, copy and reorder at will, and what everybody saw."""

    def __init__(self, kit):
        directory = kit.Directory()
        self.kit = kit
        self.desks = {name: kit.Desk(directory, name, capacity=3) for name in NAMES}
        self.wires = []
        self.sent = defaultdict(list)
        self.handled = defaultdict(list)
        self.in_hand = defaultdict(list)
        self.asked = {}
        self.answered = {}
        self.now = 0.0
        self.serial = 0

    def perform(self, name, effects):
        for effect in effects:
            if isinstance(effect, Send):
                assert effect.message.from_ == name
                self.wires.append(effect.message)
                if effect.message.in_reply_to is None:
                    self.sent[name, effect.to].append(effect.message.id)
            elif isinstance(effect, Answer):
                if isinstance(effect.result, self.kit.Mail):
                    assert not self.in_hand[name], "mail came before the last was done with"
                    self.in_hand[name] = list(effect.result.messages)
                elif (name, effect.token) in self.asked:
                    assert (name, effect.token) not in self.answered, "answered twice"
                    self.answered[name, effect.token] = effect.result

    def post(self, name, to, kind):
        self.serial += 1
        self.perform(name, self.desks[name].post(to, kind, now=self.now, name=f"m{self.serial}"))

    def ask(self, name, to, timeout):
        self.serial += 1
        desk = self.desks[name]
        self.asked[name, desk.tokens + 1] = (to, f"m{self.serial}")
        _, effects = desk.ask(to, self.serial, now=self.now, timeout=timeout, name=f"m{self.serial}")
        self.perform(name, effects)

    def arrive(self, at, copy):
        if self.wires:
            message = self.wires[at % len(self.wires)]
            if not copy:
                self.wires.remove(message)
            self.perform(message.to, self.desks[message.to].hear(message.from_, message, self.now))

    def lose(self, at, bounce):
        if self.wires:
            message = self.wires.pop(at % len(self.wires))
            if bounce:
                event = Unreachable(message.to, message)
                self.perform(message.from_, self.desks[message.from_].event(event, self.now))

    def handle(self, name, kind, busy):
        if not self.in_hand[name]:
            return
        message = self.in_hand[name].pop(0)
        self.handled[message.from_, name].append(message.id)
        if busy and self.in_hand[name]:
            self.in_hand[name] = self.in_hand[name][:1]
        else:
            busy = False
            left = self.in_hand[name]
            if left:
                # Only the first is done; the machine is told of it together with being busy.
                busy, self.in_hand[name] = True, left[:1]
        self.perform(name, self.desks[name].done(Outcome(kind, message.content), now=self.now, busy=busy))

    def crash(self, name):
        desk = self.desks[name]
        for key in [key for key in self.asked if key[0] == name and key not in self.answered]:
            self.answered[key] = errors.PeerDown("own node", node=name)
        self.in_hand[name] = []
        desk.start()
        for other in NAMES:
            if other != name:
                self.perform(other, self.desks[other].event(Unreachable(name, Reset()), self.now))

    def later(self, seconds):
        self.now += seconds
        for name, desk in self.desks.items():
            if desk.machine.deadline <= self.now:
                self.perform(name, desk.event(Woken(), self.now))

    def judge(self):
        for pair, handled in self.handled.items():
            order = iter(self.sent[pair])
            assert len(set(handled)) == len(handled), f"{pair}: handled twice"
            assert all(name in order for name in handled), f"{pair}: out of order or never sent"
        for key, result in self.answered.items():
            to, question = self.asked[key]
            if isinstance(result, AgentMessage):
                assert (result.from_, result.in_reply_to) == (to, question)
                assert result.content == int(question[1:]), "somebody else's answer"


NAME = st.sampled_from(NAMES)
STEPS = st.one_of(
    st.tuples(
        st.just("post"), NAME, NAME, st.sampled_from([MessageType.NOTIFICATION, MessageType.HEARTBEAT])
    ),
    st.tuples(st.just("ask"), NAME, NAME, st.sampled_from([0.5, 2.0])),
    st.tuples(st.just("arrive"), st.integers(0, 20), st.booleans()),
    st.tuples(st.just("arrive"), st.just(0), st.just(False)),
    st.tuples(st.just("lose"), st.integers(0, 20), st.booleans()),
    st.tuples(
        st.just("handle"), NAME, st.sampled_from(["handled", "failed", "unhandled", "expired"]), st.booleans()
    ),
    st.tuples(st.just("handle"), NAME, st.just("handled"), st.just(False)),
    st.tuples(st.just("crash"), NAME),
    st.tuples(st.just("later"), st.floats(0.1, 1.0)),
)


@settings(max_examples=300, deadline=None)
@given(steps=st.lists(STEPS, max_size=60))
def test_on_any_wires_messages_are_handled_at_most_once_in_order_and_answers_find_their_callers(kit, steps):
    world = World(kit)
    for kind, *arguments in steps:
        getattr(world, kind)(*arguments)
        world.judge()
    world.later(10.0)
    assert set(world.answered) == set(world.asked), "a question was left without an answer"
    for desk in world.desks.values():
        assert desk.machine.stats().pending_requests == 0
