"""Commits a second, elections and the simulator's speed, beside PySyncObj where it does the same.

    python tests/benchmarks/bench_raft.py [--seconds 3] [--rounds 3] [--without-pysyncobj]

Three members in one process commit small commands for a client that keeps so many of them open: one, and
twenty thousand. Beside the rate by the wall stands the rate by the processor's time, which says more on a
machine that does other things too. One configuration of ours stands against PySyncObj's better one for each window. Elections
are those of three masters with `RaftConfig.fast()`. Lines are medians over the rounds, ratios to PySyncObj of
the same run. PySyncObj is not a dependency: `pip install pysyncobj==0.3.17`.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import socket
import statistics
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import agentflow as af
from agentflow.cluster.raftnode import Proposer

WINDOWS = (1, 20_000)
PATIENCE = 20.0


class Rate(NamedTuple):
    """How many a second, by the wall's clock and by the processor's time."""

    wall: float
    cpu: float


class Watch:
    """Times a stretch."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def rate(self, count: int) -> Rate:
        """The rate of so many since it was made."""
        return Rate(count / (time.perf_counter() - self._wall), count / (time.process_time() - self._cpu))


def median(rates: list[Rate]) -> Rate:
    """The median of each clock."""
    return Rate(*(statistics.median(column) for column in zip(*rates, strict=True)))


def agentflow_commits(window: int, seconds: float) -> Rate:
    """Commands a second that three members commit for one client."""
    counts: dict[str, int] = {}

    async def run() -> tuple[int, Rate]:
        net = af.Network()
        config = af.RaftConfig.fast(peers=["a", "b", "c"])

        def count(name: str) -> Callable[[bytes], None]:
            counts[name] = 0

            def apply(command: bytes) -> None:
                counts[name] += 1

            return apply

        nodes = [af.RaftNode(name, config, network=net, apply=count(name)) for name in config.peers]
        for node in nodes:
            await node.start()
        try:
            await nodes[0].start_election()
            while not any(node.is_leader() for node in nodes):
                await asyncio.sleep(0.005)
            leader = next(node for node in nodes if node.is_leader())
            return await drive(leader, window, seconds)
        finally:
            for node in nodes:
                await node.stop()

    committed: int
    rate: Rate
    committed, rate = af.run_sync(run())
    assert max(counts.values()) == committed, f"{committed} were committed, and applied {counts}"
    return rate


async def drive(leader: af.RaftNode, window: int, seconds: float) -> tuple[int, Rate]:
    """Keep so many commands open; give how many were committed in the end, and how many a second."""
    propose = Proposer(leader).propose
    committed, asked, over = 0, 0, False

    def done(result: Any) -> None:
        nonlocal committed, asked
        committed += isinstance(result, af.Committed)
        if not over:
            asked += 1
            propose(b"inc", done)

    watch = Watch()
    asked += window
    for _ in range(window):
        propose(b"inc", done)
    await asyncio.sleep(seconds)
    rate = watch.rate(committed)
    over = True
    while committed < asked:
        await asyncio.sleep(0.01)
    return committed, rate


def ports(count: int) -> list[str]:
    """Addresses that are free now."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    found = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    for each in sockets:
        each.close()
    return found


def pysyncobj_cluster(batch: bool) -> list[Any]:
    """Three members of PySyncObj that have elected a leader."""
    from pysyncobj import SyncObj, SyncObjConf, replicated

    class Counter(SyncObj):
        def __init__(self, own: str, others: list[str]) -> None:
            super().__init__(own, others, SyncObjConf(appendEntriesUseBatch=batch, commandsQueueSize=200_000))
            self.value = 0

        @replicated
        def inc(self) -> int:
            self.value += 1
            return self.value

    addresses = ports(3)
    nodes = [Counter(own, [each for each in addresses if each != own]) for own in addresses]
    wait(lambda: any(node._isLeader() for node in nodes) and all(node._isReady() for node in nodes))
    return nodes


def wait(come: Callable[[], bool]) -> float:
    """Wait; give how long it took."""
    began = time.perf_counter()
    while not come():
        if time.perf_counter() - began > PATIENCE:
            raise AssertionError("it did not come about")
        time.sleep(0.002)
    return time.perf_counter() - began


def pysyncobj_commits(window: int, seconds: float, *, batch: bool) -> Rate:
    """Commands a second that three members of PySyncObj commit for one client at their leader."""
    nodes = pysyncobj_cluster(batch)
    leader = next(node for node in nodes if node._isLeader())
    done = threading.Semaphore(0)
    committed = 0

    def call(result: Any, error: Any) -> None:
        nonlocal committed
        committed += not error
        done.release()

    try:
        began, watch = time.perf_counter(), Watch()
        for _ in range(window):
            leader.inc(callback=call)
        while time.perf_counter() - began < seconds:
            if done.acquire(timeout=0.05):
                leader.inc(callback=call)
        return watch.rate(committed)
    finally:
        for node in nodes:
            node.destroy()
        time.sleep(0.3)


def agentflow_elections(times: int) -> tuple[list[float], list[float]]:
    """Seconds to the first leader, and from a leader's death to the next one that serves."""
    first, next_ = [], []
    for seed in range(times):
        began = time.perf_counter()
        with af.Cluster(masters=3, workers=0, seed=seed, config=af.RaftConfig.fast()) as cluster:
            first.append(time.perf_counter() - began)
            time.sleep(0.2)
            old = cluster.leader
            cluster.kill(old)
            next_.append(wait(lambda c=cluster, o=old: c.leader not in (None, o)))
    return first, next_


