"""The tables: their columns are promises, empty or full; and the answers in words."""

import pandas as pd
import pytest

import agentflow as af
from agentflow.cluster import tables
from agentflow.core.control.commands import DrainWorker
from agentflow.rows import ANY, COUNT, FLAG, INSTANT, NUMBER, SECONDS, TEXT

PROMISED = {
    "tasks": "run task name state priority group worker attempts submitted_s ready_s started_s finished_s wait_s run_s "
    "result_bytes error",
    "attempts": "run task attempt worker state started_s finished_s run_s cpu_s error stdout",
    "elections": "term candidate outcome votes voters started_s decided_s duration_s cause",
    "nodes": "id role term commit applied alive",
    "workers": "id status group load running max_tasks heartbeat_age_s",
    "log": "node index term kind committed applied summary",
    "queue": "time_s depth low medium high urgent oldest_s rate_in rate_out",
    "messages": "seq time_s node kind source destination type cause lamport payload",
    "events": "seq time_s node kind source destination type cause lamport payload",
}
PROMISED_OF_A_RUN = {
    "tasks": PROMISED["tasks"],
    "attempts": PROMISED["attempts"],
    "results": "task value",
    "errors": "exception message count first_task",
}
DTYPES = {
    SECONDS: "float64",
    NUMBER: "float64",
    COUNT: "Int64",
    INSTANT: "datetime64[us, UTC]",
    TEXT: "string",
    FLAG: "boolean",
    ANY: "object",
}


def boom():
    raise ValueError("boom")


def busy_flow():
    flow = af.Workflow("busy")
    for i, priority in enumerate(("low", "medium", "high", "urgent") * 4):
        flow.add(int, i, id=f"t{i}", priority=priority, name=f"task {i}" if i % 2 else f"t{i}")
    bad = flow.add(boom, id="bad", retries=1)
    flow.add(boom, id="bad-2")
    flow.add(int, bad, id="after")
    flow.add(int, id="far", group="nowhere")
    return flow


@pytest.fixture
def full(sim):
    run = sim.submit(busy_flow())
    sim.run_for(5)
    sim.kill(sim.leader)
    sim.kill("worker-1")
    sim.run_for(10)
    return sim, run


@pytest.fixture
def empty():
    return af.Simulation(masters=3, workers=0)


def check(frame, table):
    """Columns, dtypes and categories are those of the schema."""
    schema = getattr(tables, table.upper())
    assert list(frame.columns) == list(schema.names)
    for column in schema.columns:
        dtype = frame[column.name].dtype
        if column.categories:
            assert list(dtype.categories) == list(column.categories)
            assert dtype.ordered == column.ordered
        else:
            assert str(dtype) == DTYPES[column.kind], column.name


@pytest.mark.parametrize("table", PROMISED)
def test_a_table_has_its_columns_and_dtypes_full_and_empty(full, empty, table):
    for cluster in (full[0], empty):
        frame = getattr(cluster.frames, table)()
        check(frame, table)
        assert not set(PROMISED[table].split()) - set(frame.columns)
        assert not frame.attrs
    assert len(getattr(full[0].frames, table)()) > 0


@pytest.mark.parametrize("table", PROMISED_OF_A_RUN)
def test_a_runs_table_has_its_columns_and_dtypes_full_and_empty(full, table):
    sim, run = full
    for each in (run, sim.submit(af.Workflow("empty"))):
        frame = getattr(each.frames, table)()
        check(frame, table)
        assert not set(PROMISED_OF_A_RUN[table].split()) - set(frame.columns)
    assert len(getattr(run.frames, table)()) > 0


def test_docs_say_what_each_column_means(sim):
    for table in (*PROMISED, "results", "errors"):
        docs = sim.frames.docs(table)
        assert list(docs.columns) == ["column", "dtype", "kind", "meaning"]
        assert docs.meaning.str.len().min() > 2


def test_the_rows_of_tasks_tell_their_story(full):
    sim, run = full
    tasks = sim.frames.tasks().set_index("task")
    assert tasks.state["t0"] == "COMPLETED"
    assert (tasks.state["bad"], tasks.attempts["bad"], tasks.error["bad"]) == (
        "FAILED",
        2,
        "ValueError: boom",
    )
    assert tasks.state["after"] == "SKIPPED"
    assert (tasks.state["far"], tasks.group["far"]) == ("READY", "nowhere")
    assert (tasks.name["t1"], tasks.name["t2"]) == ("task 1", "t2")
    done = tasks[tasks.state == "COMPLETED"]
    assert (done.wait_s >= 0).all()
    assert (done.run_s - 1.0).abs().max() < 1e-6, "they took as long as estimated"
    assert ((done.finished_s - done.started_s - done.run_s).abs() < 1e-6).all()
    assert done.result_bytes.notna().all()
    assert (tasks.priority > "LOW").sum() == 4 * 3 + 4, "the priority is ordered"
    assert str(tasks.submitted_at.iloc[0].year) == "2000"
    assert tasks.run.eq(run.id).all()


