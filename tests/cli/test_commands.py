"""The command line, as a person runs it: in a process of its own."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

import agentflow
from agentflow.cli import app
from agentflow.cli.demo import run_demo
from agentflow.labs import stdlib


def command(*args, module=True, check=True):
    program = [sys.executable, "-m", "agentflow"] if module else [f"{sys.prefix}/bin/agentflow"]
    return subprocess.run([*program, *args], capture_output=True, text=True, timeout=110, check=check)


def few(monkeypatch, count=24):
    """Let the demonstration look at a part of the library, for the tests that are not about all of it."""
    some = dict(list(stdlib.modules().items())[:count])
    monkeypatch.setattr(stdlib, "modules", lambda: some)
    return some


def printed(capsys):
    text = capsys.readouterr().out
    assert text.count("\n") == 1, "one object and nothing else"
    return json.loads(text)


def test_the_version_is_the_packages():
    for module in (True, False):
        assert command("--version", module=module).stdout == f"agentflow {agentflow.__version__}\n"


def test_without_a_command_it_says_what_there_is():
    done = command(check=False)
    assert "demo" in done.stdout
    assert "--version" in done.stdout
    assert done.stderr == ""


def test_the_demo_as_json_is_one_object_with_what_was_promised():
    done = command("demo", "--json", "--seed", "3")
    found = json.loads(done.stdout)
    assert set(found) >= {
        "tasks",
        "attempts",
        "rerun",
        "lost",
        "elections",
        "equal_to_serial",
        "seconds",
        "top",
    }
    assert found["tasks"] > 300
    assert found["attempts"] == found["tasks"] + found["rerun"]
    assert found["lost"] == 0
    assert found["equal_to_serial"] is True
    assert 0 < found["seconds"] < 30
    assert len(found["top"]) == 20
    assert all(isinstance(row["module"], str) for row in found["top"])
    assert len([each for each in found["elections"] if each["outcome"] == "won"]) >= 2, (
        "the leader was killed"
    )
    assert len(found["killed"]) == 2


def test_the_demo_on_a_screen_tells_what_happens(monkeypatch, capsys):
    few(monkeypatch)
    assert run_demo(faults=True, seed=1, masters=3, workers=4, as_json=False) == 0
    shown = capsys.readouterr().out
    for words in (
        "killed master-",
        "leads term 2",
        "killed worker-",
        "lost = 0",
        "equal to the serial",
    ):
        assert words in shown, words
    assert "What the standard library leans on" in shown


def test_without_faults_nobody_is_killed(monkeypatch, capsys):
    sources = few(monkeypatch)
    assert run_demo(faults=False, seed=0, masters=3, workers=4, as_json=True) == 0
    found = printed(capsys)
    assert (found["killed"], found["rerun"], found["lost"]) == ([], 0, 0)
    assert found["attempts"] == found["tasks"] > len(sources)


@pytest.mark.parametrize(("masters", "workers"), [(1, 4), (1, 1), (3, 1)])
def test_who_cannot_be_spared_is_not_killed(monkeypatch, capsys, masters, workers):
    few(monkeypatch)
    assert run_demo(faults=True, seed=0, masters=masters, workers=workers, as_json=True) == 0
    found = printed(capsys)
    kinds = {name.split("-")[0] for name in found["killed"]}
    assert kinds == {kind for kind, spare in (("master", masters > 2), ("worker", workers > 1)) if spare}
    assert found["equal_to_serial"] is True


def test_a_result_that_differs_from_the_serial_one_fails_the_command(monkeypatch, capsys):
    few(monkeypatch)
    serially = stdlib.serially
    monkeypatch.setattr(stdlib, "serially", lambda sources: {**serially(sources), "circles": ["wrong"]})
    assert run_demo(faults=False, seed=0, masters=1, workers=2, as_json=True) == 1
    assert printed(capsys)["equal_to_serial"] is False


def test_what_failed_is_told_to_its_root(monkeypatch, capsys):
    few(monkeypatch, 3)

    def wrong(sources):
        raise ValueError("no such thing [/]")

    real = stdlib.workflow

    def workflow(sources):
        flow = real(sources)
        name, call = next(iter(flow.calls.items()))
        flow.calls[name] = type(call)(wrong, ({},))
        return flow

    monkeypatch.setattr(stdlib, "workflow", workflow)
    assert run_demo(faults=False, seed=0, masters=1, workers=1, as_json=True) == 2
    out = capsys.readouterr()
    assert out.out == ""
    assert "UpstreamFailed: " in out.err
    assert "TaskFailed: " in out.err
    assert "ValueError: no such thing [/]" in out.err


def test_options_reach_the_demonstration(monkeypatch):
    seen = []
    monkeypatch.setattr(
        sys.modules["agentflow.cli.demo"], "run_demo", lambda **settings: seen.append(settings) or 0
    )
    words = ["demo", "--no-faults", "--seed", "7", "--masters", "5", "--workers", "2", "--json"]
    words += ["--report", "demo.html"]
    assert CliRunner().invoke(app, words).exit_code == 0
    assert CliRunner().invoke(app, ["demo"]).exit_code == 0
    assert seen == [
        {
            "faults": False,
            "seed": 7,
            "masters": 5,
            "workers": 2,
            "as_json": True,
            "report": Path("demo.html"),
        },
        {"faults": True, "seed": 0, "masters": 3, "workers": 4, "as_json": False, "report": None},
    ]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"masters": 0}, "masters=0"),
        ({"masters": -1}, "masters=-1"),
        ({"workers": -1}, "workers=-1"),
        ({"workers": 0}, "--workers 0"),
    ],
)
def test_what_cannot_work_ends_with_two_and_the_reason(capsys, settings, said):
    settings = {"faults": True, "seed": 0, "masters": 3, "workers": 4, "as_json": True, **settings}
    assert run_demo(**settings) == 2
    out = capsys.readouterr()
    assert out.out == ""
    assert out.err.startswith("InvalidConfig: ")
    assert said in out.err


@pytest.mark.parametrize(
    "words", [["demo", "--masters", "x"], ["demo", "--nope"], ["nope"], ["demo", "extra"]]
)
def test_words_that_mean_nothing_end_with_two(words):
    done = command(*words, check=False)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "Usage" in done.stderr


def test_the_demo_writes_a_report_that_needs_no_network(monkeypatch, tmp_path, capsys):
    few(monkeypatch)
    target = tmp_path / "demo.html"
    assert run_demo(faults=False, seed=5, masters=1, workers=2, as_json=True, report=target) == 0
    page = target.read_text(encoding="utf-8")
    for part in (
        "Slowest tasks",
        "Elections",
        "Queue and workers",
        "<td>seed</td><td>5</td>",
        "<td>agentflow</td>",
    ):
        assert part in page
    assert "http://" not in page
    assert "https://" not in page
    assert "<script" not in page
    printed(capsys)


@pytest.mark.parametrize("name", ["report.pdf", "no/such/folder/report.html"])
def test_a_report_that_cannot_be_written_is_refused_before_the_work(tmp_path, capsys, name):
    began = time.monotonic()
    status = run_demo(faults=False, seed=5, masters=1, workers=2, as_json=True, report=tmp_path / name)
    assert status == 2
    assert time.monotonic() - began < 5
    assert "InvalidConfig" in capsys.readouterr().err
