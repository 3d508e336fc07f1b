"""What is over leaves its picture behind: in the page, in the saved notebook, reopened, and as HTML."""

import re
import subprocess
import sys
import time

import nbformat
import pytest
from playwright.sync_api import expect

WIDGET = "application/vnd.jupyter.widget-view+json"
RUN = """
import agentflow as af
cluster = af.Cluster(masters=3, workers=2)
flow = af.Workflow("short")
flow.map(abs, range(20))
run = cluster.submit(flow)
run
"""


def outputs(notebook):
    return [output for cell in notebook.cells for output in cell.outputs if "data" in output]


def frozen(book, count, seconds=15):
    """The notebook, once so many of its outputs are stills."""
    limit = time.monotonic() + seconds
    while True:
        found = outputs(book.save())
        if len(found) == count and not any(WIDGET in each.data for each in found):
            return found
        assert time.monotonic() < limit, [list(each.data) for each in found]
        time.sleep(0.2)


def test_a_run_that_ended_is_a_picture_in_the_saved_notebook_and_when_reopened(sheet):
    book = sheet(RUN, "run.wait()\ncluster.close()", "cluster")
    assert book.run()
    for each in frozen(book, 2):
        assert "data:image/svg+xml;base64" in each.data["text/html"]
        assert each.data["text/plain"]
    book.command("kernelmenu:shutdown")
    book.open()
    images = book.page.locator(".agentflow img")
    expect(images).to_have_count(2)
    assert "model not found" not in book.page.content()


def test_an_orderly_shutdown_of_the_kernel_leaves_pictures(sheet):
    book = sheet("import agentflow as af\ncluster = af.Cluster(masters=3, workers=1)\ncluster")
    assert book.run()
    expect(book.at("af-cluster")).to_contain_text("quorum 3 of 3")
    book.page.evaluate(
        "() => window.jupyterapp.shell.currentWidget.sessionContext.shutdown().then(() => true)"
    )
    frozen(book, 1)
    expect(book.page.locator(".agentflow img")).to_have_count(1)


@pytest.mark.long
def test_a_kernel_that_died_leaves_a_clear_resting_state(sheet):
    book = sheet("import agentflow as af, os\ncluster = af.Cluster(masters=3, workers=1)\ncluster")
    assert book.run()
    panel = book.at("af-cluster")
    expect(panel).to_contain_text("quorum 3 of 3")
    pid = int(book.execute("import os; print(os.getpid())"))
    subprocess.run(["kill", "-9", str(pid)], check=True)
    expect(panel).to_contain_text("this is the last that was known", timeout=40_000)
    book.problems.clear()  # the websocket's own complaint about the kernel


@pytest.mark.long
def test_two_tabs_on_one_notebook_show_the_same(sheet, lab, chrome):
    book = sheet("import agentflow as af\ncluster = af.Cluster(masters=3, workers=1)\ncluster")
    assert book.run()
    book.save()
    other = book.page.context.new_page()
    other.goto(f"{lab.url}/doc/tree/{book.name}?reset")
    panel = other.locator("[data-testid='af-cluster']").first
    expect(panel).to_contain_text("quorum 3 of 3", timeout=30_000)
    book.at("af-cluster").locator("[data-node='master-1']").click()
    book.page.get_by_role("button", name="kill", exact=True).first.click()
    expect(panel).to_contain_text("quorum 2 of 3")
    other.close()


@pytest.mark.parametrize(
    "store", [True, pytest.param(False, marks=pytest.mark.long)], ids=["with widget state", "without"]
)
def test_a_notebook_executed_with_nobody_looking_has_pictures_as_html(tmp_path, store):
    cells = [RUN, "cluster", "run.wait()", "cluster.close()"]
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(each) for each in cells],
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}},
    )
    source = tmp_path / "executed.ipynb"
    nbformat.write(notebook, source)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "nbconvert", "--execute", "--to", "html", str(source)),
            f"--ExecutePreprocessor.store_widget_state={store}",
        ],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "executed.html").read_text()
    assert len(re.findall("class=.agentflow.", page)) == 3
    assert "widget-view+json" not in page
    assert "20 done" in page, "the run's still shows its end"
