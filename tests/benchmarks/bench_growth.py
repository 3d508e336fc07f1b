"""How the cost of a task grows with the run, what a waiting run weighs, and what a leader's death costs.

    python tests/benchmarks/bench_growth.py [--repeats 3] [--only growth|submit|kill|montage] [--plot FILE.svg]

No-op tasks in layers of 100, each after two random tasks of the layer before, on four workers of threads.
Every measurement has a process of its own. Durability: term, vote and log in the memory of one master or of
three, acknowledged by majority; a killed master's disk survives it.

* growth: microseconds of the wall's time and of the processor's per task, from submission to the last end.
* submit: the rate at which one workflow is committed while no worker is there, and what it weighs then.
* kill: the leader dies when half of the tasks are done. Ends a slice of time around that, the time to the
  first task that its successor (of three masters) or it itself (restarted at once) gives to a worker.
* montage: the largest recorded trace with durations of zero, if its file is there (`--trace`).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil

import agentflow as af

TRACE = (
    Path(__file__).resolve().parents[3]
    / "shared"
    / "data"
    / "wfinstances"
    / "montage-chameleon-dss-15d-001.json"
)
WIDTH, PARENTS, WORKERS = 100, 2, 4
MASTERS = (1, 3)


def noop(*_: object) -> None:
    """Take no time."""


def layered(size: int) -> af.Workflow:
    """The graph of `bench_cluster`, with as many layers as it takes."""
    rng = random.Random(0)
    flow = af.Workflow("layered")
    for at in range(size):
        first = at - at % WIDTH - WIDTH
        before = [f"t{first + j}" for j in rng.sample(range(WIDTH), PARENTS)] if first >= 0 else []
        flow.add(noop, id=f"t{at}", after=before)
    return flow


def memory_mb() -> float:
    """Memory of this process that is in use now."""
    return psutil.Process().memory_info().rss / 2**20


# --- measurements, each in a process of its own -------------------------------------------------------------


def run_through(flow: af.Workflow, masters: int) -> dict[str, float]:
    """Seconds from submission to the last end."""
    with af.Cluster(masters=masters, workers=WORKERS) as cluster:
        cluster.submit(noop).wait(30)
        before, wall, cpu = memory_mb(), time.perf_counter(), time.process_time()
        run = cluster.submit(flow).wait(600)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        assert run.ok, run
        size = len(flow)
        return {
            "wall_s": wall,
            "wall_us": 1e6 * wall / size,
            "cpu_us": 1e6 * cpu / size,
            "kb": 1024 * (memory_mb() - before) / size,
        }


def growth(masters: int, size: int) -> dict[str, float]:
    """The cost per task of one run."""
    return run_through(layered(size), masters)


def montage(masters: int, trace: str) -> dict[str, float]:
    """The recorded trace with nothing to do."""
    return run_through(af.Workflow.from_wfformat(trace, scale=0), masters)


def submit(masters: int, size: int) -> dict[str, float]:
    """The rate of a submission alone, and the memory of what waits."""
    with af.Cluster(masters=masters, workers=0) as cluster:
        bare, began = memory_mb(), time.perf_counter()
        flow = layered(size)
        built, made = memory_mb(), time.perf_counter()
        cluster.submit(flow)
        found = {"add_s": made - began, "submit_s": time.perf_counter() - made, "flow_mb": built - bare}
        found["rate"] = size / found["submit_s"]
        found["submitted_mb"] = memory_mb() - built
        singles = 1_000
        began = time.perf_counter()
        for _ in range(singles):
            cluster.submit(noop)
        return {**found, "single_rate": singles / (time.perf_counter() - began)}


def kill(masters: int, size: int) -> dict[str, Any]:
    """The leader's death in the middle of a run."""
    with af.Cluster(masters=masters, workers=WORKERS) as cluster:
        cluster.submit(noop).wait(30)
        run = cluster.submit(layered(size))
        while run.counts["COMPLETED"] < size // 2:
            time.sleep(0.001)
        leader = cluster.leader
        assert leader is not None
        cluster.kill(leader)
        dead = cluster.now
        if masters == 1:
            cluster.restart(leader)
        run.wait(600)
        assert run.ok, run
        attempts = run.frames.attempts()
        ended = attempts[attempts.state == "COMPLETED"]
        assert len(ended) == size, f"{len(ended):,} ends of {size:,} tasks"
        later = attempts.assigned_s[attempts.assigned_s > dead]
        assert len(later), "the run was over before the leader died; give it more tasks"
        ends = sorted(float(end) - dead for end in ended.finished_s)
        return {
            "dispatch_ms": 1000 * (float(later.min()) - dead),
            "gap_ms": 1000 * max(b - a for a, b in pairwise(ends)),
            "again": len(attempts) - size,
            "ends": ends,
        }


