"""Recorded workflows of scientists: each runs to its end, with the tasks, edges and critical path on record."""

import re

import pytest

import agentflow as af


@pytest.fixture(scope="module")
def recorded(shared_data):
    """File name to (tasks, edges, critical path in seconds), as the folder's README has them."""
    folder = shared_data / "wfinstances"
    if not folder.is_dir():
        pytest.skip(f"recorded workflows are not at {folder}")
    facts = {}
    for line in (folder / "README.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if re.fullmatch(r"\S+\.json", cells[0]):
            if len(cells) > 6:
                facts[cells[0]] = [int(cells[1]), int(cells[2])]
            else:
                facts[cells[0]].append(float(cells[2]))
    return folder, facts


def test_every_trace_has_the_tasks_edges_and_critical_path_on_record(recorded):
    folder, facts = recorded
    assert set(facts) == {path.name for path in folder.glob("*.json")}
    for name, (tasks, edges, seconds) in facts.items():
        flow = af.Workflow.from_wfformat(folder / name, scale=0)
        graph = af.TaskDependencyGraph.from_workflow(flow)
        assert len(flow) == tasks
        assert sum(len(node.dependencies) for node in flow.tasks.values()) == edges
        path = sum(flow.tasks[task].estimated_duration_secs for task in graph.get_critical_path())
        assert path == pytest.approx(seconds, abs=0.06), name


def test_every_trace_runs_to_its_end_on_a_cluster(recorded):
    folder, facts = recorded
    with af.Cluster(masters=3, workers=4) as cluster:
        for name, (tasks, _, _) in facts.items():
            run = cluster.submit(af.Workflow.from_wfformat(folder / name, scale=0))
            assert run.wait(60).ok, name
            assert run.counts["COMPLETED"] == tasks
            run.release()


def test_every_trace_runs_in_virtual_time_within_its_bounds(recorded):
    folder, facts = recorded
    for name, (_, _, seconds) in facts.items():
        flow = af.Workflow.from_wfformat(folder / name, scale=0)
        if len(flow) > 110:
            continue  # the large ones take long in the simulator, and run above
        sim = af.Simulation(masters=3, workers=2, seed=1, config=af.RaftConfig.fast())
        sim.run_until(lambda s: s.leader and len(s.plane().workers) == 2)
        began = sim.now
        run = sim.submit(flow)
        run.wait(200_000)
        assert run.ok, name
        work = sum(node.estimated_duration_secs for node in flow.tasks.values())
        took = sim.now - began
        assert max(seconds, work / 8) * 0.999 <= took <= work + 60, name
