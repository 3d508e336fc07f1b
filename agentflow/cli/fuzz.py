"""`agentflow fuzz`: clusters drawn from seeds, under faults and work, with every judge watching.

It ends with a table, and with a status other than 0 if a promise was broken, if a run did not get to its
end, or if the faults that were ordered had no effect: a fuzz under which nothing breaks proves nothing.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from agentflow.cluster.simulating.sweeping import Trial, trials
from agentflow.errors import AgentflowError, InvalidConfig
from agentflow.labs.fuzzing import Fuzz, Totals, check_seconds

NIGHT = 20_000
"""Seeds of a night."""

SHOWN = 5
"""Violations told in full."""

SHRINKS = 60
"""Runs that `--shrink` may take."""


def run_fuzz(
    *, seeds: str, fuzz: Fuzz, processes: int | None, nightly: bool, shrink: bool, as_json: bool
) -> int:
    """Fuzz; give the exit status."""
    console = Console(quiet=as_json)
    try:
        wanted = seed_range(seeds)
        if nightly:
            wanted = range(wanted.start, wanted.start + max(NIGHT, len(wanted)))
        kinds = fuzz.kinds
        # A wrong setting is found here, in words, and not in another process.
        check_seconds(fuzz.seconds)
        fuzz.scenario.func(wanted.start, masters=fuzz.masters, seconds=0.01, nemesis="none")
        totals, seconds = _try_all(wanted, fuzz, processes, console)
    except AgentflowError as error:
        Console(stderr=True).print(f"[red]{type(error).__name__}[/]: {escape(str(error))}", highlight=False)
        return 2
    missed = totals.missed(kinds)
    totals.violations.sort(key=lambda trial: trial.seed)
    if as_json:
        print(json.dumps(summary(totals, fuzz, missed, seconds)))
    else:
        _report(console, totals, kinds, seconds)
        _doubt(console, totals, missed)
        if shrink and totals.violations:
            _shrink(console, totals.violations[0], fuzz)
    if totals.violations or missed:
        return 1
    return 0 if totals.seeds == len(wanted) else 130


def seed_range(text: str) -> range:
    """Read `A:B`: the seeds from A up to, and without, B.

    Examples
    --------
    >>> seed_range("3:6"), seed_range("200")
    (range(3, 6), range(0, 200))
    """
    match = re.fullmatch(r"(?:(\d+):)?(\d+)", text.strip())
    found = range(int(match[1] or 0), int(match[2])) if match else range(0)
    if not found:
        raise InvalidConfig(f"--seeds {text}: give a range such as 0:200", field="seeds")
    return found


def _try_all(wanted: range, fuzz: Fuzz, processes: int | None, console: Console) -> tuple[Totals, float]:
    """Try all seeds, or as many as there is patience for: what was found by then counts."""
    totals = Totals()
    began = time.perf_counter()
    with _screen(console, len(wanted)) as advance, contextlib.suppress(KeyboardInterrupt):
        for trial in trials(fuzz.scenario, wanted, processes=processes):
            totals.add(trial)
            if trial.failed and len(totals.violations) <= SHOWN:
                _accuse(console, trial, fuzz)
            advance(len(totals.violations))
    if totals.seeds < len(wanted):
        console.print(f"[yellow]interrupted after {totals.seeds} of {len(wanted)} seeds[/]", highlight=False)
    return totals, time.perf_counter() - began


@contextlib.contextmanager
def _screen(console: Console, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar; where there is no terminal, a line a tenth, and one a minute."""
    if console.is_terminal:
        bar = Progress(
            TextColumn("  seeds"),
            BarColumn(bar_width=40),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[found]}"),
            console=console,
            transient=True,
        )
        with bar:
            task = bar.add_task("seeds", total=total, found="")
            yield lambda broken: bar.update(task, advance=1, found=f"{broken} broken" if broken else "")
        return
    done, told = 0, time.perf_counter()
    step = max(1, total // 10)

    def tell(broken: int) -> None:
        nonlocal done, told
        done += 1
        if done % step == 0 or time.perf_counter() > told + 60:
            told = time.perf_counter()
            console.print(f"  {done} of {total} seeds, {broken} broken", highlight=False)

    yield tell


def summary(totals: Totals, fuzz: Fuzz, missed: list[str], seconds: float) -> dict[str, Any]:
    """What `--json` prints."""
    found: dict[str, Any] = msgspec.to_builtins(totals)
    found["violations"] = [_plain(trial) | {"replay": fuzz.replay(trial.seed)} for trial in totals.violations]
    return found | {
        "missed": missed,
        "wall_s": round(seconds, 3),
        "settings": msgspec.to_builtins(fuzz),
        "ok": not (totals.violations or missed),
    }


def _plain(trial: Trial) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.to_builtins(trial)
    return {
        key: None if isinstance(value, float) and math.isnan(value) else value for key, value in found.items()
    }


def _report(console: Console, totals: Totals, kinds: tuple[str, ...], seconds: float) -> None:
    table = Table(
        title="What happened", title_justify="left", box=SIMPLE_HEAD, padding=(0, 1), pad_edge=False
    )
    table.add_column("")
    table.add_column("in all", justify="right")
    table.add_column("a seed", justify="right")
    rows = {
        "seeds": totals.seeds,
        "virtual seconds": totals.virtual_s,
        "elections": totals.elections,
        "messages sent": totals.messages,
        "messages delivered": totals.delivered,
        "entries committed": totals.commits,
        "answers about keys": totals.operations,
        "task attempts": totals.tasks,
        "events judged": totals.events,
    }
    for name, value in rows.items():
        each = "" if name == "seeds" else f"{value / max(1, totals.seeds):,.1f}"
        table.add_row(name, f"{value:,.0f}", each)
    console.print(table)
    if kinds:
        faults = Table(
            title="Faults that landed", title_justify="left", box=SIMPLE_HEAD, padding=(0, 1), pad_edge=False
        )
        faults.add_column("kind")
        faults.add_column("times", justify="right")
        for kind in kinds:
            faults.add_row(kind, f"{totals.landed[kind]:,}")
        console.print(faults)
    console.print(
        f"{totals.seeds:,} seeds in {seconds:.1f} s, {totals.delivered / max(seconds, 1e-9):,.0f} messages a "
        f"second; [bold]violations: {len(totals.violations)}[/]",
        highlight=False,
    )


def _accuse(console: Console, trial: Trial, fuzz: Fuzz) -> None:
    console.print(f"[red]seed {trial.seed}: {escape(trial.violated)}[/]", highlight=False)
    console.print(f"  {escape(trial.explanation)}", highlight=False)
    console.print(f"  reproduce with: {fuzz.replay(trial.seed)}", highlight=False, soft_wrap=True)
    if trial.line:
        console.print(f"  or in Python:   {escape(trial.line)}", highlight=False, soft_wrap=True)


def _doubt(console: Console, totals: Totals, missed: list[str]) -> None:
    if totals.unknown:
        few = ", ".join(map(str, totals.unknown[:SHOWN]))
        console.print(
            f"[yellow]not judged to the end: {len(totals.unknown)} seeds[/] ({few}): the search for an order "
            "of what clients saw was given up",
            highlight=False,
        )
    if missed:
        console.print(
            f"[red]no fault of these kinds had an effect: {', '.join(missed)}[/]; run longer", highlight=False
        )


def _shrink(console: Console, trial: Trial, fuzz: Fuzz) -> None:
    """Look for fewer faults under which the first seed still fails."""
    if trial.verdict != "violated":
        console.print("  a run that raised cannot be shrunk", highlight=False)
        return
    with console.status("looking for fewer faults"):
        fewer = fuzz.scenario(trial.seed, judged=False).check().shrink(limit=SHRINKS)
    console.print(f"  of its faults these are enough ({len(fewer)}):", highlight=False)
    for fault in fewer:
        console.print(f"    {escape(str(fault))}", highlight=False, soft_wrap=True)
