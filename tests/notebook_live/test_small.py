"""Small views, dashboards and magics."""

import json
import os
import subprocess
import sys

import pytest

import agentflow as af
from agentflow.notebook.live.scene import Frame
from agentflow.notebook.live.small import PARTS
from agentflow.notebook.live.tail import Tail
from agentflow.notebook.magics import status_text, workflow_of


@pytest.mark.parametrize("part", PARTS)
def test_every_part_shows_itself_with_a_cell_a_column(part):
    with af.Cluster(masters=1, workers=2) as cluster:
        cluster.agent("a")
        with cluster.lock("etl"):
            tail = Tail()
            tail.look(cluster._deployment.host.trace)
            scene = PARTS[part](cluster)
            frame = Frame(cluster, tail)
            columns = scene.fixed(frame)["columns"]
            assert scene.fixed(frame) is None, "told once"
            data = scene.snapshot(frame)
    json.dumps(data)
    assert data["rows"]
    assert all(len(row) == len(columns) for row in data["rows"])


def test_a_part_that_is_not_there_is_refused():
    with pytest.raises(af.InvalidConfig, match="no live view 'moods'"):
        af.Simulation(masters=1).watch("moods")


def test_a_dashboard_takes_what_can_be_watched_and_widgets():
    sim = af.Simulation(masters=1, seed=1)
    inner = af.dashboard(sim, sim.watch("queue"))
    assert len(af.dashboard(inner, sim).children) == 2
    with pytest.raises(af.InvalidConfig):
        af.dashboard(7)
    with pytest.raises(af.InvalidConfig):
        af.dashboard()


CELL = """
def report(clean, scale): return sum(clean) * scale
def load(): return [1, 2, 3]
async def clean(load, keep=2): return [each for each in load if each >= keep]
"""


def test_functions_of_a_cell_become_tasks_and_their_parameters_dependencies():
    flow = workflow_of("etl", CELL, {"scale": 10})
    with af.Cluster(masters=1, workers=1) as cluster:
        assert cluster.submit(flow).result("report", timeout=20) == 50


@pytest.mark.parametrize(
    ("cell", "error"),
    [
        ("x = 1", af.InvalidConfig),
        ("def a(b): ...", af.InvalidConfig),
        ("def a(b): ...\ndef b(a): ...", af.CycleInWorkflow),
    ],
)
def test_a_cell_that_makes_no_workflow_is_refused(cell, error):
    with pytest.raises(error):
        workflow_of("bad", cell, {})


MAGICS = """
ip = get_ipython()
ip.run_line_magic("load_ext", "agentflow")
flow = ip.run_cell_magic("workflow", "etl", "def one(): return 1\\ndef two(one): return one + 1")
print(flow is etl, flow)
ip.run_line_magic("agentflow", "status")
"""


def test_the_magics_work_in_ipython(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "IPython", "--no-banner", "--simple-prompt", "-c", MAGICS],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "IPYTHONDIR": str(tmp_path)},
        check=False,
    )
    assert "True <Workflow 'etl': 2 tasks>" in done.stdout, done.stdout + done.stderr
    assert "no cluster is open" in done.stdout


def test_status_names_every_open_cluster_and_its_runs():
    with af.Cluster(masters=1, workers=1, name="mine") as cluster:
        cluster.submit(pow, 2, 3).wait(20)
        said = status_text()
    assert "'mine'" in said
    assert "run-1" in said
