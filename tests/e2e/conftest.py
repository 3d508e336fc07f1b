"""JupyterLab as a person starts it, and Debian's Chromium to look at it with."""

import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "e2e_live"))
from lab import Lab, Sheet, browser

from agentflow.cli.lab import lay_out

SHOWN = """count => [...document.querySelectorAll("img[src^='data:image/svg+xml']")]
    .filter(e => e.complete && e.naturalWidth > 200).length >= count"""
TALL = {"width": 1280, "height": 9000}
"""JupyterLab takes cells that are out of sight out of the page; here everything is in sight."""


class Reader(Sheet):
    """A notebook of the folder, open in a page."""

    def __init__(self, lab, page, name):
        self.lab, self.page, self.name = lab, page, name
        self.path = lab.root / name
        self.problems, self.strangers = [], []
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.problems.append(f"page error: {error}"))
        page.on("request", self._request)
        self.open()

    def wait_for_pictures(self, count):
        """Wait until so many pictures of ours are drawn: JupyterLab puts cells into the page one by one."""
        self.page.wait_for_function(SHOWN, arg=count, timeout=30_000)


@pytest.fixture(scope="module")
def lab(program, tmp_path_factory):
    """A server on a folder with the notebooks."""
    program("chromium")
    server = Lab(tmp_path_factory.mktemp("lab"))
    try:
        lay_out(server.root)
        yield server
    finally:
        server.close()


@pytest.fixture
def read(lab):
    """Open notebooks; each page and kernel ends with the test."""
    opened = []
    with browser() as chromium:

        def open_one(name, theme="light"):
            lab.theme(theme == "dark")
            reader = Reader(lab, chromium.new_page(viewport=TALL, color_scheme=theme), name)
            opened.append(reader)
            return reader

        open_one.browser = chromium
        yield open_one
        for reader in opened:
            reader.close()


@pytest.fixture
def converted(tmp_path):
    """Convert a notebook to HTML as `jupyter nbconvert` does."""

    def convert(path):
        command = [
            sys.executable,
            "-m",
            "jupyter",
            "nbconvert",
            "--to",
            "html",
            "--output-dir",
            str(tmp_path),
            str(path),
        ]
        subprocess.run(command, check=True, capture_output=True, timeout=100)
        return tmp_path / f"{path.stem}.html"

    return convert
