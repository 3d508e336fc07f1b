"""Where the semantics are borrowed from NATS, a real nats-server is asked whether they are the same."""

import asyncio
import importlib.util
import socket
from pathlib import Path

import nats
import nats.errors
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import agentflow as af
from agentflow import AgentMessage
from agentflow.core.agents.subjects import EMPTY, as_pattern, as_subject, matches
from agentflow.errors import InvalidConfig

ACCEPTED = 250
"""Examples of each property."""


@pytest.fixture(scope="module")
def server(program):
    path = Path(__file__).resolve().parents[1] / "external" / "nats_server.py"
    spec = importlib.util.spec_from_file_location("nats_server", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with module.NatsServer(program("nats-server")) as server:
        yield server


class Wire:
    """A connection that speaks the protocol by itself, so that no client library decides anything."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=20)
        self.file = self.socket.makefile("rb")
        self.file.readline()
        self.sid = 0
        self.say('CONNECT {"verbose":false,"pedantic":true,"headers":true,"no_responders":true}')

    def say(self, *lines):
        """Say something; return what the server had to say until it had heard all of it."""
        self.socket.sendall("".join(f"{line}\r\n" for line in [*lines, "PING"]).encode())
        heard = []
        while (line := self.file.readline()) != b"PONG\r\n":
            assert line, "the server hung up"
            if line == b"PING\r\n":
                self.socket.sendall(b"PONG\r\n")  # it wants to know whether we are alive
            else:
                heard.append(line.decode().rstrip())
        return heard

    def subscribe(self, pattern):
        self.sid += 1
        return self.sid, self.say(f"SUB {pattern} {self.sid}")

    def close(self):
        self.file.close()
        self.socket.close()


@pytest.fixture(scope="module")
def wire(server):
    wire = Wire(server.port)
    yield wire
    wire.close()


WORDS = st.sampled_from(["a", "b", "ab", "*", ">", "a*", "*a", ">b", "**", ">>", "$JS", "é", ""])
TEXTS = st.lists(WORDS, min_size=1, max_size=4).map(".".join).filter(bool)


@settings(max_examples=ACCEPTED, deadline=None)
@given(st.lists(TEXTS, min_size=1, max_size=8), st.lists(TEXTS, min_size=1, max_size=8))
def test_a_subscription_gets_from_nats_server_what_it_gets_from_us(wire, patterns, subjects):
    taken, tree = {}, EMPTY
    for pattern in patterns:
        sid, said = wire.subscribe(pattern)
        assert accepted(as_pattern, pattern) == (not said), f"{pattern!r}: {said}"
        if not said:
            taken[sid] = pattern
            tree = tree.add(pattern, str(sid))
    for subject in subjects:
        said = wire.say(f"PUB {subject} 0", "")
        errors = [line for line in said if line.startswith("-ERR")]
        assert accepted(as_subject, subject) == (not errors), f"{subject!r}: {errors}"
        if not errors:
            heard = sorted(int(line.split()[2]) for line in said if line.startswith("MSG"))
            assert heard == sorted(sid for sid, pattern in taken.items() if matches(pattern, subject))
            assert heard == sorted(map(int, tree.find(subject)))
    wire.say(*(f"UNSUB {sid}" for sid in taken))


def accepted(check, text):
    try:
        check(text)
    except InvalidConfig:
        return False
    return True


NAMES = st.sampled_from(["x", "y"])
STEPS = st.lists(
    st.tuples(st.sampled_from(["answers", "is silent", "leaves", "is asked", "is asked"]), NAMES), max_size=8
)


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_whoever_is_asked_answers_is_silent_or_is_not_there_as_with_nats(server, steps):
    assert asyncio.run(asked_by_nats(server.url, steps)) == asked_by_us(steps)


async def asked_by_nats(url, steps):
    caller, other = await nats.connect(url), await nats.connect(url)
    there, quiet, outcomes = {}, set(), []

    async def answer(message):
        await message.respond(b"yes")

    async def be_silent(message):
        pass

    for what, name in steps:
        if what == "is asked":
            try:
                # Who answers may take his time: a busy machine is not silence.
                patience = 0.05 if name in quiet else 20
                outcomes.append((await caller.request(name, b"?", timeout=patience)).data.decode())
            except nats.errors.NoRespondersError:
                outcomes.append("no responders")
            except nats.errors.TimeoutError:
                outcomes.append("timeout")
            continue
        if name in there:
            await there.pop(name).unsubscribe()
        if what != "leaves":
            there[name] = await other.subscribe(name, cb=answer if what == "answers" else be_silent)
        (quiet.add if what == "is silent" else quiet.discard)(name)
        # Twice: nats-py writes the ping of a flush before the subscriptions that are still in its buffer.
        await other.flush()
        await other.flush()
    await caller.close()
    await other.close()
    return outcomes


def asked_by_us(steps):
    sim = af.Simulation(masters=0, seed=1)
    caller, outcomes = sim.agent("caller"), []

    async def answer(message):
        return "yes"

    async def be_silent(message):
        await asyncio.sleep(3600)

    for what, name in steps:
        if what == "is asked":
            try:
                outcomes.append(caller.request(name, timeout_ms=50).result())
            except af.NoResponders:
                outcomes.append("no responders")
            except af.RequestTimeout:
                outcomes.append("timeout")
            continue
        if name in sim._world.agents:
            sim.agent(name).close()
        if what != "leaves":
            sim.agent(name).on("task_request")(answer if what == "answers" else be_silent)
    return outcomes


def test_nobody_there_is_known_at_once_here_and_there(server):
    async def ask():
        caller = await nats.connect(server.url)
        try:
            with pytest.raises(nats.errors.NoRespondersError):
                await caller.request("nobody", b"?", timeout=60)
        finally:
            await caller.close()

    asyncio.run(asyncio.wait_for(ask(), 30))
    with af.AgentCommunication("caller") as caller, pytest.raises(af.NoResponders):
        caller.request("nobody", timeout_ms=60_000).result(30)


def test_two_matching_subscriptions_are_two_copies_for_nats_and_one_for_an_agent(wire, sim):
    """The one place where we do not follow NATS: an agent is one, however many of its subscriptions match."""
    one, _ = wire.subscribe("news.*")
    two, _ = wire.subscribe("news.>")
    heard = [line.split()[2] for line in wire.say("PUB news.local 0", "") if line.startswith("MSG")]
    assert sorted(heard) == [str(one), str(two)]
    wire.say(f"UNSUB {one}", f"UNSUB {two}")
    a, b = sim.agent("a"), sim.agent("b")
    seen = []
    b.subscribe(["news.*", "news.>"])
    b.on("notification")(seen.append)
    a.publish("news.local", AgentMessage("notification", "once"))
    sim.run_for(1)
    assert [message.content for message in seen] == ["once"]
