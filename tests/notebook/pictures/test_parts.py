"""Queues, mailboxes, leases, registries and single nodes: empty, huge, failed, hostile and closed."""

import asyncio
import datetime
import subprocess
import sys
import time

import pytest

import agentflow as af
from agentflow.cluster.parts import (
    LeaseStatus,
    MailStatus,
    WaitingStatus,
    held,
    leases,
    mailbox,
    waiting_in_queue,
)
from agentflow.locks import DistributedLock, LockInfo
from agentflow.notebook.pictures import parts
from agentflow.notebook.pictures.picture import cropped, png


def boxes(name="agent", count=4, **changes):
    return tuple(
        MailStatus(
            f"{name}-{i}",
            **{
                "state": ("up", "down", "closed")[i % 3],
                "waiting": i * 7 % 12,
                "capacity": 10,
                "sent": 10**i % 10**9,
                "failed": i,
                "dead": (("mailbox full", 3), (name, 10**6)),
                "topics": (name,),
                "last": (("to", "task_request", name, name),) * 8,
                **changes,
            },
        )
        for i in range(count)
    )


def rent(name="key", count=3, left=20.0):
    return tuple(LeaseStatus(f"{name}-{i}", name, 10**i, 30.0, left - i * 10, name) for i in range(count))


def tasks(count):
    return tuple((1 + i % 4, float(i * 37 % 1500), float(i * 13 % 90)) for i in range(count))


QUEUES = {
    "empty": lambda hostile: WaitingStatus("queue"),
    "one": lambda hostile: WaitingStatus("queue", ((4, 1000.0, 0.0),)),
    "huge": lambda hostile: WaitingStatus("queue", tasks(200_000)),
    "failed": lambda hostile: WaitingStatus("queue", tasks(9), dead=10**7, delayed=10**7),
    "hostile": lambda hostile: WaitingStatus(hostile, tasks(5), (hostile,) * 10),
}
MAIL = {
    "empty": lambda hostile: (),
    "usual": lambda hostile: boxes(),
    "huge": lambda hostile: boxes(count=2_000),
    "hostile": lambda hostile: boxes(hostile),
    "without room": lambda hostile: boxes(capacity=0, waiting=0),
}
LOCKS = {
    "empty": lambda hostile: (),
    "usual": lambda hostile: rent(),
    "huge": lambda hostile: rent(count=900, left=1e9),
    "expired": lambda hostile: rent(left=0.0),
    "hostile": lambda hostile: rent(hostile),
    "forever": lambda hostile: (LeaseStatus("k", "o", 1, float("inf"), float("inf")),),
}


@pytest.mark.parametrize("width", [640, 360])
@pytest.mark.parametrize(
    ("draw", "status"),
    [
        *((parts.waiting_svg, status) for status in QUEUES.values()),
        *((lambda s, w: parts.mailboxes_svg(s, "bus", w), status) for status in MAIL.values()),
        *((lambda s, w: parts.locks_svg(s, "locks", w), status) for status in LOCKS.values()),
        (lambda s, w: parts.agent_svg(s[0], w), MAIL["usual"]),
        (lambda s, w: parts.agent_svg(s[0], w), MAIL["hostile"]),
    ],
)
def test_every_picture_of_a_part_is_whole_and_nothing_sticks_out(draw, status, width, read, hostile):
    drawn = draw(status(hostile), width)
    seen = read(drawn)
    assert seen.outside() == []
    assert "script" not in seen.tags
    assert len(drawn) < 300_000


def test_the_bars_of_a_distribution_count_every_task(read):
    drawn = parts.waiting_svg(WaitingStatus("queue", tasks(1_000)))
    hints = [
        part.split("</title>")[0] for part in drawn.split("<title>") if " to " in part.split("</title>")[0]
    ]
    counted = [
        int(word.replace(",", ""))
        for hint in hints
        for word in hint.split(": ")[1].split()
        if word[0].isdigit()
    ]
    assert sum(counted) == 2 * 1_000


def test_two_hundred_thousand_waiting_tasks_are_drawn_in_under_three_seconds():
    status = WaitingStatus("queue", tasks(200_000))
    began = time.thread_time()
    parts.waiting_svg(status)
    assert time.thread_time() - began < 3.0


def test_a_queue_shows_the_scores_it_serves_by():
    now = 100.0
    queue = af.PriorityTaskQueue(clock=lambda: now)
    queue.enqueue(af.TaskNode("<b>old</b>", priority="low"), now=20.0)
    queue.enqueue(af.TaskNode("new", priority="urgent"))
    status = waiting_in_queue(queue)
    assert sorted(status.tasks) == [(1, 1050.0, 80.0), (4, 1000.0, 0.0)]
    assert status.first == ("<b>old</b>", "new")
    bundle = queue._repr_mimebundle_()
    assert bundle["text/plain"] == repr(queue)
    assert "<b>old" not in bundle["text/html"]


