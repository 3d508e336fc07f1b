"""The histories of others, where they are at hand, and the judge's own manners."""

import csv
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve()
DATA = HERE.parents[2] / ".." / "shared" / "data" / "porcupine"


@pytest.fixture(scope="module")
def porcupine():
    spec = importlib.util.spec_from_file_location("porcupine_judge", HERE.parent / "porcupine.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


REGISTER = "\n".join(
    [
        "INFO  jepsen.util - 0\t:invoke\t:write\t1",
        "INFO  jepsen.util - 0\t:ok\t:write\t1",
        "INFO  jepsen.util - 1\t:invoke\t:cas\t[1 2]",
        "INFO  jepsen.util - 1 :fail :cas [1 2]",
        "INFO  jepsen.util - 2\t:invoke\t:read\tnil",
        "INFO  jepsen.util - 2\t:fail\t:read\t:timed-out",
        "INFO  jepsen.util - 3\t:invoke\t:write\t3",
        "INFO  jepsen.util - 3\t:info\t:write\t:timed-out",
        "",
    ]
)
KEYS = "\n".join(
    [
        '{:process 0, :type :invoke, :f :append, :key "5", :value "a \\"b\\""}',
        '{:process 0, :type :ok, :f :append, :key "5", :value "a \\"b\\""}',
        '{:process 1, :type :invoke, :f :get, :key "5", :value nil}',
        '{:process 1, :type :ok, :f :get, :key "5", :value "a \\"b\\""}',
        "",
    ]
)


@pytest.fixture
def folder(tmp_path):
    def write(rows, **files):
        for name, text in files.items():
            (tmp_path / name).write_text(text)
        with (tmp_path / "expected.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["file", "model", "verdict", "lines", "sha256"])
            writer.writerows(rows)
        return str(tmp_path)

    return write


def run(directory):
    """Judge in a process of its own: the limit on memory is for one that does nothing else."""
    command = [sys.executable, str(HERE.parent / "porcupine.py"), directory]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
    return done.returncode, done.stdout.splitlines()


def test_histories_of_both_kinds_are_judged(folder):
    rows = [["one", "etcd-register-cas", "false", "8", ""], ["two", "kv", "true", "", ""]]
    status, lines = run(folder(rows, one=REGISTER, two=KEYS))
    assert status == 0
    assert lines[0].startswith("one ok verdict=violated")
    assert lines[1].startswith("two ok verdict=ok")
    assert lines[2] == "2 passed, 0 failed"


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (["two", "kv", "false", "", ""], "verdict=ok expected=violated"),
        (["two", "kv", "true", "5", ""], "4 lines, not 5"),
        (["two", "kv", "true", "", "00"], "SHA-256"),
        (["two", "queue", "true", "", ""], "no model 'queue'"),
        (["two", "kv", "perhaps", "", ""], "neither true nor false"),
        (["three", "kv", "true", "", ""], "no such file"),
        (["one", "kv", "true", "", ""], "not a line of a key-value history"),
    ],
)
def test_what_does_not_fit_has_failed(porcupine, folder, capsys, row, words):
    assert porcupine.main([folder([row], one=REGISTER, two=KEYS)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert words in lines[0]
    assert lines[-1] == "0 passed, 1 failed"


def test_not_knowing_has_failed(porcupine, folder, capsys, monkeypatch):
    monkeypatch.setattr(porcupine, "SECONDS", -1.0)
    assert porcupine.main([folder([["two", "kv", "true", "", ""]], two=KEYS)]) == 1
    assert "verdict=unknown" in capsys.readouterr().out


@pytest.mark.skipif(not DATA.is_dir(), reason="the histories are not beside this checkout")
def test_every_history_of_others_gets_their_verdict():
    status, lines = run(str(DATA))
    assert status == 0
    assert lines[-1].endswith(" passed, 0 failed")
