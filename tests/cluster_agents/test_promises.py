"""The messaging contract under faults, and mistakes that must be found; see `tests/faults/messages.py`."""

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).resolve().parents[1] / "faults" / "messages.py"

sys.path.insert(0, str(PROGRAM.parent))
try:
    from message_mutants import MUTANTS
finally:
    sys.path.remove(str(PROGRAM.parent))


def prove(*arguments, timeout=110):
    command = [sys.executable, str(PROGRAM), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)


def test_the_contract_holds_under_faults():
    done = prove("--seeds", 12)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "12 passed, 0 failed"


@pytest.mark.parametrize("mutant", sorted(MUTANTS))
def test_a_mistake_is_found(mutant):
    done = prove("--seeds", 6, "--until-caught", "--mutant", mutant)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == f"{mutant}: caught"


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_the_contract_holds_under_many_faults():
    done = prove("--first", 1000, "--seeds", 1000, timeout=1700)
    assert done.returncode == 0, done.stdout + done.stderr