def test_the_tasks_that_wait_in_a_cluster_are_drawn():
    sim = af.Simulation(masters=1, workers={"cpu": 1}, seed=3)
    sim.run_until(lambda s: s.leader and s.plane().workers)
    sim.submit(af.Workflow("many", tasks=[(f"t{i}", []) for i in range(40)]))
    sim.run_for(0.1)
    assert "36 waiting" in sim.plot.waiting().label


def test_an_agents_card_names_its_last_messages():
    with af.AgentCommunication("one") as one, af.AgentCommunication("two", capacity=5) as two:

        @two.on("task_request")
        async def double(message):
            return 2 * message.content["x"]

        one.request("two", {"x": 21}).result(timeout=5)
        box = mailbox(two)
        assert (box.capacity, box.handled) == (5, 1)
        assert [(way, other) for way, _, other, _ in box.last] == [("from", "one"), ("to", "one")]
        html = two._repr_mimebundle_()["text/html"]
    assert "data:image/svg+xml" in html
    assert mailbox(two).state == "closed"
    assert "closed" in two._repr_mimebundle_()["text/plain"]


def test_the_agents_of_a_simulation_are_drawn_together():
    sim = af.Simulation(masters=1, seed=2)
    sim.agent("alice")
    sim.agent("bob")
    sim.run_for(0.1)
    assert "2 agents" in sim.plot.mailboxes().svg()


def test_a_lock_shows_what_its_object_holds_and_what_the_table_said(tmp_path):
    async def hold():
        async with DistributedLock(f"sqlite:///{tmp_path / 'locks.db'}", owner="w1", ttl_secs=30) as lock:
            await lock.init_schema()
            await lock.acquire("etl")
            mine, listed = held(lock), leases(await lock.list_locks())
            bundle = lock._repr_mimebundle_()
            await lock.release("etl")
            return mine, listed, bundle, held(lock)

    mine, listed, bundle, after = asyncio.run(hold())
    assert [lease.key for lease in mine] == [lease.key for lease in listed] == ["etl"]
    assert 0 < mine[0].left_s <= 30
    assert "etl" in bundle["text/html"]
    assert after == ()


def test_leases_are_drawn_through_the_plots_of_a_cluster():
    noon = datetime.datetime(2026, 1, 1, 12, tzinfo=datetime.UTC)
    info = LockInfo(key="etl", owner="w1", token=7, acquired_at=noon, expires_at=noon, holder="w1/1/x")
    assert "expired" in af.Simulation(masters=1).plot.locks([info]).svg()


def test_a_registry_shows_its_workers_and_those_that_are_gone():
    registry = af.WorkerRegistry()
    for i in range(40):
        registry.register(af.WorkerInfo(f"<i>{i}</i>", group_name="gpu" if i % 2 else "cpu"))
    registry.mark_unhealthy("<i>0</i>", "no disk")
    html = registry._repr_mimebundle_()["text/html"]
    assert "<i>0" not in html
    assert "40 workers" in html


def test_a_raft_node_shows_its_card_running_and_stopped():
    async def live():
        node = af.RaftNode("solo", af.RaftConfig.fast(peers=["solo"]))
        before = node._repr_mimebundle_()["text/html"]
        await node.start()
        try:
            running = node._repr_mimebundle_()["text/html"]
        finally:
            await node.stop()
        return before, running

    before, running = asyncio.run(live())
    assert "crashed" in before
    assert "term" in running


def test_the_handles_of_nodes_show_their_cards():
    sim = af.Simulation(masters=3, workers=1, seed=1)
    sim.run_until(lambda s: s.leader and s.plane().workers)
    for handle in (sim.masters["master-1"], sim.workers["worker-1"]):
        assert "data:image/svg+xml" in handle._repr_mimebundle_()["text/html"]


def test_a_low_picture_is_not_cut_off_by_the_frame_of_a_browser(tmp_path):
    svg = "<svg xmlns='http://www.w3.org/2000/svg' width='40' height='30'><rect width='40' height='30' fill='red'/></svg>"
    data = png(svg, 1.0)
    assert data[16:24] == (40).to_bytes(4, "big") + (30).to_bytes(4, "big")
    lower = cropped(data, 10)
    assert lower[16:24] == (40).to_bytes(4, "big") + (10).to_bytes(4, "big")
    assert cropped(lower, 10) == cropped(cropped(lower, 99), 10)


def test_no_view_loads_what_only_its_objects_need():
    code = "import sys, agentflow.notebook; print([m for m in ('sqlalchemy', 'pandas', 'matplotlib') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