def test_results_and_errors_of_a_run(full):
    _, run = full
    results = run.frames.results().set_index("task")
    assert results.value["t3"] == 3
    assert len(results) == 16, "those that are there, though the run is not done"
    errors = run.frames.errors()
    assert errors.values.tolist() == [["ValueError", "boom", 2, "bad-2"]]


def test_elections_tell_who_won_and_why(full):
    sim, _ = full
    elections = sim.frames.elections()
    won = elections[elections.outcome == "won"]
    assert list(won.term) == sorted(won.term)
    assert won.candidate.iloc[-1] == sim.leader
    assert (won.votes >= 2).all()
    assert (won.duration_s >= 0).all()


def test_nodes_and_workers_tell_who_is_up(full):
    sim, _ = full
    nodes = sim.frames.nodes().set_index("id")
    assert nodes.alive.sum() == 2
    assert (nodes.role == "leader").sum() == 1
    workers = sim.frames.workers().set_index("id")
    assert workers.status.to_dict() == {"worker-1": "OFFLINE", "worker-2": "ACTIVE"}
    assert pd.isna(workers.heartbeat_age_s["worker-1"])
    assert workers.lost_s["worker-1"] > 0


def test_the_log_says_what_its_entries_hold(full):
    sim, _ = full
    log = sim.frames.log()
    mine = log[log.node == sim.leader]
    assert set(mine.kind) == {"no-op", "batch"}
    summary = " ".join(mine.summary)
    for word in ("submit", "completions", "register worker-2", "lost worker-1", "a term begins"):
        assert word in summary
    assert mine[mine.applied].committed.all()


def test_the_log_says_which_keys_were_written_and_reads_leave_nothing_in_it():
    sim = af.Simulation(masters=1, seed=7)
    sim.run_until(lambda s: s.leader)
    client = sim.client("c1")
    client.set("x", "long " * 20)
    client.cas("x", None, 2)
    client.get("x")
    summary = list(sim.frames.log().summary)
    assert [said.split(" ")[:2] for said in summary[-2:]] == [["set", "x"], ["cas", "x:"]]
    assert len(summary[-2]) < 60
    assert summary[-1] == "cas x: None → 2"


def test_the_queue_rises_and_falls(full):
    sim, _ = full
    queue = sim.frames.queue()
    assert queue.depth.max() > 1
    assert (queue.depth == queue.low + queue.medium + queue.high + queue.urgent).all()
    assert queue.time_s.is_monotonic_increasing


def test_messages_tell_what_became_of_them(full):
    sim, _ = full
    messages = sim.frames.messages()
    assert {"delivered", "dropped"} <= set(messages.outcome)
    dropped = messages[messages.outcome == "dropped"]
    assert dropped.reason.notna().all()
    delivered = messages[messages.outcome == "delivered"]
    assert (delivered.arrived_s >= delivered.time_s).all()
    assert delivered.message.is_unique


def test_the_repr_of_frames_lists_them(sim):
    assert "tasks()" in repr(sim.frames)
    assert "elections()" in repr(sim.frames)
    run = sim.submit(int)
    assert repr(run.frames).startswith("<frames of run-1: tasks(), attempts(), results(), errors()")


def test_a_frame_is_of_one_moment(live):
    run = live.map(int, range(200))
    for _ in range(20):
        tasks = live.frames.tasks()
        mine = tasks[tasks.run == run.id]
        assert len(mine) == 200
    run.wait(20)


# --- answers in words -------------------------------------------------------------------------------------------


def test_a_task_that_waits_for_another_says_for_which(sim):
    run = sim.submit(af.Workflow("abc", tasks=[("a", []), ("b", []), ("c", ["a", "b"])]))
    sim.run_for(0.5)
    assert run.explain("c") == "'c' waits for 'a', 'b', which have not settled."


def test_a_task_that_runs_says_where_and_beside_whom(sim):
    run = sim.submit(af.Workflow("abc", tasks=["a", "b", "c", "d"]))
    sim.run_for(0.6)
    assert "'a' runs on worker-" in run.explain("a")
    assert "(attempt 1); 2 tasks share that worker" in run.explain("a")
    assert "share one core" in run.explain("a")


