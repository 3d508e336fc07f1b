"""Run etcd-io/raft's datadriven test files against agentflow's Raft core.

    python tests/external/etcd_raft.py DIR [-v]

Every `*.txt` under DIR is run: quorum arithmetic, configuration changes, and whole interactions. Per file
comes a line `NAME state=ok|FAIL protocol=ok|FAIL exact=ok|FAIL`:

state     what `raft-state`, `status`, `raft-log` and `compact` show is the same
protocol  everything is the same but the lines of the logger
exact     everything is the same, byte for byte

The last line is `N passed, N failed` (passed: protocol ok); the exit status is 0 only if none failed.
`-v` shows what differs.
"""

from __future__ import annotations

import argparse
import difflib
import re
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from etcd_adapter.datadriven import Case, parse_file
from etcd_adapter.interaction import Environment
from etcd_adapter.pure import ConfigChangeCases, QuorumCases

STATE_DIRECTIVES = {"raft-state", "status", "raft-log", "compact"}
_LOGGER = re.compile(r"^\s*(DEBUG|INFO|WARN|ERROR|FATAL) .*\n?", re.MULTILINE)


class Runner(Protocol):
    def handle(self, case: Case) -> str: ...


@dataclass
class Verdict:
    name: str
    state: bool = True
    protocol: bool = True
    exact: bool = True
    report: str = ""

    def __str__(self) -> str:
        levels = {"state": self.state, "protocol": self.protocol, "exact": self.exact}
        words = " ".join(f"{name}={'ok' if ok else 'FAIL'}" for name, ok in levels.items())
        return f"{self.name} {words}"


def runner_for(cases: list[Case]) -> Runner:
    """Choose by what the file asks for, wherever it lies."""
    commands = {case.command for case in cases}
    if commands & {"committed", "vote"}:
        return QuorumCases()
    if commands & {"simple", "enter-joint", "leave-joint"}:
        return ConfigChangeCases()
    return Environment()


def without_logger(text: str) -> str:
    """Return the output without the logger's lines; saying nothing else is saying ok."""
    rest = _LOGGER.sub("", text)
    return rest if rest.strip() else "ok\n"


def judge(path: Path, name: str) -> Verdict:
    """Run one file."""
    verdict = Verdict(name)
    cases = parse_file(path)
    runner = runner_for(cases)
    for case in cases:
        try:
            actual = runner.handle(case)
        except Exception:
            actual = "panic\n" + traceback.format_exc()
        if actual == case.expected:
            continue
        verdict.exact = False
        if without_logger(actual) != without_logger(case.expected):
            verdict.protocol = False
        if case.command in STATE_DIRECTIVES:
            verdict.state = False
        difference = difflib.unified_diff(
            case.expected.splitlines(), actual.splitlines(), "expected", "actual", lineterm="", n=2
        )
        verdict.report += f"{name}, {case.where}\n" + "\n".join(difference) + "\n"
        if actual.startswith("panic\n"):
            verdict.state = verdict.protocol = False
    return verdict


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Run etcd-io/raft's datadriven files against agentflow.")
    parser.add_argument("directory", type=Path, help="where the *.txt files are")
    parser.add_argument("-v", "--verbose", action="store_true", help="show what differs")
    options = parser.parse_args(arguments)
    paths = sorted(options.directory.rglob("*.txt"))
    if not paths:
        print(f"no *.txt under {options.directory}")
        return 2
    verdicts = []
    for path in paths:
        verdict = judge(path, path.relative_to(options.directory).as_posix())
        verdicts.append(verdict)
        print(verdict)
        if options.verbose and verdict.report:
            print(verdict.report)
    passed = sum(verdict.protocol for verdict in verdicts)
    print(f"{passed} passed, {len(verdicts) - passed} failed")
    return 0 if passed == len(verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
