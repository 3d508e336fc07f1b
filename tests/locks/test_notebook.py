"""The notebook about locks with a real database; without one it is run with all the others."""

from pathlib import Path

import nbclient
import nbformat
import pytest

NOTEBOOK = Path(__file__).resolve().parents[2] / "notebooks" / "05_locks.ipynb"


@pytest.mark.timeout(180)
# jupyter_client warns that a kernel on loopback speaks TCP; that is where these kernels run.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("engine", ["postgresql"])
def test_its_last_section_shares_a_lock_through_a_real_database(url, monkeypatch, tmp_path):
    monkeypatch.setenv("AGENTFLOW_TEST_POSTGRES_URL", url)
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    imports, chosen = notebook.cells[1], [cell for cell in notebook.cells if "server is None" in cell.source]
    notebook.cells = [imports, *chosen, notebook.cells[-1]]
    client = nbclient.NotebookClient(
        notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    )
    client.execute()
    said = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", ()))
    assert "lock held by notebook (token 1)" in said
    assert "the token of the next holder is larger: True" in said
