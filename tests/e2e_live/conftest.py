"""One JupyterLab and one browser for the tests of a module; a notebook and a kernel each.

Playwright's loop counts as running in this thread until the browser is closed, so it must not outlive the module:
whatever calls `asyncio.run` afterwards would be refused.
"""

import itertools
import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from lab import SOON_MS, Lab, Sheet, browser
from playwright.sync_api import expect

_numbers = itertools.count(1)
expect.set_options(timeout=20_000)


@pytest.fixture(autouse=True)
def nothing_left_behind():
    """The server, its kernels and the browser serve all tests of a module, and end with it."""


@pytest.fixture(scope="module")
def lab(program, tmp_path_factory):
    """The server."""
    program("chromium")
    lab = Lab(tmp_path_factory.mktemp("lab") / "here")
    yield lab
    lab.close()


@pytest.fixture(scope="module")
def chrome(program):
    """The browser."""
    program("chromium")
    with browser() as chrome:
        yield chrome


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """Where screenshots go: `AGENTFLOW_SCREENSHOTS`, which CI names, or a folder of the session."""
    named = os.environ.get("AGENTFLOW_SCREENSHOTS")
    folder = Path(named) if named else tmp_path_factory.mktemp("screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture
def sheet(lab, chrome):
    """Open notebooks; none may end with an error on the console or a request that left the machine."""
    opened = []

    def open_sheet(*cells, width=1280, height=1500, dark=False, **how):
        lab.theme(dark)
        context = chrome.new_context(viewport={"width": width, "height": height}, **how)
        page = context.new_page()
        page.set_default_timeout(SOON_MS)
        sheet = Sheet(lab, page, cells, f"notebook-{next(_numbers)}.ipynb")
        opened.append((sheet, context))
        return sheet

    yield open_sheet
    for sheet, context in opened:
        sheet.close()
        context.close()
    assert not [each for sheet, _ in opened for each in sheet.strangers], "nothing leaves the machine"
    assert not [each for sheet, _ in opened for each in sheet.problems], "the console is clean"
