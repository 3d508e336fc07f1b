"""Tasks a second on a live cluster, beside a bare thread pool in the same run.

    python tests/benchmarks/bench_cluster.py [--repeats 5] [--json FILE]

The graph: 50 layers of 100 no-op tasks, each after two random tasks of the layer before. Durability: the
cluster keeps term, vote and log of each master in memory and acknowledges by majority; the pool keeps
nothing and knows no dependencies across layers, so it runs the layers one after the other.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import os
import random
import statistics
import subprocess
import sys
import time

import psutil

import agentflow as af

LAYERS, WIDTH, PARENTS = 50, 100, 2


def noop(*_):
    return None


def layered(seed=0):
    """Ids, and the ids each waits for."""
    rng = random.Random(seed)
    tasks = {}
    for layer in range(LAYERS):
        for i in range(WIDTH):
            before = [f"t{layer - 1}-{j}" for j in rng.sample(range(WIDTH), PARENTS)] if layer else []
            tasks[f"t{layer}-{i}"] = before
    return tasks


def workflow(tasks):
    flow = af.Workflow("layered")
    for task, before in tasks.items():
        flow.add(noop, id=task, after=before)
    return flow


def on_cluster(tasks, masters):
    """Seconds from submission to the last completion."""
    with af.Cluster(masters=masters, workers=4) as cluster:
        cluster.submit(noop).wait(30)
        flow = workflow(tasks)
        began = time.perf_counter()
        run = cluster.submit(flow)
        run.wait(120)
        took = time.perf_counter() - began
        assert run.ok
        return took


def on_pool(tasks):
    """The same graph on a bare pool of as many threads."""
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        began = time.perf_counter()
        layers = {}
        for task in tasks:
            layers.setdefault(task.partition("-")[0], []).append(task)
        for layer in layers.values():
            for future in [pool.submit(noop) for _ in layer]:
                future.result()
        return time.perf_counter() - began


def round_trip():
    """Median seconds of one task, from submit to result."""
    with af.Cluster(masters=3, workers=4) as cluster:
        times = []
        for _ in range(200):
            began = time.perf_counter()
            cluster.submit(noop).result(timeout=10)
            times.append(time.perf_counter() - began)
        return statistics.median(times[20:])


def start_up():
    """Seconds until a leader is elected."""
    began = time.perf_counter()
    cluster = af.Cluster(masters=3, workers=4)
    took = time.perf_counter() - began
    cluster.close()
    return took


def idle():
    """Share of a core, and MiB beyond the bare interpreter, of three idle masters and four workers."""
    code = (
        "import time, psutil, agentflow as af\n"
        "me = psutil.Process(); before = me.memory_info().rss\n"
        "cluster = af.Cluster(masters=3, workers=4); time.sleep(1)\n"
        "a = sum(me.cpu_times()[:2]); time.sleep(5); b = sum(me.cpu_times()[:2])\n"
        "print((b - a) / 5, (me.memory_info().rss - before) / 2**20); cluster.close()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return [float(part) for part in done.stdout.split()]


def importing():
    """Median seconds of `import agentflow` beyond the bare interpreter."""

    def once(code):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        return time.perf_counter() - began

    bare = statistics.median(once("pass") for _ in range(7))
    return statistics.median(once("import agentflow") for _ in range(7)) - bare


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json")
    options = parser.parse_args()
    tasks = layered()
    count = len(tasks)
    print(f"load {os.getloadavg()[0]:.2f} on {psutil.cpu_count()} cores, Python {sys.version.split()[0]}")
    rates = {"bare pool": [], "1 master": [], "3 masters": []}
    for _ in range(options.repeats):
        rates["bare pool"].append(count / on_pool(tasks))
        rates["1 master"].append(count / on_cluster(tasks, 1))
        rates["3 masters"].append(count / on_cluster(tasks, 3))
    medians = {name: statistics.median(each) for name, each in rates.items()}
    for name, rate in medians.items():
        low, high = min(rates[name]), max(rates[name])
        print(
            f"{name:>10}: {rate:>9,.0f} tasks/s  ({low:,.0f} to {high:,.0f})  {rate / medians['bare pool']:.2f} of the pool"
        )
    figures = {
        "round_trip_ms": 1000 * round_trip(),
        "start_s": statistics.median(start_up() for _ in range(5)),
        "import_s": importing(),
    }
    figures["idle_core_share"], figures["idle_mib"] = idle()
    for name, value in figures.items():
        print(f"{name:>16}: {value:.3f}")
    if options.json:
        with open(options.json, "w") as file:
            json.dump({"rates": rates, **figures}, file, indent=2)


if __name__ == "__main__":
    main()
