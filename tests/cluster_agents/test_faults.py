"""Agents in virtual time, where everything between and under them breaks."""

import asyncio
import gc

import pytest

import agentflow as af
from agentflow import AgentMessage


def echo(agent, delay=0.0):
    """Let an agent answer with what it was asked, and return the list of what it handled."""
    handled = []

    @agent.on("task_request", "notification", "heartbeat", "status_update")
    async def answer(message):
        if delay:
            await asyncio.sleep(delay)
        handled.append(message.content)
        return message.content

    return handled


# --- wires ------------------------------------------------------------------------------------------------


def test_latency_is_virtual_time(sim):
    sim.network.latency_ms = (100, 100)
    a, b = sim.agent("a"), sim.agent("b")
    echo(b)
    assert a.request("b", 1).result() == 1
    assert sim.now == pytest.approx(0.2)
    sim.slow("b", ms=1000)
    assert a.request("b", 2).result() == 2
    assert sim.now == pytest.approx(2.4)


def test_what_the_wires_lose_is_lost_and_the_question_times_out(sim):
    a, b = sim.agent("a"), sim.agent("b")
    handled = echo(b)
    sim.network.loss = 1.0
    assert a.send_to_agent(AgentMessage("notification", "gone", to="b")).result()
    with pytest.raises(af.RequestTimeout):
        a.request("b", "gone too", timeout_ms=2000).result()
    assert sim.now == pytest.approx(2.0)
    sim.network.loss = 0.0
    assert a.request("b", "through").result() == "through"
    assert handled == ["through"]
    messages = sim.frames.messages()
    assert messages.outcome.tolist() == ["dropped", "dropped", "delivered", "delivered"]


def test_copies_and_stragglers_are_handled_at_most_once_and_never_out_of_order(sim):
    a, b = sim.agent("a"), sim.agent("b")
    handled = echo(b)
    sim.network.duplicate, sim.network.reorder, sim.network.reorder_ms = 0.5, 0.5, 40.0
    for number in range(200):
        a.send_to_agent(AgentMessage("notification", number, to="b"))
        sim.run_for(0.002)
    sim.run_for(2)
    assert handled == sorted(set(handled))
    counts = b.stats().dead_letters
    assert counts["stale"] > 50
    assert len(handled) >= 100
    assert sim.check()


def test_a_partition_parts_agents_and_healing_joins_them(sim):
    a, b, c = (sim.agent(name) for name in "abc")
    echo(b), echo(c)
    sim.partition({"a", "c"}, {"b"})
    with pytest.raises(af.RequestTimeout):
        a.request("b", 1, timeout_ms=1000).result()
    assert a.request("c", 1).result() == 1
    assert a.broadcast(AgentMessage("heartbeat")).result() == ("b", "c")
    sim.run_for(1)
    assert (b.stats().received, c.stats().received) == (0, 2)
    sim.heal()
    assert a.request("b", 2).result() == 2


def test_a_cut_one_way_loses_the_answer_though_the_work_is_done(sim):
    a, b = sim.agent("a"), sim.agent("b")
    handled = echo(b)
    sim.cut("b", "a")
    with pytest.raises(af.RequestTimeout, match="may have done"):
        a.request("b", "done all the same", timeout_ms=1000).result()
    assert handled == ["done all the same"]


# --- nodes ------------------------------------------------------------------------------------------------


def test_a_crash_fails_the_questions_under_way_at_once_and_their_outcome_is_unknown(sim):
    a, b = sim.agent("a"), sim.agent("b")
    handled = echo(b, delay=10)
    asked = a.request("b", 1, timeout_ms=60_000)
    sim.run_for(1)
    sim.kill("b")
    with pytest.raises(af.PeerDown, match="b went down before it answered") as caught:
        asked.result()
    assert isinstance(caught.value, af.Unknown)
    assert caught.value.node == "b"
    assert sim.now < 2
    sim.run_for(60)
    assert handled == []


