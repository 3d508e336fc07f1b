"""`agentflow lab`: the notebooks in a folder, and a server on them."""

import json
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

from agentflow.cli.lab import FIRST, lay_out, run_lab


def test_the_notebooks_are_laid_out_once_and_what_was_changed_is_kept(tmp_path):
    copied, kept = lay_out(tmp_path / "course")
    assert FIRST in copied
    assert kept == []
    mine = tmp_path / "course" / FIRST
    mine.write_text("mine")
    assert lay_out(tmp_path / "course") == ([], [FIRST])
    assert mine.read_text() == "mine"


def test_a_file_in_the_place_of_the_folder_is_refused_and_left_alone(tmp_path, capsys):
    (tmp_path / "course").write_text("mine")
    assert run_lab(tmp_path / "course", []) == 2
    assert "give a folder" in capsys.readouterr().err
    assert (tmp_path / "course").read_text() == "mine"


@pytest.mark.timeout(100)
def test_the_server_shows_the_notebooks_and_takes_the_options_of_jupyterlab(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = ["--no-browser", "--allow-root", f"--ServerApp.port={port}", "--ServerApp.port_retries=0"]
    options += ["--IdentityProvider.token=", "--ServerApp.ip=127.0.0.1"]
    command = [sys.executable, "-m", "agentflow", "lab", str(tmp_path / "course"), *options]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            found = contents(f"http://127.0.0.1:{port}/api/contents")
        finally:
            process.terminate()
            process.wait(30)
    assert FIRST in {entry["name"] for entry in found["content"]}


def contents(url):
    limit = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return json.load(answer)
        except OSError:
            if time.monotonic() > limit:
                raise
            time.sleep(0.2)
