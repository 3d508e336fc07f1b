"""Short runs of the proof under faults, and of its mutants; the judges themselves on evidence made by hand."""

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "faults" / "locks.py"
NAMED = (
    "row-deleted-on-release",
    "client-clock",
    "no-fencing-check",
    "release-of-anothers",
    "renew-after-expiry",
    "sequence-before-wait",
)
OTHERS = ("steal-of-the-living", "cleanup-deletes")


def honest_run(engine):
    # One key for all of them: in a short run, whoever was paused past the ttl must meet a successor that wrote.
    arguments = (f"--engine={engine}", "--processes=4", "--seconds=8", "--keys=1")
    return pytest.param(engine, marks=pytest.mark.fault_run(*arguments), id=engine)


def mutant_run(engine, mutant, *, seconds=45, marks=()):
    arguments = (f"--engine={engine}", "--processes=5", f"--seconds={seconds}", f"--mutant={mutant}")
    return pytest.param(mutant, marks=[pytest.mark.fault_run(*arguments), *marks], id=f"{engine}-{mutant}")


@pytest.fixture
def done(request):
    """What the program printed, run with the arguments of the test's mark."""
    program = [sys.executable, str(SCRIPT), *request.node.get_closest_marker("fault_run").args]
    done = subprocess.run(program, capture_output=True, text=True, timeout=240, check=False)
    if done.returncode == 77:
        pytest.skip(done.stdout.strip())
    print(done.stdout, done.stderr[-3000:])
    return done


@pytest.mark.timeout(300)  # a busy machine takes long to show what must be shown
@pytest.mark.parametrize("engine", [honest_run(engine) for engine in ("sqlite", "postgresql", "mariadb")])
def test_the_lock_holds_under_faults(engine, done):
    assert done.returncode == 0
    assert re.search(r"^\d+ passed, 0 failed\n\Z", done.stdout, re.MULTILINE)
    for fault in ("paused past their ttl", "holders killed", "stale writes tried", "with skewed clocks"):
        assert re.search(rf"[1-9]\d* (holders )?{fault}", done.stdout), f"no {fault}"
    if engine != "sqlite":
        assert re.search(r"[1-9]\d* restarts of the database", done.stdout)


@pytest.mark.timeout(300)  # a busy machine takes long to show what must be shown
@pytest.mark.parametrize(
    "mutant",
    [
        *(mutant_run("sqlite", mutant) for mutant in NAMED),
        mutant_run("postgresql", "unlogged-table"),
        mutant_run("mariadb", "rowcount-decides"),
        *(
            mutant_run(engine, mutant, seconds=60, marks=[pytest.mark.long])
            for mutant in (*NAMED, *OTHERS)
            for engine in ("postgresql", "mariadb", "sqlite")
        ),
    ],
)
def test_a_mutant_is_caught(mutant, done):
    assert f"mutant {mutant} was caught" in done.stdout
    assert done.returncode == 0
    assert re.search(r"^\d+ passed, [1-9]\d* failed\n\Z", done.stdout, re.MULTILINE)


def test_the_missing_server_is_an_error_under_ci(monkeypatch):
    for ci, status in (("", 77), ("true", 1)):
        done = subprocess.run(
            [sys.executable, "-c", ABSENT, str(SCRIPT.parent)],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            env={**os.environ, "CI": ci},
        )
        assert (done.returncode, done.stdout) == (status, "not run: postgres is not installed\n"), done.stderr


ABSENT = """
import sys
sys.path.insert(0, sys.argv[1])
import lock_servers, locks
def absent(self):
    raise lock_servers.Missing("postgres is not installed")
lock_servers.PostgresServer.__init__ = absent
sys.exit(locks.main(["--engine", "postgresql", "--seconds", "1"]))
"""


# --- the judges ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def court(load_fault_module):
    evidence = load_fault_module("lock_evidence")
    judge = load_fault_module("lock_judge")
    return evidence, judge


def grant(evidence, seq, owner, token, at, *, old=(None, None, None, 0), ttl=1_000_000, op="UPDATE"):
    return evidence.Change(seq, op, "k", at, *old, owner, token, at, at + ttl)