def test_who_is_down_answers_no_questions_and_says_so_at_once(sim):
    a, b = sim.agent("a"), sim.agent("b")
    echo(b)
    sim.kill("b")
    with pytest.raises(af.NoResponders):
        a.request("b", timeout_ms=60_000).result()
    a.send_to_agent(AgentMessage("notification", "to nobody", to="b"))
    sim.run_for(1)
    assert sim.now < 2
    assert a.stats().dead_letters == {"unreachable": 1}
    with pytest.raises(af.PeerDown, match="b is down; restart it"):
        b.send_to_agent(AgentMessage("notification", to="a")).result()
    assert "down" in repr(b)


def test_a_restarted_agent_keeps_its_handlers_and_subscriptions_and_loses_its_mailbox(sim):
    a, b = sim.agent("a"), sim.agent("b")
    handled = echo(b, delay=5)
    b.subscribe(["news"])
    for number in range(5):
        a.send_to_agent(AgentMessage("notification", number, to="b"))
    sim.run_for(7)
    assert handled == [0]
    sim.kill("b")
    sim.run_for(30)
    sim.restart("b")
    assert b.get_history() == []
    assert a.request("b", "again", timeout_ms=30_000).result() == "again"
    assert a.publish("news").result() == ("b",)
    sim.run_for(30)
    assert handled == [0, "again", None]
    assert sim.check()


def test_a_paused_agent_hears_later_what_was_said_and_its_answer_comes_too_late(sim):
    a, b = sim.agent("a"), sim.agent("b")
    handled = echo(b)
    sim.pause("b")
    with pytest.raises(af.RequestTimeout):
        a.request("b", "slow", timeout_ms=1000, ttl=1000).result()
    sim.resume("b")
    sim.run_for(1)
    # The way is not counted in a ttl: no two clocks are compared.
    assert handled == ["slow"]
    assert a.stats().dead_letters == {"late reply": 1}


def test_an_agent_whose_time_is_up_by_hand_gives_up_its_question(sim):
    a, b = sim.agent("a"), sim.agent("b")
    echo(b, delay=30)
    asked = a.request("b", timeout_ms=60_000)
    sim.run_for(1)
    sim.timeout("a")
    with pytest.raises(af.RequestTimeout):
        asked.result()
    assert sim.now < 2
    with pytest.raises(af.Refused, match="waits for no reply"):
        sim.timeout("a")


def test_ten_thousand_questions_that_time_out_leave_nothing_behind(sim):
    a = sim.agent("a")
    sim.agent("b")
    sim.cut("a", "b")
    asked = [a.request("b", number, timeout_ms=1000 + number % 7) for number in range(10_000)]
    sim.run_for(2)
    assert a.stats().pending_requests == 0
    for call in asked:
        with pytest.raises(af.RequestTimeout):
            call.result()
    machine = sim._deployment.host.machine("a")
    assert not machine.requests._open
    assert len(machine.requests._heap) < 100


def test_agents_live_beside_masters_and_outlive_their_leader():
    sim = af.Simulation(masters=3, workers=1, seed=3, config=af.RaftConfig.fast())
    a, b = sim.agent("a"), sim.agent("b")
    echo(b)
    assert sim.run_until(lambda s: s.leader)
    sim.kill(sim.leader)
    assert a.request("b", 1).result() == 1
    assert sim.submit(sum, [1, 2]).result() == 3
    assert sim.check()


def test_a_nemesis_strikes_agents_where_there_are_no_masters(sim):
    for name in "abc":
        echo(sim.agent(name))
    plan = sim.nemesis("crash,partition,loss", until=60)
    struck = {node for fault in plan for node in fault.nodes} - {"@leader"}
    assert struck == {"a", "b", "c"}
    sim.run_for(61)
    assert {kind for kind, count in sim.landed().items() if count} <= {"crash", "partition", "loss"}
    assert sim.agent("a").request("b", 1).result() == 1


# --- virtual time -----------------------------------------------------------------------------------------


