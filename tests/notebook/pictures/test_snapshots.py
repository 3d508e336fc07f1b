"""Pictures are strings: these are compared, and rewritten with `pytest --rewrite`."""

from pathlib import Path

import pytest

from agentflow.notebook import graph
from agentflow.notebook.pictures import flow, panel, run

FOLDER = Path(__file__).parent / "testdata"


@pytest.mark.parametrize("name", ["panel", "elections", "worker", "run"])
def test_a_picture_is_as_it_was_agreed_on(name, new_cluster, new_run, monkeypatch, pytestconfig):
    # Engines of different versions differ by a pixel; our own layout does not.
    monkeypatch.setattr(flow, "layout", graph.by_level)
    drawn = {
        "panel": lambda: panel.cluster_svg(new_cluster(workers=6)),
        "elections": lambda: panel.elections_svg(new_cluster()),
        "worker": lambda: panel.worker_svg(new_cluster().workers[1]),
        "run": lambda: run.run_svg(new_run(6, failed=(3,))),
    }[name]().replace("><", ">\n<")
    known = FOLDER / f"{name}.svg"
    if pytestconfig.getoption("--rewrite"):
        known.write_text(drawn + "\n", encoding="utf-8")
    assert drawn + "\n" == known.read_text(encoding="utf-8")
