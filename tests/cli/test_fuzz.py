"""`agentflow fuzz`: its table, its status, and the line that shows a broken promise again."""

import json
import subprocess
import sys

import pytest

from agentflow.cli.fuzz import run_fuzz, seed_range
from agentflow.cluster.simulating.sweeping import trials
from agentflow.core.raft.log import RaftLog
from agentflow.errors import InvalidConfig
from agentflow.labs.fuzzing import Fuzz

SEEDS = 50
"""As many as are done in time on a machine that does much else."""


def command(*args):
    program = [sys.executable, "-m", "agentflow", "fuzz", *args]
    return subprocess.run(program, capture_output=True, text=True, timeout=110, check=False)


def fuzz(seeds="0:4", settings=None, **options):
    given = {"processes": 1, "nightly": False, "shrink": False, "as_json": False, **options}
    return run_fuzz(seeds=seeds, fuzz=settings or Fuzz(seconds=8.0), **given)


@pytest.mark.parametrize("first", range(0, 4 * SEEDS, SEEDS))
def test_some_hundred_seeds_keep_every_promise_under_every_fault(first):
    done = command("--seeds", f"{first}:{first + SEEDS}", "--json")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    found = json.loads(done.stdout)
    assert found["ok"]
    assert found["seeds"] == SEEDS
    assert found["virtual_s"] == 30 * SEEDS
    assert found["violations"] == found["missed"] == found["unknown"] == []
    assert min(found["landed"].values()) > SEEDS / 5
    assert min(found["elections"], found["operations"], found["tasks"]) > 2 * SEEDS


def test_the_table_says_what_happened(capsys):
    assert fuzz() == 0
    text = capsys.readouterr().out
    for words in ("elections", "messages delivered", "Faults that landed", "worker_crash", "violations: 0"):
        assert words in text


def test_a_broken_promise_ends_with_its_line(capsys, monkeypatch):
    monkeypatch.setattr(RaftLog, "is_up_to_date", lambda log, index, term: True)
    settings = Fuzz(3, 15.0, "partition,crash")
    assert fuzz("0:30", settings, shrink=True) == 1
    text = capsys.readouterr().out
    assert "reproduce with: agentflow fuzz --seeds" in text
    assert "--masters 3 --seconds 15 --nemesis partition,crash" in text
    assert "of its faults these are enough" in text or "cannot be shrunk" in text


def test_faults_that_have_no_effect_prove_nothing(capsys):
    # There are no workers to crash in the first seed's cluster, and no time to crash them in.
    assert fuzz("0:1", Fuzz(seconds=0.3, nemesis="worker_crash")) == 1
    assert "no fault of these kinds had an effect: worker_crash" in capsys.readouterr().out


def test_an_interrupted_fuzz_says_what_it_found_until_then(capsys, monkeypatch):
    def impatient(scenario, seeds, *, processes):
        for trial in trials(scenario, seeds, processes=1):
            yield trial
            if trial.seed == 2:
                raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules[run_fuzz.__module__], "trials", impatient)
    assert fuzz("0:30") == 130
    text = capsys.readouterr().out
    assert "interrupted after 3 of 30 seeds" in text
    assert "violations: 0" in text


def test_nothing_needs_to_land_where_nothing_is_to_break():
    assert fuzz("0:2", Fuzz(seconds=3.0, nemesis="none"), as_json=True) == 0


def test_what_was_asked_for_and_cannot_be_is_said(capsys):
    for settings, words in (
        (Fuzz(nemesis="flood"), "there is no fault 'flood'"),
        (Fuzz(masters=0), "masters"),
        (Fuzz(seconds=-1.0), "seconds"),
    ):
        assert fuzz("0:2", settings) == 2
        assert words in capsys.readouterr().err


def test_ranges_of_seeds_are_read():
    assert seed_range("5") == range(5)
    for wrong in ("a:b", "5:5", "7:3", "", "-3:4"):
        with pytest.raises(InvalidConfig, match="0:200"):
            seed_range(wrong)
