"""The quickstart as a person meets it: in JupyterLab, saved, opened again, and as a page.

Law: nothing it shows is asked for outside of this machine.
"""

import nbformat
import pytest

NAME = "00_quickstart.ipynb"


def outputs(notebook):
    return [(cell, output) for cell in notebook.cells for output in cell.get("outputs", ())]


def still_pictures(notebook):
    return [
        o
        for _, o in outputs(notebook)
        if "data:image/svg+xml;base64" in o.get("data", {}).get("text/html", "")
    ]


@pytest.mark.timeout(240)
def test_the_quickstart_runs_is_saved_opened_again_and_converted(lab, read, converted):
    sheet = read(NAME)
    assert sheet.run()
    assert sheet.page.locator(".jp-OutputArea-output[data-mime-type*='error']").count() == 0
    saved = sheet.save()
    assert [o for _, o in outputs(saved) if o.output_type == "error"] == []
    assert all(cell.execution_count for cell in saved.cells if cell.cell_type == "code")
    assert len(still_pictures(saved)) >= 3
    sheet.wait_for_pictures(3)
    assert sheet.problems == []
    assert sheet.strangers == []

    again = read(NAME)
    again.wait_for_pictures(3)
    assert "model not found" not in again.page.inner_text("body")
    assert again.strangers == []

    page = read.browser.new_page(viewport={"width": 1100, "height": 3000})
    page.context.set_offline(True)
    page.goto(converted(lab.root / NAME).as_uri(), wait_until="commit")
    shown = page.locator("img[src^='data:image/svg+xml']")
    shown.last.wait_for()
    assert shown.count() == len(still_pictures(saved))
    assert shown.first.evaluate("e => e.naturalWidth") > 200
    page.close()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_still_picture_follows_the_theme_of_the_notebook(lab, read, theme):
    cells = [
        "import agentflow as af\nsim = af.Simulation(masters=3, seed=1)\nsim.run_until(lambda s: s.leader)",
        "sim.diagram()",
    ]
    name = f"theme-{theme}.ipynb"
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(cell) for cell in cells],
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}},
    )
    nbformat.write(notebook, lab.root / name)
    sheet = read(name, theme)
    assert sheet.run()
    picture = sheet.page.locator("img[src^='data:image/svg+xml']").first
    picture.wait_for()
    assert picture.evaluate("e => getComputedStyle(e).colorScheme") == theme
    assert sheet.problems == []
    assert sheet.strangers == []