def talk(seed, **options):
    """Let three agents talk for a while; return the trace's hash."""
    sim = af.Simulation(masters=0, seed=seed, network=af.Network(latency_ms=(1, 10), loss=0.1), **options)
    agents = [sim.agent(name) for name in "abc"]
    for agent in agents:
        echo(agent, delay=0.003)

    async def chat():
        for number in range(20):
            answers = [a.request(b.id, number, timeout_ms=50) for a in agents for b in agents if a is not b]
            await asyncio.gather(*answers, return_exceptions=True)
            agents[number % 3].broadcast(AgentMessage("status_update", number))

    asyncio.run(chat())
    sim.run_for(1)
    assert sim.check()
    return sim.trace.digest()


def test_one_seed_is_one_history_and_another_seed_another():
    assert talk(7) == talk(7) != talk(8)


def test_every_message_goes_through_bytes_and_back_if_told_so():
    assert talk(7, codec_check=True) == talk(7)


def test_a_handler_may_sleep_gather_and_time_out_in_virtual_time(sim):
    a, b, c = (sim.agent(name) for name in "abc")
    echo(c, delay=40)

    @b.on("task_request")
    async def work(message):
        began = asyncio.get_running_loop().time()
        first, second = await asyncio.gather(b.request("c", 1, 60_000), asyncio.sleep(100, "slept"))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.sleep(1000), 30)
        return [first, second, asyncio.get_running_loop().time() - began]

    first, second, took = a.request("b", timeout_ms=600_000).result()
    assert (first, second) == (1, "slept")
    assert took == pytest.approx(130)


def test_a_handler_in_virtual_time_has_no_threads(sim):
    a, b = sim.agent("a"), sim.agent("b")

    @b.on("task_request")
    async def thread(message):
        await asyncio.to_thread(print)

    with pytest.raises(af.RemoteError, match="a simulation has no threads"):
        a.request("b").result()


def test_a_simulation_that_is_dropped_in_the_middle_of_a_handler_goes_quietly(sim):
    a, b = sim.agent("a"), sim.agent("b")
    echo(b, delay=100)
    a.request("b").cancel()
    sim.run_for(1)
    del a, b, sim
    gc.collect()


# --- what one sees ----------------------------------------------------------------------------------------


def test_the_judge_of_messages_speaks_in_the_verdict_of_the_simulation(sim):
    a, b = sim.agent("a"), sim.agent("b")
    echo(b)
    a.request("b", 1).result()
    verdict = sim.check()
    assert "fifo per pair" in {part.promise for part in verdict.parts[-1].parts}
    # A second handling of the same message, put into the trace by hand, breaks the promise.
    done = next(record for record in sim.trace if record.kind == "ask" and hasattr(record.payload, "items"))
    delivered = next(record for record in sim.trace if record.kind == "deliver" and record.node == "b")
    sim.trace.append(sim.now, "b", "deliver", -1, 99, "a", "b", "task_request", delivered.payload, 0)
    sim.trace.append(sim.now, "b", "ask", type="0", payload=done.payload)
    assert [part.promise for part in sim.check().violations()] == ["at most once"]


def test_what_was_lost_and_what_died_are_in_the_audit(sim):
    a, b = sim.agent("a"), sim.agent("b")
    sim.network.loss = 1.0
    lost = a.send_to_agent(AgentMessage("notification", to="b")).result()
    sim.network.loss = 0.0
    sim.run_for(1)
    dead = a.send_to_agent(AgentMessage("notification", to="b")).result()
    sim.run_for(1)
    audit = a.frames.audit()
    assert audit[audit.id == lost].event.tolist() == ["sent", "lost"]
    assert audit[audit.id == dead].event.tolist() == ["sent", "delivered", "dead"]
    assert audit.event.cat.categories.tolist() == ["sent", "delivered", "lost", "handled", "failed", "dead"]
    b.on("notification")(lambda message: None)
    sim.pause("b")
    fell = a.send_to_agent(AgentMessage("notification", to="b")).result()
    sim.run_for(1)
    sim.resume("b")
    sim.step()
    sim.kill("b")
    audit = a.frames.audit()
    assert audit[audit.id == fell].reason.dropna().tolist() == ["the agent went down"]