PARTS: dict[str, Callable[[int, Any], dict[str, Any]]] = {
    "growth": growth,
    "submit": submit,
    "kill": kill,
    "montage": montage,
}


def child(part: str, masters: int, argument: int | str) -> dict[str, Any]:
    """Measure once, in a process of its own."""
    command = [sys.executable, __file__, "--case", json.dumps([part, masters, argument])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{part}, masters={masters}, {argument}: {done.stderr.strip()}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def medians(part: str, arguments: list[Any], repeats: int) -> dict[tuple[Any, int], dict[str, float]]:
    """Medians by argument and number of masters; all take turns, so that the machine's moods meet each."""
    cases = [(argument, masters) for argument in arguments for masters in MASTERS]
    runs: dict[tuple[Any, int], list[dict[str, Any]]] = {case: [] for case in cases}
    for _ in range(repeats):
        for argument, masters in cases:
            runs[argument, masters].append(child(part, masters, argument))
    return {
        case: {key: statistics.median(run[key] for run in each) for key in each[0]}
        for case, each in runs.items()
    }


# --- what is shown ------------------------------------------------------------------------------------------


def drawn(points: dict[int, list[tuple[int, float]]]) -> str:
    """An SVG of the cost per task over the size of the run (logarithmic), a line for each number of masters."""
    width, height, left, base = 560, 300, 60, 260
    sizes = [size for size, _ in points[MASTERS[0]]]
    top = 1.15 * max(cost for line in points.values() for _, cost in line)

    span = math.log(max(sizes) / min(sizes)) or 1.0

    def place(size: int, cost: float) -> str:
        x = left + (width - left - 90) * math.log(size / min(sizes)) / span
        return f"{x:.1f},{base - (base - 30) * cost / top:.1f}"

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<text x="{left}" y="18">microseconds per task, by tasks of the run (median)</text>',
    ]
    for part in range(5):
        y = float(place(sizes[0], top * part / 4).split(",")[1])
        parts.append(f'<line x1="{left}" x2="{width - 80}" y1="{y}" y2="{y}" stroke="#ddd"/>')
        parts.append(f'<text x="{left - 8}" y="{y + 4}" text-anchor="end">{top * part / 4:.0f}</text>')
    for size in sizes:
        x = place(size, 0).split(",")[0]
        parts.append(f'<text x="{x}" y="{base + 18}" text-anchor="middle">{size:,}</text>')
    for (masters, line), colour in zip(points.items(), ("#0072b2", "#d55e00"), strict=True):
        spots = [place(size, cost) for size, cost in line]
        parts.append(f'<polyline points="{" ".join(spots)}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for spot in spots:
            x, y = spot.split(",")
            parts.append(f'<circle cx="{x}" cy="{y}" r="3.5" fill="{colour}"/>')
        x, y = map(float, spots[-1].split(","))
        name = "master" if masters == 1 else "masters"
        parts.append(f'<text x="{x + 8}" y="{y + 4}" fill="{colour}">{masters} {name}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def show_growth(sizes: list[int], repeats: int, plot: str | None) -> None:
    """Cost per task by size, and its plot."""
    print(f"\ncost per task by size of the run; medians of {repeats}")
    print("    tasks  masters   tasks/s  wall us/task  cpu us/task  KB/task (run, trace and log)")
    points: dict[int, list[tuple[int, float]]] = {masters: [] for masters in MASTERS}
    for (size, masters), found in medians("growth", sizes, repeats).items():
        points[masters].append((size, found["wall_us"]))
        rate = size / found["wall_s"]
        bar = "#" * round(found["wall_us"] / 4)
        print(
            f"  {size:>7,}  {masters:>7}  {rate:>8,.0f}  {found['wall_us']:>12.1f}  {found['cpu_us']:>11.1f}"
            f"  {found['kb']:>7.2f}  {bar}",
        )
    if plot:
        Path(plot).write_text(drawn(points))
        print(f"plot in {plot}")


def show_submit(size: int, repeats: int) -> None:
    """Rate and memory of a submission."""
    print(f"\nsubmission of {size:,} tasks with {PARENTS} inputs each, no worker there; medians of {repeats}")
    print("  masters  add tasks/s  commit tasks/s  single submits/s  workflow MB  submitted MB more  KB/task")
    for (_, masters), found in medians("submit", [size], repeats).items():
        kb = 1024 * (found["flow_mb"] + found["submitted_mb"]) / size
        print(
            f"  {masters:>7}  {size / found['add_s']:>11,.0f}  {found['rate']:>14,.0f}  {found['single_rate']:>16,.0f}"
            f"  {found['flow_mb']:>11.1f}  {found['submitted_mb']:>17.1f}  {kb:>7.2f}",
            flush=True,
        )


def show_kill(size: int, repeats: int, slice_ms: float) -> None:
    """The dead time, and ends a slice of time around it."""
    print(f"\nthe leader dies in the middle of {size:,} tasks; medians of {repeats}")
    for masters in MASTERS:
        runs = sorted((child("kill", masters, size) for _ in range(repeats)), key=lambda r: r["dispatch_ms"])
        middle = runs[len(runs) // 2]
        gap = statistics.median(run["gap_ms"] for run in runs)
        what = "restarted at once" if masters == 1 else "another takes over"
        noun = "master" if masters == 1 else "masters"
        print(
            f"  {masters} {noun}, {what}: first dispatch after {middle['dispatch_ms']:.0f} ms "
            f"({runs[0]['dispatch_ms']:.0f} to {runs[-1]['dispatch_ms']:.0f}), longest time without an end {gap:.0f} ms, "
            f"tasks begun again {middle['again']}"
        )
        counts: dict[int, int] = {}
        for end in middle["ends"]:
            at = int(1000 * end // slice_ms)
            counts[at] = counts.get(at, 0) + 1
        most = max(counts.values())
        for at in range(min(counts), max(counts) + 1):
            count = counts.get(at, 0)
            print(
                f"    {at * slice_ms:>+7.0f} ms {1000 * count / slice_ms:>8,.0f}/s {'#' * round(50 * count / most)}"
            )
        sys.stdout.flush()


def show_montage(trace: Path, repeats: int) -> None:
    """The recorded trace with nothing to do."""
    if not trace.exists():
        print(f"\nno {trace.name}: give the recorded trace as --trace FILE")
        return
    print(f"\n{trace.stem} with durations of zero; medians of {repeats}")
    for (_, masters), found in medians("montage", [str(trace)], repeats).items():
        print(
            f"  masters={masters}: {found['wall_s']:.3f} s, {found['wall_us']:.1f} us of the wall's and "
            f"{found['cpu_us']:.1f} us of the processor's time per task"
        )


def main() -> None:
    """Measure everything, or one part."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", choices=list(PARTS))
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 3_000, 10_000, 30_000, 100_000])
    parser.add_argument("--submit", type=int, default=100_000, help="tasks of the submission")
    parser.add_argument("--kill", type=int, default=20_000, help="tasks of the run whose leader dies")
    parser.add_argument("--slice-ms", type=float, default=50.0, help="of the timeline around the death")
    parser.add_argument("--trace", type=Path, default=TRACE)
    parser.add_argument("--plot", help="an SVG file for the growth")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        part, masters, argument = json.loads(options.case)
        print(json.dumps(PARTS[part](masters, argument)))
        return
    print(
        f"load {os.getloadavg()[0]:.2f} on {os.cpu_count()} cores, Python {sys.version.split()[0]}; "
        "durability: in memory, majority"
    )
    if options.only in (None, "growth"):
        show_growth(options.sizes, options.repeats, options.plot)
    if options.only in (None, "submit"):
        show_submit(options.submit, options.repeats)
    if options.only in (None, "kill"):
        show_kill(options.kill, options.repeats, options.slice_ms)
    if options.only in (None, "montage"):
        show_montage(options.trace, options.repeats)
    print(f"\nload at the end {os.getloadavg()[0]:.2f}")


if __name__ == "__main__":
    main()
