"""The view of a run: nothing is told twice, every task is in one box, and a task says why it stands where it does."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

import agentflow as af
from agentflow.notebook.live.graphs import drawn, folded, lengths, spans
from agentflow.notebook.live.modules import text_of
from agentflow.notebook.live.run import ATTEMPT_STATES, RunScene
from agentflow.notebook.live.scene import Frame
from agentflow.notebook.live.tail import Tail

HOSTILE = "<img src=x onerror=alert(1)>\"'&</script>\x00\u202e" + "w" * 300


def unrolled(runs):
    return [state for state, length in zip(runs[::2], runs[1::2], strict=True) for _ in range(length)]


def members(runs):
    return [
        n for first, length in zip(runs[::2], runs[1::2], strict=True) for n in range(first, first + length)
    ]


@given(st.binary(max_size=400))
def test_states_survive_being_shortened(states):
    assert unrolled(lengths(states)) == list(states)


@given(st.sets(st.integers(0, 500)))
def test_positions_survive_being_shortened(numbers):
    assert members(spans(sorted(numbers))) == sorted(numbers)


def unfolded(names):
    return [
        name
        for each in names
        for name in (
            [each] if isinstance(each, str) else [f"{each[0]}[{each[1] + i}]" for i in range(each[2])]
        )
    ]


@given(st.lists(st.sampled_from(["a", "a[0]", "a[1]", "a[2]", "a[01]", "b[1]", "a[]", "[1]", "a[1][2]"])))
def test_names_survive_being_folded(names):
    assert unfolded(folded(names)) == names


@pytest.mark.parametrize("size", [0, 1, 39, 2000])
def test_every_task_is_in_exactly_one_box(size):
    ids = [f"part[{i}]" for i in range(size)]
    graph = drawn(ids, [() for _ in ids])
    assert sorted(n for box in graph["boxes"] for n in members(box["tasks"])) == list(range(size))
    assert len(graph["boxes"]) <= 70


@pytest.fixture
def sim():
    sim = af.Simulation(masters=3, workers=2, seed=1, config=af.RaftConfig.fast())
    sim.run_until(lambda s: s.leader and len(s.plane().workers) == 2)
    return sim


def look(scene, sim):
    frame = Frame(sim, Tail())
    fixed = scene.fixed(frame)
    data = scene.snapshot(frame)
    json.dumps([fixed, data])
    return fixed, data


def test_an_attempt_is_told_once(sim):
    flow = af.Workflow("many")
    flow.map(abs, range(40), estimated_duration_secs=0.1)
    run = sim.submit(flow)
    scene = RunScene(run)
    told = []
    while not run.done:
        sim.run_for(0.2)
        _, data = look(scene, sim)
        assert data["from"] == len(told)
        told += data["rows"]
    assert sorted(row[0] for row in told) == list(range(40))
    assert [row for piece in scene.rest() for row in piece["rows"]] == told


def test_states_and_counts_agree(sim):
    run = sim.submit(af.Workflow("two", tasks=[("a", []), ("b", ["a"])]))
    scene = RunScene(run)
    for _ in range(6):
        _, data = look(scene, sim)
        states = unrolled(data["states"])
        assert [states.count(state) for state in range(8)] == data["counts"]
        sim.run_for(0.05)


def test_the_graph_is_laid_out_once(sim):
    run = sim.submit(af.Workflow("two", tasks=[("a", []), ("b", ["a"])]))
    scene = RunScene(run)
    first, _ = look(scene, sim)
    assert first["graph"] is None, "the names come first, since laying out takes a while"
    second, _ = look(scene, sim)
    assert len(second["graph"]["boxes"]) == 2
    assert look(scene, sim)[0] is None
    scene.refix()
    assert look(scene, sim)[0]["graph"] == second["graph"]


def boom():
    raise ValueError(HOSTILE)


def test_a_failure_brings_its_traceback_and_says_why(sim):
    flow = af.Workflow(HOSTILE)
    flow.add(boom, id=HOSTILE)
    run = sim.submit(flow)
    run.wait()
    scene = RunScene(run)
    _, data = look(scene, sim)
    assert data["failures"][0][1] == "ValueError"
    deed = scene.deed("explain", {"task": 0})
    answer = deed.call()
    assert "boom" in answer["traceback"]
    assert "failed" in answer["said"]
    assert deed.line == f"run.explain({HOSTILE!r})"


@pytest.mark.parametrize("task", [-1, 1, "0", None, True, 1.5])
def test_a_task_that_is_not_there_is_refused(sim, task):
    run = sim.submit(pow, 2, 3)
    with pytest.raises(af.NoSuchTask):
        RunScene(run).deed("explain", {"task": task})


def test_a_run_that_the_masters_forgot_is_shown_all_the_same(sim):
    run = sim.submit(pow, 2, 3)
    run.wait()
    run.release()
    _, data = look(RunScene(run), sim)
    assert not data["known"]
    assert data["counts"][3] == 1


def test_browser_and_kernel_number_the_ends_of_attempts_alike():
    listed = text_of("run.js").split("const ATTEMPT = [")[1].split("]")[0]
    assert tuple(word.strip(' "').upper() for word in listed.split(",")) == ATTEMPT_STATES


def test_a_snapshot_of_ten_thousand_tasks_is_small_and_soon_made(sim):
    flow = af.Workflow("huge")
    flow.map(abs, range(10_000))
    run = sim.submit(flow)
    scene = RunScene(run)
    for _ in range(3):
        look(scene, sim)
    began = time.process_time()
    _, data = look(scene, sim)
    assert len(json.dumps(data)) < 20_000
    assert time.process_time() - began < 0.5
