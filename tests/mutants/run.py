"""Put each classic mistake into the core, one at a time, and show that a test notices.

    python tests/mutants/run.py [NAME ...] [--list]

First every killer must pass on the core as it is. Then each mutant is imported in place of the original
by its killers, of which one at least must fail; a mutant that cannot be applied, or whose tests cannot
even be collected, counts as alive. The exit status is 0 only if all die.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE))

from catalogue import MUTANTS, Mutant  # noqa: E402

LIMIT_S = 300
_FAILED = re.compile(r"^(?:FAILED|ERROR) (\S+)", re.MULTILINE)


@dataclass
class Outcome:
    killed: bool
    by: str


def command(killer: str) -> list[str]:
    """Return the program that a killer is."""
    if killer.startswith("run:"):
        module, *arguments = shlex.split(killer.removeprefix("run:"))
        start = f"import mutant_hook, runpy, sys; sys.argv = {[module, *arguments]!r}; "
        return [sys.executable, "-c", start + f"runpy.run_module({module!r}, run_name='__main__')"]
    quiet = ["-q", "-x", "--no-header", "-rfE", "-p", "pytest_timeout"]
    return [sys.executable, "-m", "pytest", "-p", "mutant_hook", *quiet, killer]


def environment(mutant: str) -> dict[str, str]:
    """Return the environment in which agentflow is that mutant; pytest loads no plugin it does not need."""
    paths = [str(HERE), str(ROOT), os.environ.get("PYTHONPATH", "")]
    return {
        **os.environ,
        "AGENTFLOW_MUTANT": mutant,
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
    }


def run(program: list[str], mutant: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        program,
        cwd=ROOT,
        env=environment(mutant),
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )


def try_to_kill(mutant: Mutant) -> Outcome:
    """Run the killers until one fails."""
    said = "nobody noticed"
    for killer in mutant.killers:
        try:
            done = run(command(killer), mutant.name)
        except subprocess.TimeoutExpired:
            return Outcome(True, f"{killer} (does not come to an end)")
        failed = _FAILED.search(done.stdout)
        if done.returncode == 1 and (failed or killer.startswith("run:")):
            return Outcome(True, failed[1] if failed else killer)
        if done.returncode not in (0, 1):
            lines = (done.stdout + done.stderr).strip().splitlines()
            said = f"{killer} could not be run: {lines[-1] if lines else done.returncode}"
    return Outcome(False, said)


def check_original(mutants: list[Mutant]) -> list[str]:
    """Return the killers that fail on the core as it is: they would prove nothing."""
    killers = sorted({killer for mutant in mutants for killer in mutant.killers})
    tests = [killer for killer in killers if not killer.startswith("run:")]
    broken = []
    if tests:
        done = run([part for part in command(tests[0]) if part != "-x"] + tests[1:])
        if done.returncode:
            broken += _FAILED.findall(done.stdout) or [done.stdout + done.stderr]
    programs = [killer for killer in killers if killer.startswith("run:")]
    broken += [killer for killer in programs if run(command(killer)).returncode]
    return broken


def main() -> int:
    parser = argparse.ArgumentParser(description="Show that every classic mistake is noticed.")
    parser.add_argument("names", nargs="*", help="mutants to try; all if none is named")
    parser.add_argument("--list", action="store_true", help="name them and stop")
    options = parser.parse_args()
    unknown = sorted(set(options.names) - set(MUTANTS))
    if unknown:
        parser.error(f"no such mutant: {', '.join(unknown)}")
    chosen = [MUTANTS[name] for name in options.names] if options.names else list(MUTANTS.values())
    if options.list:
        for mutant in chosen:
            print(f"{mutant.mistake:2d} {mutant.name:36s} {mutant.what}")
        return 0
    start = time.monotonic()
    broken = check_original(chosen)
    if broken:
        print("these fail without any mutant, and so prove nothing:", *broken, sep="\n  ")
        return 1
    alive = 0
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for mutant, outcome in zip(chosen, pool.map(try_to_kill, chosen), strict=True):
            alive += not outcome.killed
            verb = "killed by" if outcome.killed else "ALIVE:"
            print(f"{mutant.mistake:2d} {mutant.name:36s} {verb} {outcome.by}", flush=True)
    mistakes = len({mutant.mistake for mutant in chosen})
    print(
        f"{len(chosen) - alive} killed, {alive} alive; {mistakes} mistakes, {time.monotonic() - start:.0f} s"
    )
    return 1 if alive else 0


if __name__ == "__main__":
    sys.exit(main())