def honest(evidence):
    """w1 takes and releases, w2 takes and dies, w3 takes over after the expiry; each writes once."""
    s = 1_000_000
    changes = [
        grant(evidence, 1, "w1", 1, 1 * s, op="INSERT"),
        evidence.Change(2, "UPDATE", "k", 1 * s + 9, "w1", 1, 1 * s, 2 * s, None, 1, None, 0),
        grant(evidence, 3, "w2", 2, 3 * s, old=(None, 1, None, 0)),
        grant(evidence, 4, "w3", 3, 4 * s, old=("w2", 2, 3 * s, 4 * s)),
    ]
    writes = [evidence.Write(n, "k", n, f"w{n}") for n in (1, 2, 3)]
    notes = [
        {
            "what": "acquired",
            "worker": f"w{n}",
            "key": "k",
            "holder": f"w{n}",
            "token": n,
            "at": n,
            "skew_s": 0,
        }
        for n in (1, 2, 3)
    ]
    notes.append({"what": "releasing", "worker": "w1", "holder": "w1", "key": "k", "at": 1.0})
    notes.append({"what": "healed", "at": 2.5})
    notes.append({"what": "alive", "worker": "w3", "name": "w3", "at": 0})
    return evidence.Evidence(changes, writes, notes)


def guilty(court, **changed):
    evidence, judge = court
    case = honest(evidence)
    for name, value in changed.items():
        setattr(case, name, value(getattr(case, name)))
    return {j.__name__ for j in (*judge.SAFETY, judge.there_is_progress_after_healing) if j(case)}


def replaced(seq, **facts):
    return lambda items: [dataclasses.replace(i, **facts) if i.seq == seq else i for i in items]


def test_an_honest_run_is_acquitted(court):
    assert guilty(court) == set()


def test_a_decrease_of_accepted_tokens_is_found(court):
    assert "accepted_tokens_never_decrease" in guilty(
        court, writes=lambda w: [*w, dataclasses.replace(w[0], seq=4)]
    )


def test_a_token_granted_twice_is_found(court):
    assert guilty(court, changes=replaced(4, new_token=2)) >= {"no_token_is_granted_twice"}
    again = {"what": "acquired", "worker": "w9", "key": "k", "holder": "w9", "token": 3, "at": 9, "skew_s": 0}
    assert "no_token_is_granted_twice" in guilty(court, notes=lambda n: [*n, again])


def test_a_lost_acquisition_is_found(court):
    assert guilty(court, changes=lambda c: c[:3]) == {"no_acknowledged_acquisition_is_lost"}


def test_a_lease_ended_by_another_is_found(court):
    early = [n for n in honest(court[0]).notes if n["what"] != "releasing"]
    assert guilty(court, notes=lambda _: early) == {"no_acknowledged_acquisition_is_lost"}


def test_overlapping_leases_are_found(court):
    assert "leases_never_overlap" in guilty(court, changes=replaced(4, old_expires=4_000_001))


def test_a_revived_lease_is_found(court):
    def revive(changes):
        evidence = court[0]
        s = 1_000_000
        late = evidence.Change(5, "UPDATE", "k", 6 * s, "w3", 3, 4 * s, 5 * s, "w3", 3, 4 * s, 7 * s)
        return [*changes, late]

    assert guilty(court, changes=revive) == {"an_expired_lease_is_never_prolonged"}


def test_a_deleted_row_and_a_token_that_went_back_are_found(court):
    def delete(changes):
        return [
            *changes,
            court[0].Change(5, "DELETE", "k", 6_000_000, None, 3, None, 0, None, None, None, None),
        ]

    assert guilty(court, changes=delete) == {"no_row_is_deleted_and_no_token_goes_back"}
    assert "no_row_is_deleted_and_no_token_goes_back" in guilty(court, changes=replaced(4, new_token=1))


def test_a_write_by_who_was_never_told_is_found(court):
    assert guilty(court, writes=replaced(2, holder="w7")) == {"only_holders_write"}


def test_a_worker_that_starves_after_healing_is_found(court):
    alive = {"what": "alive", "worker": "w5", "name": "w5", "at": 0}
    assert guilty(court, notes=lambda n: [*n, alive]) == {"there_is_progress_after_healing"}
    assert guilty(court, notes=lambda n: [x for x in n if x["what"] != "healed"]) == {
        "there_is_progress_after_healing"
    }


def test_every_mutant_names_a_real_change(load_fault_module):
    mutants = load_fault_module("lock_mutants")
    assert set(NAMED) | set(OTHERS) <= set(mutants.MUTANTS)
    assert len(mutants.MUTANTS) >= 6