def pysyncobj_elections(times: int) -> tuple[list[float], list[float]]:
    """The same of PySyncObj, with its own settings."""
    first, next_ = [], []
    for _ in range(times):
        began = time.perf_counter()
        nodes = pysyncobj_cluster(batch=True)
        first.append(time.perf_counter() - began)
        old = next(node for node in nodes if node._isLeader())
        rest = [node for node in nodes if node is not old]
        old.destroy()
        next_.append(wait(lambda r=rest, o=old: any(node._isLeader() for node in r)))
        for node in rest:
            node.destroy()
    return first, next_


def simulator_speed(seconds: float) -> tuple[Rate, Rate]:
    """Delivered messages a second of a busy five-node cluster, and virtual seconds a second of an idle one."""
    sim = af.Simulation(masters=5, seed=7, config=af.RaftConfig.fast())
    sim.load(af.KeyValueLoad(clients=40, keys=20, every=(0.0, 0.005)))
    sim.run_for(2)
    gc.collect()
    before = sum(record.kind == "deliver" for record in sim.trace)
    gc.disable()
    watch = Watch()
    sim.run_for(4 * seconds)
    busy = watch.rate(1)
    gc.enable()
    delivered = sum(record.kind == "deliver" for record in sim.trace) - before
    idle = af.Simulation(masters=5, seed=7, config=af.RaftConfig.fast()).run_for(2)
    watch = Watch()
    idle.run_for(60)
    return Rate(busy.wall * delivered, busy.cpu * delivered), watch.rate(60)


def main() -> None:
    """Print a line a case."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--elections", type=int, default=9)
    parser.add_argument("--without-pysyncobj", action="store_true")
    given = parser.parse_args()
    rounds, seconds = given.rounds, given.seconds
    ours: dict[int, list[Rate]] = {window: [] for window in WINDOWS}
    others: dict[tuple[int, bool], list[Rate]] = {(w, b): [] for w in WINDOWS for b in (False, True)}
    for _ in range(rounds):
        for window in WINDOWS:
            ours[window].append(agentflow_commits(window, seconds))
            if not given.without_pysyncobj:
                for batch in (False, True):
                    others[window, batch].append(pysyncobj_commits(window, seconds, batch=batch))
    for window in WINDOWS:
        rate = median(ours[window])
        line = f"commits/s, window {window:>6,}: agentflow {rate.wall:>9,.0f} ({rate.cpu:>9,.0f} by CPU)"
        medians = [median(others[window, batch]) for batch in (False, True) if others[window, batch]]
        if medians:
            best = max(medians)
            line += f"   PySyncObj's best {best.wall:>8,.0f} ({best.cpu:>8,.0f})"
            line += f"   ratio {rate.wall / best.wall:.1f} ({rate.cpu / best.cpu:.1f})"
        print(line, flush=True)
    first, next_ = agentflow_elections(given.elections)
    line = (
        f"first leader {statistics.median(first):.3f} s, fail-over {statistics.median(next_):.3f} s (medians)"
    )
    if not given.without_pysyncobj:
        their_first, their_next = pysyncobj_elections(max(3, given.elections // 3))
        line += f"   PySyncObj {statistics.median(their_first):.3f} s, {statistics.median(their_next):.3f} s"
    print(line, flush=True)
    speeds = [simulator_speed(seconds) for _ in range(rounds)]
    busy, idle = (median(list(column)) for column in zip(*speeds, strict=True))
    print(f"simulator, five busy masters: {busy.wall:,.0f} messages/s ({busy.cpu:,.0f} by CPU)")
    print(f"simulator, five idle masters: {idle.wall:,.0f} virtual s/s ({idle.cpu:,.0f} by CPU)")


if __name__ == "__main__":
    main()