def test_a_task_that_has_ended_says_how(sim):
    flow = af.Workflow("ends")
    flow.add(int, id="good")
    bad = flow.add(boom, id="bad", retries=1)
    flow.add(int, bad, id="after")
    flow.add(int, bad, id="rule", when="one_success")
    run = sim.submit(flow).wait()
    assert run.explain("good") == f"'good' completed on {run.frames.tasks().worker[0]} in 1.000 s."
    assert run.explain("bad") == "'bad' failed after 2 tries: ValueError: boom."
    assert run.explain("after") == "'after' never ran: 'bad' before it failed."
    cancelled = sim.submit(int, duration=50)
    cancelled.cancel()
    assert cancelled.explain("int") == "'int' was cancelled."
    flow = af.Workflow("rules")
    flow.add(int, flow.add(int, id="fine"), id="only-then", when="one_failed")
    assert "its trigger rule 'one_failed' was not met" in sim.submit(flow).wait().explain("only-then")


def test_a_task_in_back_off_says_until_when(sim):
    run = sim.submit(boom, retries=1, backoff=af.Backoff(base_secs=30))
    sim.run_for(11)
    assert "failed after ValueError: boom; it is tried again in" in run.explain("boom")
    assert "(back-off)" in run.explain("boom")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"group": "gpu"}, "no worker of group 'gpu' is alive (there are groups: default)"),
        ({"resources": {"gpu": 2}}, "gpu=2 (the most any has is 0)"),
        ({"resources": {"cpu": 64}}, "cpu=64 (the most any has is 4)"),
        ({"requires": {"arch": "arm"}}, "arch='arm'"),
    ],
)
def test_a_task_that_nobody_can_take_says_what_is_missing(sim, options, said):
    run = sim.submit(int, **options)
    sim.run_for(10)
    assert said in run.explain("int")
    assert said in sim.diagnose()


def test_a_task_behind_others_says_so(sim):
    run = sim.submit(af.Workflow("many", tasks=[f"t{i}" for i in range(20)]))
    sim.run_for(0.6)
    assert "all 2 that could take it are full; about" in run.explain("t19")


def test_a_task_whose_workers_drain_or_are_gone_says_so(sim):
    run = sim.submit(int)
    run.wait()
    sim._command("notebook", DrainWorker("worker-1"))
    sim.kill("worker-2")
    sim.run_for(10)
    run = sim.submit(int)
    sim.run_for(1)
    assert "every worker that could take it is draining" in run.explain("int")
    sim.kill("worker-1")
    sim.run_for(10)
    assert "none is registered and alive" in run.explain("int")


def test_without_a_leader_the_reason_is_said(sim):
    run = sim.submit(int, duration=50)
    sim.run_for(1)
    others = [name for name in sim.masters if name != sim.leader]
    for name in others:
        sim.kill(name)
    sim.run_for(5)
    said = run.explain("int")
    assert "runs on worker" in said
    assert "There is no leader: 1 of 3 masters are up and 2 make a majority" in said
    assert all(repr(name) in sim.diagnose() for name in others)
    for name in others:
        sim.restart(name)
    assert "an election is under way" in sim.diagnose()
    sim.partition({"master-1"}, {"master-2"}, {"master-3"})
    sim.run_for(5)
    assert "the network is cut" in sim.diagnose()
    sim.heal()
    sim.run_for(5)
    assert sim.diagnose().startswith("All is well")


def test_a_worker_that_cannot_register_is_explained():
    sim = af.Simulation(masters=3, workers=1, config=af.RaftConfig.fast())
    sim.partition({"worker-1"}, {"master-1", "master-2", "master-3"})
    sim.run_for(10)
    assert "worker-1 has not registered" in sim.diagnose()


def test_a_run_that_the_masters_do_not_know_is_said_to_be_unknown(sim):
    run = sim.submit(int).wait()
    run.release()
    assert "the masters that are up do not know it" in run.explain("int")


def test_events_name_their_message_and_say_what_they_can_know_of():
    sim = af.Simulation(masters=3, seed=7).run_for(8)
    events = sim.frames.events(vector_clocks=True)
    assert "vector" not in sim.frames.events()
    sent = events[events.kind == "send"].set_index("message")
    arrived = events[events.kind == "deliver"]
    assert arrived.message.notna().all()
    assert events[events.kind == "role"].message.isna().all()
    for row in arrived.itertuples():
        before = sent.vector[row.message]
        assert all(row.vector.get(node, 0) >= count for node, count in before.items())


def test_a_master_that_is_missed_is_named_while_others_lead():
    sim = af.Simulation(masters=5, seed=7)
    sim.run_until(lambda s: s.leader)
    first, second = [master for master in sim.masters if master != sim.leader][:2]
    sim.kill(first)
    assert sim.diagnose() == (
        f"{first} is down: 4 of 5 masters are up, 1 more may go; cluster.restart('{first}') brings it back."
    )
    sim.pause(second)
    assert "3 of 5 masters are up, without one more there is no majority" in sim.diagnose()
    assert f"cluster.resume('{second}')" in sim.diagnose()
