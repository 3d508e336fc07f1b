"""The three scheduling modules alone: a graph of a million tasks beside its peers, the queue, the registry.

    python tests/benchmarks/bench_scheduling.py [--tasks 1000000] [--repeats 3] [--only graph] [--shuffled]

Every case runs in a process of its own, so that its peak memory is its own; medians of the repeats, wall
and processor seconds (the latter say more on a busy machine), and the machine's load are printed. Graphs:
every task waits for two random earlier ones; `--shuffled` submits them in random order. The peers get the
same integers; `names` is the same graph by way of `Workflow`, with texts as ids. graphlib has no critical
path.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from heapq import heappop, heappush
from pathlib import Path
from typing import Any

Phases = Iterator[str]
"""A case yields the name of each phase when it is over."""


def integers(size: int, shuffled: bool) -> list[list[int]]:
    """What each task waits for, by position."""
    rng = random.Random(1)
    place = list(range(size))
    if shuffled:
        rng.shuffle(place)
    before: list[list[int]] = [[] for _ in range(size)]
    for i in range(2, size):
        before[place[i]] = [place[j] for j in {int(rng.random() * i), int(rng.random() * i)}]
    return before


# --- graphs -----------------------------------------------------------------------------------------------


def graph_agentflow(before: list[list[int]]) -> Phases:
    """Ours, by position."""
    from agentflow.core.scheduling import TaskDependencyGraph

    ids = [f"t{i}" for i in range(len(before))]
    yield "input"
    graph = TaskDependencyGraph.from_edges(ids, before)
    yield "build"
    assert len(graph.get_execution_order()) == len(before)
    yield "order"
    print("length", graph.critical_path().length_secs, file=sys.stderr)
    yield "path"


def graph_names(before: list[list[int]]) -> Phases:
    """Ours, by name, from the workflow on."""
    from agentflow.core.scheduling import TaskDependencyGraph, Workflow

    ids = [f"t{i}" for i in range(len(before))]
    named = [(task, [ids[j] for j in each]) for task, each in zip(ids, before, strict=True)]
    before.clear()
    yield "input"
    flow = Workflow("names", tasks=named)
    yield "workflow"
    graph = TaskDependencyGraph.from_workflow(flow)
    yield "build"
    assert len(graph.get_execution_order()) == len(named)
    yield "order"
    print("length", graph.critical_path().length_secs, file=sys.stderr)
    yield "path"


def graph_rustworkx(before: list[list[int]]) -> Phases:
    """Rustworkx."""
    import rustworkx as rx

    yield "input"
    graph: Any = rx.PyDAG()
    graph.add_nodes_from(range(len(before)))
    graph.add_edges_from_no_data([(other, task) for task, each in enumerate(before) for other in each])
    yield "build"
    assert len(rx.topological_sort(graph)) == len(before)
    yield "order"
    print("length", len(rx.dag_longest_path(graph)), file=sys.stderr)
    yield "path"


def graph_networkx(before: list[list[int]]) -> Phases:
    """Networkx."""
    import networkx as nx

    yield "input"
    graph: Any = nx.DiGraph()
    graph.add_nodes_from(range(len(before)))
    graph.add_edges_from((other, task) for task, each in enumerate(before) for other in each)
    yield "build"
    assert len(list(nx.topological_sort(graph))) == len(before)
    yield "order"
    print("length", len(nx.dag_longest_path(graph)), file=sys.stderr)
    yield "path"


def graph_graphlib(before: list[list[int]]) -> Phases:
    """The standard library's."""
    import graphlib

    yield "input"
    graph = graphlib.TopologicalSorter(dict(enumerate(before)))
    yield "build"
    assert len(list(graph.static_order())) == len(before)
    yield "order"


def graph_lists(before: list[list[int]]) -> Phases:
    """Lists and loops, as one writes them by hand."""
    yield "input"
    after: list[list[int]] = [[] for _ in before]
    for task, each in enumerate(before):
        for other in each:
            after[other].append(task)
    yield "build"
    waiting = [len(each) for each in before]
    order = [task for task, count in enumerate(waiting) if not count]
    for task in order:
        for other in after[task]:
            waiting[other] -= 1
            if not waiting[other]:
                order.append(other)
    assert len(order) == len(before)
    yield "order"
    ends = [1.0] * len(before)
    for task in order:
        if before[task]:
            ends[task] += max(ends[other] for other in before[task])
    print("length", max(ends), file=sys.stderr)
    yield "path"


