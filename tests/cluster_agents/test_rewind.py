"""Agents in a simulation that goes back: handles and handlers belong to whichever past they are in."""

import asyncio

import pytest

import agentflow as af
from agentflow import AgentMessage


@pytest.fixture
def story():
    """Two agents of whom one asks a third one, and what was done to them by hand; return it and its handles."""

    def make(seed=7):
        sim = af.Simulation(masters=0, seed=seed, network=af.Network(latency_ms=(1, 10), loss=0.05))
        a, b, c = (sim.agent(name) for name in "abc")

        @b.on("task_request")
        async def pass_on(message):
            await asyncio.sleep(1)
            try:
                return 1 + await b.request("c", message.content, timeout_ms=3000)
            except af.RequestTimeout:
                return None

        c.on("task_request")(lambda message: 10 * message.content)
        c.subscribe(["news.*"])
        for number in range(6):
            a.request("b", number, timeout_ms=20_000).ignore()
            a.publish("news.local", number)
            sim.run_for(2)
        return sim, a, b, c

    return make


def test_a_past_with_agents_is_made_again_to_the_event(story):
    sim, a, b, c = story()
    before = sim.trace.digest()
    assert sim.rewind(to=5).now == 5
    assert len(a.get_history()) < 12
    for number in range(3, 6):
        if sim.now < 2 * number:
            sim.run_to(2 * number)
        a.request("b", number, timeout_ms=20_000).ignore()
        a.publish("news.local", number)
        sim.run_for(2)
    assert sim.trace.digest() == before
    assert sim.check()
    assert b.stats().received > c.stats().failed == 0


def test_handles_go_on_in_the_past_they_were_taken_to(story):
    sim, a, b, _ = story()
    sim.rewind(to=3)
    assert sim.agent("a") is a
    sim.network.loss = 0.0
    assert a.request("b", 4).result() == 41
    b.on("task_request")(lambda message: "another handler")
    assert a.request("b", 4).result() == "another handler"
    assert [message.content for message in b.get_history(2)] == [4, "another handler"]
    assert sim.check()


def test_a_branch_has_agents_of_its_own(story):
    sim, a, _, _ = story()
    sim.network.loss = 0.0
    other = sim.branch()
    assert other.agent("a") is not a
    other.kill("c")
    assert a.request("b", 4).result() == 41
    with pytest.raises(af.RemoteError, match="NoResponders"):
        other.agent("a").request("b", 4).result()


def test_what_came_later_is_forgotten(story):
    sim, a, b, c = story()
    late = sim.agent("late")
    asked = a.request("b", 1)
    sim.rewind(to=4)
    assert late.closed
    with pytest.raises(af.Closed, match="went back to before this was answered"):
        asked.result()
    with pytest.raises(af.Closed):
        late.send_to_agent(AgentMessage("heartbeat", to="a")).result()
    assert sim.agent("late") is not late
    assert a.peers == (b.id, c.id, "late")


def test_the_way_to_an_earlier_instant_leaves_the_present_alone(story):
    sim, a, _, _ = story()
    before = sim.trace.digest(), a.get_history()
    moment = sim.state_at(5.0)
    assert moment is not None
    assert (sim.trace.digest(), a.get_history()) == before


def test_the_same_run_twice_is_proof_of_one_history(story):
    sim, *_ = story()
    assert sim.prove_deterministic(process=False)


def test_what_draws_chance_from_outside_is_found_out():
    import random

    sim = af.Simulation(masters=0, seed=7)
    a, b = sim.agent("a"), sim.agent("b")
    b.on("task_request")(lambda message: random.random())
    a.request("b").result()
    sim.run_for(1)
    with pytest.raises(af.InvariantViolated, match="chance"):
        sim.rewind(to=0.5)


def test_what_was_done_by_hand_comes_out_as_python():
    sim = af.Simulation(masters=0, seed=7)
    a, b = sim.agent("a"), sim.agent("b", capacity=5)
    b.on("task_request", "jobs.*")(len)
    b.on("heartbeat")(print)
    b.subscribe(["news.>"])
    sim.run_for(1)
    a.send_to_agent(AgentMessage("status_update", {"load": 0.5}, to="b"))
    with pytest.raises(af.RemoteError):
        a.request("b", [1, 2], timeout_ms=100).result()
    a.close()
    sim.run_for(1)
    script = sim.script()
    expected = """
sim.agent('a')
sim.agent('b', capacity=5)
sim.agent('b').on('task_request', 'jobs.*')(len)
sim.agent('b').on('heartbeat')(print)
sim.agent('b').subscribe(['news.>'])
sim.run_to(1.0)
sim.agent('a').send_to_agent(af.AgentMessage(msg_type='status_update', content={'load': 0.5}, to='b'))
sim.agent('a').request('b', [1, 2], timeout_ms=100)
"""
    assert expected in script
    scope = {}
    exec(script, scope)
    assert scope["sim"].trace.digest() == sim.trace.digest()


def test_agents_that_were_idle_are_in_the_copies_that_shorten_the_way_back():
    sim = af.Simulation(masters=3, seed=7, config=af.RaftConfig.fast())
    a, b = sim.agent("a"), sim.agent("b")
    b.on("task_request")(lambda message: message.content)
    sim.run_for(60)
    sim.rewind(to=40)
    assert sim._copies.worlds
    assert a.request("b", 5).result() == 5
    sim.run_for(20)
    sim.rewind(to=45)
    assert a.request("b", 6).result() == 6
    assert [message.content for message in a.get_history()] == [5, 5, 6, 6]
    assert sim.check()


def test_an_agent_that_was_closed_later_is_open_again():
    sim = af.Simulation(masters=0, seed=7)
    a, b = sim.agent("a"), sim.agent("b")
    b.on("task_request")(lambda message: message.content)
    sim.run_for(1)
    b.close()
    sim.run_for(1)
    sim.rewind(to=0.5)
    assert not b.closed
    assert a.request("b", 1).result() == 1
