"""Every notebook runs from top to bottom in a real kernel, without an error."""

import json
from pathlib import Path

import nbclient
import nbformat
import pytest

NOTEBOOKS = sorted((Path(__file__).resolve().parents[1] / "notebooks").glob("*.ipynb"))


@pytest.mark.timeout(180)
# jupyter_client warns that a kernel on loopback speaks TCP; that is where these kernels run.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_from_top_to_bottom(path, tmp_path):
    run(path, tmp_path)


def run(path, folder):
    """Run a notebook in a folder, and return it with its outputs."""
    notebook = nbformat.read(path, as_version=4)
    client = nbclient.NotebookClient(
        notebook,
        timeout=120,
        kernel_name="python3",
        store_widget_state=False,
        resources={"metadata": {"path": folder}},
    )
    client.execute()
    errors = [o for cell in notebook.cells for o in cell.get("outputs", ()) if o["output_type"] == "error"]
    assert not errors
    return notebook


@pytest.mark.timeout(180)
@pytest.mark.filterwarnings("ignore")
def test_the_workflow_notebook_takes_a_recorded_trace(tmp_path, monkeypatch):
    ids = ["a", "b1", "b2", "c"]
    parents = {"b1": ["a"], "b2": ["a"], "c": ["b1", "b2"]}
    children = {task: [child for child, of in parents.items() if task in of] for task in ids}
    trace = {
        "name": "recorded-diamond",
        "schemaVersion": "1.5",
        "workflow": {
            "specification": {
                "tasks": [
                    {"id": task, "name": task, "parents": parents.get(task, []), "children": children[task]}
                    for task in ids
                ]
            },
            "execution": {"tasks": [{"id": task, "runtimeInSeconds": 60} for task in ids]},
        },
    }
    (tmp_path / "trace.json").write_text(json.dumps(trace))
    monkeypatch.setenv("AGENTFLOW_WFFORMAT", str(tmp_path / "trace.json"))
    path = next(path for path in NOTEBOOKS if path.stem == "03_workflows_and_queue")
    said = "".join(
        output.get("text", "") for cell in run(path, tmp_path).cells for output in cell.get("outputs", ())
    )
    assert "'recorded-diamond': 4 tasks> · recorded" in said


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_committed_without_outputs_or_counts(path):
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "code":
            assert cell.execution_count is None
            assert not cell.outputs