GRAPHS: dict[str, Callable[[list[list[int]]], Phases]] = {
    "agentflow": graph_agentflow,
    "agentflow, names": graph_names,
    "rustworkx": graph_rustworkx,
    "plain lists": graph_lists,
    "graphlib": graph_graphlib,
    "networkx": graph_networkx,
}


def run_graph(name: str, size: int, shuffled: bool) -> dict[str, Any]:
    """Time the phases of one case, here."""
    before = integers(size, shuffled)
    found: dict[str, Any] = {"wall": {}, "cpu": {}}
    steps = GRAPHS[name](before)
    next(steps)
    base = memory_mb()
    wall, cpu = time.perf_counter(), time.process_time()
    for phase in steps:
        now_wall, now_cpu = time.perf_counter(), time.process_time()
        found["wall"][phase], found["cpu"][phase] = now_wall - wall, now_cpu - cpu
        wall, cpu = now_wall, now_cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {**found, "input_mb": base, "peak_mb": peak}


def memory_mb() -> float:
    """Memory of this process that is in use now."""
    text = Path("/proc/self/status").read_text()
    return int(text.split("VmRSS:")[1].split()[0]) / 1024


# --- the queue, the registry, a run -----------------------------------------------------------------------


def run_queue(depth: int) -> dict[str, float]:
    """Operations a second at a depth: one in and one out, changes of priority, and a bare heap beside."""
    from agentflow.cluster.queue import PriorityTaskQueue as LockedQueue
    from agentflow.core.scheduling import PriorityTaskQueue, TaskNode

    rng = random.Random(1)
    found: dict[str, float] = {}
    rounds = 200_000
    for label, make in (("in+out", PriorityTaskQueue), ("in+out, locked", LockedQueue)):
        tasks = [TaskNode(f"t{i}", priority=rng.randint(1, 4)) for i in range(depth)]
        queue, now = make(clock=lambda: 0.0), 0.0
        for task in tasks:
            now += 1e-5
            queue.enqueue(task, now=now)
        began = time.process_time()
        for _ in range(rounds):
            now += 1e-5
            taken = queue.dequeue(now=now)
            assert taken is not None
            queue.enqueue(taken, now=now)
        found[label] = 2 * rounds / (time.process_time() - began)
        if make is PriorityTaskQueue:
            names = [f"t{rng.randrange(depth)}" for _ in range(rounds // 4)]
            began = time.process_time()
            for i, name in enumerate(names):
                queue.reprioritize(name, 1 + i % 4)
            found["reprioritize"] = len(names) / (time.process_time() - began)
    heap: list[tuple[float, int, str]] = []
    for i in range(depth):
        heappush(heap, (10 * i * 1e-5 - 250 * rng.randint(1, 4), i, f"t{i}"))
    began = time.process_time()
    for i in range(rounds):
        _, _, name = heappop(heap)
        heappush(heap, (10 * (depth + i) * 1e-5 - 250 * (1 + i % 4), depth + i, name))
    found["bare heap"] = 2 * rounds / (time.process_time() - began)
    return found


def run_story(size: int) -> dict[str, float]:
    """Microseconds a task: adding it, asking and telling of it until all are done; and memory."""
    from agentflow.core.scheduling import TaskDependencyGraph, Workflow

    rng = random.Random(1)
    base, began = memory_mb(), time.process_time()
    flow = Workflow("story")
    handles: list[Any] = []
    for i in range(size):
        before = [handles[int(rng.random() * i)] for _ in range(2)] if i > 1 else []
        handles.append(flow.add(len, before, id=f"t{i}"))
    added = time.process_time() - began
    used = memory_mb() - base
    began = time.process_time()
    graph = TaskDependencyGraph.from_workflow(flow)
    ready = graph.get_ready_tasks()
    while ready:
        later = []
        for task in ready:
            graph.update_task_state(task, "RUNNING", now=0.0)
            later += graph.update_task_state(task, "COMPLETED", now=1.0)
        ready = later
    assert graph.is_workflow_completed()
    ran = time.process_time() - began
    return {"add us": 1e6 * added / size, "run us": 1e6 * ran / size, "KB a task": 1024 * used / size}


def run_registry(workers: int) -> dict[str, float]:
    """Choices of the least loaded worker a second."""
    from agentflow.core.scheduling import WorkerInfo, WorkerRegistry, WorkerResources

    registry = WorkerRegistry(clock=lambda: 0.0)
    for i in range(workers):
        registry.register(WorkerInfo(f"w{i}", resources=WorkerResources(cpu_cores=4, max_tasks=8)))
    rounds = max(20, 20_000 // workers)
    began = time.process_time()
    for i in range(rounds):
        found = registry.get_least_loaded_worker()
        assert found is not None
        registry.assign(found.id, f"t{i}")
        registry.release(found.id, f"t{i}")
    return {"choices/s": rounds / (time.process_time() - began)}


# --- the command ------------------------------------------------------------------------------------------


def child(*arguments: str) -> Any:
    """Run one case in a process of its own."""
    command = [sys.executable, __file__, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "failed"
    return json.loads(done.stdout)


def median(rows: list[dict[str, float]]) -> dict[str, float]:
    """Medians by key."""
    return {key: statistics.median(row[key] for row in rows) for key in rows[0]}


def table(head: list[str], rows: list[list[Any]]) -> None:
    """Print rows under their head."""
    text = [
        [f"{cell:,.2f}" if isinstance(cell, float) else str(cell) for cell in row] for row in [head, *rows]
    ]
    widths = [max(len(row[i]) for row in text) for i in range(len(head))]
    for row in text:
        cells = [
            cell.ljust(w) if not i else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ]
        print("  " + "  ".join(cells))


def graphs(size: int, repeats: int, shuffled: bool, only: list[str]) -> None:
    """Print the table of graphs."""
    order = "random order" if shuffled else "order of dependencies"
    print(f"\ngraph: {size:,} tasks, about {2 * size:,} edges, submitted in {order}; medians of {repeats}")
    rows = []
    flags = ["--shuffled"] if shuffled else []
    cases = [name for name in GRAPHS if not only or name in only]
    runs: dict[str, list[Any]] = {name: [] for name in cases}
    for _ in range(repeats):
        for name in random.sample(cases, len(cases)):
            runs[name].append(child("--case", name, "--tasks", str(size), *flags))
    for name, found in runs.items():
        if isinstance(found[0], str):
            rows.append([name, found[0], *[""] * 6])
            continue
        wall, cpu = median([each["wall"] for each in found]), median([each["cpu"] for each in found])
        total = statistics.median(sum(each["wall"].values()) for each in found)
        spent = statistics.median(sum(each["cpu"].values()) for each in found)
        peak = statistics.median(each["peak_mb"] for each in found)
        own = peak - statistics.median(each["input_mb"] for each in found)
        build = wall["build"] + wall.get("workflow", 0.0)
        rows.append(
            [name, build, wall["order"], wall.get("path", "-"), total, spent, round(peak), round(own)]
        )
        assert cpu
    table(["", "build s", "order s", "path s", "all s", "cpu s", "peak MB", "beside input MB"], rows)


def main() -> None:
    """Run everything, or one case."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--shuffled", action="store_true", help="also submit the graph in random order")
    parser.add_argument("--only", choices=["graph", "queue", "story", "registry"])
    parser.add_argument("--engines", nargs="*", default=[], help="some of: " + ", ".join(GRAPHS))
    parser.add_argument("--case", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case in GRAPHS:
        print(json.dumps(run_graph(options.case, options.tasks, options.shuffled)))
        return
    if options.case:
        kind, _, size = options.case.partition(":")
        print(json.dumps({"queue": run_queue, "story": run_story, "registry": run_registry}[kind](int(size))))
        return

    def wanted(part: str) -> bool:
        return options.only in (None, part)

    print(f"python {sys.version.split()[0]}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    if wanted("graph"):
        for shuffled in (False, True) if options.shuffled else (False,):
            graphs(options.tasks, options.repeats, shuffled, options.engines)
    for part, title, sizes in (
        ("queue", "queue: operations a second of processor time, by depth", (1_000, 100_000, 1_000_000)),
        (
            "story",
            "a task's whole story in the pure graph, by size of the workflow",
            (1_000, 10_000, 100_000),
        ),
        ("registry", "registry: place one task, by number of workers", (4, 100, 1_000)),
    ):
        if wanted(part):
            print(f"\n{title}; medians of {options.repeats}")
            found = {n: [child("--case", f"{part}:{n}") for _ in range(options.repeats)] for n in sizes}
            rows = [[f"{n:,}", *median(runs).values()] for n, runs in found.items()]
            table(["", *next(iter(found.values()))[0]], rows)
    print(f"\nload at the end {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
