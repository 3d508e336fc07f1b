"""Agents in real time: any loop, any thread, cells, blocking handlers, and a clean end."""

import asyncio
import threading
import time

import pytest

import agentflow as af
from agentflow import AgentMessage


@pytest.fixture
def pair(kernel):
    """Two agents on the kernel's bus, of which one answers with what it was asked."""
    a, b = kernel.agents("a", "b")

    @b.on("task_request")
    async def echo(message):
        return message.content

    return a, b


# --- from anywhere ----------------------------------------------------------------------------------------


def test_one_asks_from_a_plain_thread(pair):
    a, _ = pair
    found = []
    threads = [
        threading.Thread(target=lambda n=n: found.append(a.request("b", n).result(10))) for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == list(range(8))


def test_one_asks_from_any_loop(pair):
    a, _ = pair

    async def ask():
        answers = await asyncio.gather(*(a.request("b", number) for number in range(50)))
        task = asyncio.create_task(a.request("b", "in a task"))
        return [*answers, await task, await asyncio.wait_for(a.request("b", "in time"), 10)]

    expected = [*range(50), "in a task", "in time"]
    assert asyncio.run(ask()) == expected
    assert af.run_sync(ask()) == expected
    assert asyncio.run(a.request("b", "alone")) == "alone"
    assert af.run_sync(a.request("b", "here")) == "here"


def test_two_loops_at_once_do_not_disturb_each_other(pair):
    a, _ = pair
    found = {}

    def work(name):
        async def ask():
            found[name] = [await a.request("b", f"{name}{number}") for number in range(100)]

        asyncio.run(ask())

    threads = [threading.Thread(target=work, args=(name,)) for name in "xyz"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {name: [f"{name}{number}" for number in range(100)] for name in "xyz"}


def test_who_stops_waiting_on_a_loop_leaves_nothing_open(kernel, pair):
    a, b = pair
    gate = threading.Event()
    b.on("task_request")(lambda message: gate.wait(20))

    async def give_up():
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(a.request("b", timeout_ms=60_000), 0.05)

    asyncio.run(give_up())
    assert kernel.until(lambda: a.stats().pending_requests == 0)
    gate.set()
    assert kernel.until(lambda: a.stats().dead_letters.get("late reply") == 1)


def test_blocking_for_an_answer_has_its_own_time_out_and_the_call_goes_on(pair):
    a, b = pair
    gate = threading.Event()
    b.on("task_request")(lambda message: gate.wait(20) and "late but there")
    asked = a.request("b", timeout_ms=60_000)
    with pytest.raises(af.TimedOut, match="the call goes on"):
        asked.result(0.05)
    gate.set()
    assert asked.result(10) == "late but there"


def test_to_block_on_agentflows_own_loop_is_refused(pair):
    a, b = pair

    @b.on("resource_query")
    async def block(message):
        return b.request("a", 1).result(1)

    with pytest.raises(af.RemoteError, match="would block the loop"):
        a.request("b", msg_type="resource_query").result(10)


def test_to_block_in_a_handler_of_a_simulation_is_refused(sim):
    a, b = sim.agent("a"), sim.agent("b")
    b.on("task_request")(lambda message: b.request("a", 1).result(1))
    with pytest.raises(af.RemoteError, match="make the handler async"):
        a.request("b").result()


# --- plain handlers ---------------------------------------------------------------------------------------


def test_a_plain_handler_may_block_and_ask_others_meanwhile(kernel, pair):
    a, _ = pair
    c = kernel.agent("c")
    c.on("task_request")(lambda message: c.request("d", message.content).result(10))
    kernel.agent("d").on("task_request")(lambda message: message.content + 1)
    assert a.request("c", 1).result(10) == 2


def test_a_handler_that_blocks_stops_nobody_else(kernel, pair):
    a, _ = pair
    gate = threading.Event()
    c = kernel.agent("c")
    c.on("task_request")(lambda message: gate.wait(30))
    blocked = a.request("c", timeout_ms=60_000)
    assert [a.request("b", number).result(10) for number in range(20)] == list(range(20))
    assert not blocked.done
    gate.set()
    assert blocked.result(10) is True


def test_handlers_of_one_agent_run_one_after_the_other(kernel):
    a, b = kernel.agents("a", "b")
    busy, most = [], []

    def work(message):
        busy.append(1)
        most.append(len(busy))
        time.sleep(0.001)
        busy.pop()

    async def work_later(message):
        busy.append(1)
        most.append(len(busy))
        await asyncio.sleep(0.001)
        busy.pop()

    b.on("task_request")(work)
    b.on("notification")(work_later)
    asked = []
    for number in range(20):
        asked.append(a.request("b", number))
        a.send_to_agent(AgentMessage("notification", to="b"))
    for call in asked:
        call.result(10)
    assert kernel.until(lambda: b.stats().handled == 40)
    assert set(most) == {1}


# --- a live cluster ---------------------------------------------------------------------------------------


def test_an_agent_killed_under_a_question_fails_it_at_once():
    with af.Cluster(masters=1, workers=1) as cluster:
        a, b = cluster.agent("a"), cluster.agent("b")
        begun = threading.Event()

        @b.on("task_request")
        async def never(message):
            begun.set()
            await asyncio.sleep(60)

        asked = a.request("b", timeout_ms=60_000)
        assert begun.wait(10)
        before = time.monotonic()
        cluster.kill("b")
        with pytest.raises(af.PeerDown):
            asked.result(30)
        assert time.monotonic() - before < 10
        with pytest.raises(af.NoResponders):
            a.request("b").result(10)
        cluster.restart("b")
        b.on("task_request")(lambda message: "risen")
        assert a.request("b").result(10) == "risen"


def test_agents_and_tasks_share_a_cluster_and_its_tables():
    with af.Cluster(masters=3, workers=2, codec_check=True) as cluster:
        a, b = cluster.agent("a"), cluster.agent("b")

        @b.on("task_request")
        def run_it(message):
            return cluster.submit(sum, message.content).result(timeout=20)

        assert a.request("b", [1, 2, 3], timeout_ms=30_000).result(30) == 6
        messages = cluster.frames.messages()
        assert {"task_request", "task_response", "Enrol"} <= set(messages.type)
        # Every message goes through bytes here, so what cannot is refused before it is sent.
        with pytest.raises(af.InvalidConfig, match="cannot be put into bytes"):
            a.request("b", 1 << 80)


def test_a_partition_parts_agents_of_a_live_cluster():
    with af.Cluster(masters=1, workers=1) as cluster:
        a, b = cluster.agent("a"), cluster.agent("b")
        b.on("task_request")(lambda message: "here")
        cluster.partition({"a"}, {"b"})
        with pytest.raises(af.RequestTimeout):
            a.request("b", timeout_ms=50).result(10)
        cluster.heal()
        assert a.request("b").result(10) == "here"


# --- the end ----------------------------------------------------------------------------------------------


def test_what_was_sent_before_closing_is_sent(kernel, heard):
    a, b = kernel.agents("a", "b")
    seen = heard(b, "notification")
    for number in range(500):
        a.send_to_agent(AgentMessage("notification", number, to="b"))
    a.close()
    assert kernel.until(lambda: len(seen) == 500)


def test_who_closes_with_a_question_open_hears_that_it_was_closed(pair):
    a, b = pair
    gate = threading.Event()
    b.on("task_request")(lambda message: gate.wait(20))
    asked = a.request("b", timeout_ms=60_000)
    a.close()
    with pytest.raises(af.Closed, match="'a' was closed before it had an answer"):
        asked.result(10)
    gate.set()


def test_an_agent_may_close_itself_in_a_handler(kernel):
    a, b = kernel.agents("a", "b")

    @b.on("notification")
    async def leave(message):
        b.close()

    a.send_to_agent(AgentMessage("notification", to="b"))
    assert kernel.until(lambda: a.peers == ())
    with pytest.raises(af.NoResponders):
        a.request("b").result(10)


def test_an_agent_of_a_simulation_may_close_itself_in_a_handler(sim):
    a, b = sim.agent("a"), sim.agent("b")

    @b.on("notification")
    async def leave(message):
        b.close()

    a.send_to_agent(AgentMessage("notification", to="b"))
    sim.run_for(1)
    assert b.closed
    assert a.peers == ()


def test_the_kernels_bus_ends_with_the_last_agent_and_starts_anew():
    for _ in range(3):
        with af.AgentCommunication("a") as a, af.AgentCommunication("b") as b:
            b.on("task_request")(lambda message: 1)
            assert a.request("b").result(10) == 1
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("agentflow-agent")]


def test_an_agent_closes_itself_at_the_end_of_an_async_with():
    async def main():
        async with af.AgentCommunication("a") as a, af.AgentCommunication("b") as b:
            b.on("task_request")(lambda message: 2)
            assert await a.request("b") == 2
        return a, b

    a, b = asyncio.run(main())
    assert a.closed
    assert b.closed


def test_a_closed_cluster_closes_its_agents():
    with af.Cluster(masters=1, workers=1) as cluster:
        a, b = cluster.agent("a"), cluster.agent("b")
        begun, gate = threading.Event(), threading.Event()
        b.on("task_request")(lambda message: begun.set() or gate.wait(20))
        asked = a.request("b", timeout_ms=60_000)
        assert begun.wait(20)
    gate.set()
    assert a.closed
    assert b.closed
    with pytest.raises(af.Closed):
        asked.result(5)
    with pytest.raises(af.Closed):
        cluster.agent("c")
    a.close()
    assert "closed" in repr(a)
    assert cluster.frames.messages().type.tolist().count("task_request") == 1


def test_a_cell_that_is_run_again_takes_the_name_over(monkeypatch):
    from agentflow.cluster import reuse

    cell = ["cell-1"]
    monkeypatch.setattr(reuse, "current_cell", lambda: (cell[0], 1))
    first = af.AgentCommunication("a")
    again = af.AgentCommunication("a")
    assert first.closed
    cell[0] = "cell-2"
    with pytest.raises(af.InvalidConfig, match="replace=True"):
        af.AgentCommunication("a")
    last = af.AgentCommunication("a", replace=True)
    assert again.closed
    last.close()


def test_a_failure_that_nobody_looks_at_is_logged(kernel, caplog):
    a = kernel.agent("a")
    with caplog.at_level("WARNING", logger="agentflow"):
        a.request("nobody")
        assert kernel.until(lambda: "NoResponders" in caplog.text)
    assert "nobody looked at the answer of a call" in caplog.text
