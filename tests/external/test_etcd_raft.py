"""etcd-io/raft's own test data as a judge; skipped where the data is not there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
SCRIPT = HERE / "etcd_raft.py"
DATA = HERE.parents[1] / ".." / "shared" / "data" / "etcd_raft"


def run(directory: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), str(directory), "-v"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("suite", ["quorum", "confchange", "interaction"])
def test_etcds_own_data_finds_no_difference(suite):
    if not (DATA / suite).is_dir():
        pytest.skip("etcd's test data is not beside the project")
    done = run(DATA / suite)
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stdout
    assert lines[-1].endswith("passed, 0 failed")
    assert all("state=ok protocol=ok exact=ok" in line for line in lines[:-1]), done.stdout


TRANSCRIPT = """
# A file of our own, in the same format.
log-level info
----
ok

add-nodes 1 voters=(1) index=3
----
INFO 1 switched to configuration voters=(1)
INFO 1 became follower at term {term}
INFO newRaft 1 [peers: [1], term: 0, commit: 3, applied: 3, lastindex: 3, lastterm: 1]

raft-state
----
----
1: StateFollower (Voter) Term:0 Lead:{leader}
----
----

nonsense
----
unknown command
"""


@pytest.mark.parametrize(
    ("term", "leader", "levels", "code"),
    [
        (0, 0, "state=ok protocol=ok exact=ok", 0),
        (7, 0, "state=ok protocol=ok exact=FAIL", 0),
        (0, 9, "state=FAIL protocol=FAIL exact=FAIL", 1),
    ],
)
def test_the_runner_tells_three_kinds_of_difference(tmp_path, term, leader, levels, code):
    (tmp_path / "own.txt").write_text(TRANSCRIPT.format(term=term, leader=leader))
    done = run(tmp_path)
    assert done.returncode == code
    assert done.stdout.splitlines()[0] == f"own.txt {levels}"
    assert done.stdout.splitlines()[-1] == ("1 passed, 0 failed" if code == 0 else "0 passed, 1 failed")


def test_a_folder_without_data_is_no_success(tmp_path):
    assert run(tmp_path).returncode == 2
