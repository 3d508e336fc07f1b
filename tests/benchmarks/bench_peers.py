"""The layered graph of `bench_cluster` on the engines people already have, beside agentflow in the same run.

    python tests/benchmarks/bench_peers.py [--repeats 3] [--only dask,ray,parsl]

Each engine is warmed up first and runs the same no-op tasks with their dependencies. Durability: Dask, Ray and
Parsl keep the run in one scheduler or driver and lose it with that; agentflow keeps it in the memory of one
master or of three, by majority. An engine that is not installed is left out, and named.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parent))
from bench_cluster import layered, noop, on_cluster, on_pool


def timed(run):
    """Seconds of a second call; the first one warms up."""
    run({"warm": []})
    began = time.perf_counter()
    run(layered())
    return time.perf_counter() - began


def on_dask(processes):
    from distributed import Client, LocalCluster

    settings = {"n_workers": 2, "threads_per_worker": 2, "processes": processes, "dashboard_address": None}
    with LocalCluster(**settings) as cluster, Client(cluster) as client:

        def run(tasks):
            futures = {}
            for task, before in tasks.items():
                futures[task] = client.submit(noop, *(futures[each] for each in before), pure=False)
            client.gather(list(futures.values()))

        return timed(run)


def on_ray():
    import ray

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    try:
        remote = ray.remote(noop)

        def run(tasks):
            refs = {}
            for task, before in tasks.items():
                refs[task] = remote.remote(*(refs[each] for each in before))
            ray.get(list(refs.values()))

        return timed(run)
    finally:
        ray.shutdown()


def on_parsl():
    import parsl
    from parsl.config import Config
    from parsl.executors import ThreadPoolExecutor

    with tempfile.TemporaryDirectory() as folder:
        pool = ThreadPoolExecutor(max_threads=16)
        parsl.load(Config(executors=[pool], run_dir=folder, usage_tracking=0, initialize_logging=False))
        try:
            app = parsl.python_app(noop)

            def run(tasks):
                futures = {}
                for task, before in tasks.items():
                    futures[task] = app(*(futures[each] for each in before))
                for future in futures.values():
                    future.result()

            return timed(run)
        finally:
            parsl.dfk().cleanup()
            parsl.clear()


ENGINES = {
    "agentflow, 1 master": lambda: on_cluster(layered(), 1),
    "agentflow, 3 masters": lambda: on_cluster(layered(), 3),
    "bare thread pool": lambda: on_pool(layered()),
    "parsl threads": on_parsl,
    "ray": on_ray,
    "dask in this process": lambda: on_dask(False),
    "dask processes": lambda: on_dask(True),
}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", default="", help="words; engines whose names have one of them")
    options = parser.parse_args()
    words = [word for word in options.only.split(",") if word]
    chosen = [name for name in ENGINES if not words or any(word in name for word in words)]
    print(f"load {os.getloadavg()[0]:.1f} on {psutil.cpu_count()} cores, Python {sys.version.split()[0]}")
    rates = {name: [] for name in chosen}
    for _ in range(options.repeats):
        for name in chosen:
            try:
                rates[name].append(len(layered()) / ENGINES[name]())
            except Exception as error:
                print(f"{name:>22}: left out, {type(error).__name__}: {error}")
    for name, each in rates.items():
        if each:
            print(
                f"{name:>22}: {statistics.median(each):>9,.0f} tasks/s ({min(each):,.0f} to {max(each):,.0f})"
            )
        else:
            print(f"{name:>22}: no figure")
    print(f"load {os.getloadavg()[0]:.1f} at the end")


if __name__ == "__main__":
    main()
