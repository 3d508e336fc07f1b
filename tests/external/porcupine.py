"""Judge the linearizability checker by histories whose verdicts others have given.

    python tests/external/porcupine.py DIR

DIR holds histories in the formats of github.com/anishathalye/porcupine (`test_data`) and `expected.csv` with
the columns file, model (`etcd-register-cas` or `kv`), verdict (or `linearizable`), lines, sha256; the last
two may be empty. Prints a line a history and `N passed, N failed`; exits with 0 only if none failed. A
history passes if the checker decides it as expected within 20 s, the process staying below 500 MB; not
knowing is failing.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import hashlib
import re
import sys
import time
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from agentflow.check import History, KeyValue, Register, check_linearizable  # noqa: E402
from agentflow.check.verdict import Outcome, Verdict  # noqa: E402

SECONDS = 20.0
MEGABYTES = 500.0
PEAK_RESET = Path("/proc/self/clear_refs")
"""Writing 5 here makes the kernel forget the peak of the process's memory (proc(5))."""

TRUE = {"true", "ok", "yes", "1", "linearizable"}
FALSE = {"false", "bad", "no", "0", "violated", "illegal", "not-linearizable", "not linearizable"}


def read_register(lines: Iterable[str]) -> History:
    """Read `INFO  jepsen.util - <process> :<type> :<function> <value>` lines of one register."""
    history = History()
    for line in lines:
        if not line.strip():
            continue
        _, _, rest = line.partition(" - ")
        process, kind, function, value = rest.split(None, 3)
        value = value.strip()
        if kind == ":invoke":
            history.invoke(process, function[1:], _edn(value))
        elif kind == ":info":
            history.unknown(process)
        elif kind == ":fail" and value == ":timed-out":
            # Only reads fail so: what they would have said is not known, and they changed nothing.
            history.fails(process)
        elif kind == ":fail":
            history.returns(process, False)
        else:
            history.returns(process, True if function == ":cas" else _edn(value))
    return history


def _edn(value: str) -> object:
    if value == "nil":
        return None
    if value.startswith("["):
        return tuple(int(each) for each in value[1:-1].split())
    return int(value)


TEXT = r'"([^"\\]*(?:\\.[^"\\]*)*)"'
KV_LINE = re.compile(
    r"\{:process\s+(\d+),\s*:type\s+:(\w+),\s*:f\s+:(\w+),\s*:key\s+"
    + TEXT
    + r",\s*:value\s+(?:nil|"
    + TEXT
    + r")\s*\}\s*"
)


def read_keys(lines: Iterable[str]) -> History:
    """Read one EDN map a line: process, type, function, key and value."""
    history = History()
    for line in lines:
        found = KV_LINE.fullmatch(line)
        if found is None:
            if not line.strip():
                continue
            raise ValueError(f"not a line of a key-value history: {line[:80]!r}")
        process, kind, function, key, value = found.groups()
        if kind == "invoke":
            history.invoke(process, function, None if function == "get" else value, key=key)
        elif kind == "ok":
            history.returns(process, value if function == "get" else None)
        elif kind == "fail":
            history.fails(process)
        else:
            history.unknown(process)
    return history


MODELS = {
    "etcd-register-cas": (read_register, lambda: Register()),
    "kv": (read_keys, lambda: KeyValue(initial="")),
}


def judge(path: Path, model: str, deadline: float) -> Verdict:
    """Read and judge one history; `deadline` is an instant of the monotonic clock."""
    read, make = MODELS[model]
    with path.open(encoding="utf-8") as lines:
        history = read(lines)
    return check_linearizable(
        history,
        make(),
        steps=sys.maxsize,
        memory_mb=MEGABYTES / 2,
        enough=lambda: time.monotonic() > deadline,
        explain=False,
    )


def run_one(folder: Path, row: dict[str, str]) -> tuple[bool, str]:
    """Judge one row of `expected.csv`; say whether it passed, and the line to print."""
    path = folder / row["file"]
    word = (row.get("verdict") or row.get("linearizable") or "").strip().lower()
    if row["model"] not in MODELS:
        return False, f"{row['file']} FAIL no model {row['model']!r} is known here"
    if word not in TRUE | FALSE:
        return False, f"{row['file']} FAIL the expected verdict {word!r} is neither true nor false"
    problem = _differs(path, row)
    if problem:
        return False, f"{row['file']} FAIL {problem}"
    expected = Outcome.OK if word in TRUE else Outcome.VIOLATED
    with contextlib.suppress(PermissionError):  # then the peak is that of all files so far
        PEAK_RESET.write_text("5")
    start = time.monotonic()
    try:
        verdict = judge(path, row["model"], start + SECONDS * 0.9)
    except Exception as error:
        return False, f"{row['file']} FAIL {type(error).__name__}: {error}"
    spent = time.monotonic() - start
    megabytes = _peak_mb()
    passed = verdict.outcome is expected and spent <= SECONDS and megabytes <= MEGABYTES
    return passed, (
        f"{row['file']} {'ok' if passed else 'FAIL'} verdict={verdict.outcome} expected={expected} "
        f"{spent:.2f}s {megabytes:.0f}MB steps={verdict.facts.get('steps', 0)}"
    )


def _peak_mb() -> float:
    """The most memory the process held since the reset; `ru_maxrss` would count what its parent held."""
    found = re.search(r"^VmHWM:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    if found is None:
        raise OSError("/proc/self/status does not tell VmHWM; run this on Linux")
    return int(found[1]) / 1024


def _differs(path: Path, row: dict[str, str]) -> str:
    """Say how the file differs from what `expected.csv` says of it; empty if it does not."""
    if not path.is_file():
        return "there is no such file"
    data = path.read_bytes()
    digest = (row.get("sha256") or "").strip()
    if digest and hashlib.sha256(data).hexdigest() != digest:
        return "its SHA-256 is another one"
    lines = (row.get("lines") or "").strip()
    count = data.count(b"\n") + (not data.endswith(b"\n") and bool(data))
    if lines and int(lines) != count:
        return f"it has {count} lines, not {lines}"
    return ""


def main(arguments: list[str] | None = None) -> int:
    """Run every history of a folder."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("folder", type=Path, metavar="DIR")
    folder = parser.parse_args(arguments).folder
    with (folder / "expected.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    passed = failed = 0
    for row in rows:
        good, line = run_one(folder, row)
        print(line, flush=True)
        passed, failed = passed + good, failed + (not good)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
