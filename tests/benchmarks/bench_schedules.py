"""Schedule quality: makespans of recorded workflows on 8 slots over max(critical path, work / slots).

    python tests/benchmarks/bench_schedules.py [DIR] [--slots 8] [--masters 1]

DIR holds traces in WfFormat. Four schedules, each as a multiple of the bound (1.000 cannot be beaten):

* `list`: equal slots without overhead; of the ready tasks the earliest submitted goes first, or (`chain`)
  the one with the longest remaining chain of recorded seconds.
* `plane`: `Simulation`, that is the control plane with its log, messages and queue in virtual time, where a
  task takes its recorded seconds. Its queue serves equal priorities in the order of their becoming ready;
  ties go to the earliest submitted, and for `chain` the workflow is submitted longest chain first.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from pathlib import Path

import agentflow as af

TRACES = Path(__file__).resolve().parents[3] / "shared" / "data" / "wfinstances"
SLOTS_OF_A_WORKER = 4


def noop(*_: object) -> None:
    """Take no time of the wall's."""


def listed(graph: af.TaskDependencyGraph, flow: af.Workflow, slots: int, policy: str) -> float:
    """Makespan of a list schedule."""
    starts = graph.schedule(slots, policy=policy)
    return max(starts[task] + node.estimated_duration_secs for task, node in flow.tasks.items())


def by_chain(graph: af.TaskDependencyGraph, flow: af.Workflow) -> af.Workflow:
    """The same tasks, submitted with the longest remaining chain first."""
    tail: dict[str, float] = dict.fromkeys(flow.tasks, 0.0)
    for task in reversed(graph.get_execution_order()):
        node = flow.tasks[task]
        tail[task] += node.estimated_duration_secs
        for other in node.dependencies:
            tail[other] = max(tail[other], tail[task])
    ordered = af.Workflow(flow.name)
    for task in sorted(tail, key=tail.__getitem__, reverse=True):
        node = flow.tasks[task]
        ordered.add(noop, id=task, after=list(node.dependencies), duration=node.estimated_duration_secs)
    return ordered


def simulated(flow: af.Workflow, slots: int, masters: int) -> tuple[float, float]:
    """Virtual seconds from submission to the last task's end, and the wall's seconds that took."""
    sim = af.Simulation(masters=masters, workers=slots // SLOTS_OF_A_WORKER, seed=1)
    sim.run_until(lambda s: s.leader)
    began = time.perf_counter()
    run = sim.submit(flow).wait(1e7)
    took = time.perf_counter() - began
    assert run.ok, run
    tasks = run.frames.tasks()
    return float(tasks.finished_s.max() - tasks.submitted_s.min()), took


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dir", nargs="?", type=Path, default=TRACES, help="a folder of WfFormat traces")
    parser.add_argument("--slots", type=int, default=8, help="a multiple of 4, what one worker runs at once")
    parser.add_argument("--masters", type=int, default=1)
    options = parser.parse_args()
    if options.slots < 1 or options.slots % SLOTS_OF_A_WORKER:
        parser.error(f"--slots {options.slots} is no multiple of {SLOTS_OF_A_WORKER}: a worker runs four")
    paths = sorted(options.dir.glob("*.json"))
    if not paths:
        parser.error(f"no traces (*.json) in {options.dir}; give a folder of WfFormat files")
    print(
        f"load {os.getloadavg()[0]:.2f} on {os.cpu_count()} cores, Python {sys.version.split()[0]}; "
        f"{options.slots} slots; plane: masters={options.masters}, in memory, majority, messages 1 to 10 ms"
    )
    print(
        f"{'':<44} {'tasks':>6} {'bound s':>9}  {'list':>6} {'chain':>6}  {'plane':>6} {'chain':>6}  {'wall s':>6}"
    )
    ratios: list[list[float]] = []
    for path in paths:
        flow = af.Workflow.from_wfformat(path, scale=0)
        graph = af.TaskDependencyGraph.from_workflow(flow)
        best = graph.critical_path(slots=options.slots)
        bound = best.lower_bound_secs
        plane, wall = simulated(flow, options.slots, options.masters)
        chained, again = simulated(by_chain(graph, flow), options.slots, options.masters)
        spans = [listed(graph, flow, options.slots, "submitted"), best.makespan_secs, plane, chained]
        ratios.append([span / bound for span in spans])
        a, b, c, d = ratios[-1]
        print(
            f"{path.stem:<44} {len(flow):>6,} {bound:>9,.1f}  {a:>6.3f} {b:>6.3f}  {c:>6.3f} {d:>6.3f}  {wall + again:>6.1f}"
        )
    a, b, c, d = (statistics.geometric_mean(column) for column in zip(*ratios, strict=True))
    print(f"{'geometric mean':<44} {'':>6} {'':>9}  {a:>6.3f} {b:>6.3f}  {c:>6.3f} {d:>6.3f}")
    print(f"load at the end {os.getloadavg()[0]:.2f}")


if __name__ == "__main__":
    main()
