"""What the distributed lock costs.

    python tests/benchmarks/bench_locks.py [--engine sqlite|postgresql|mariadb ...] [--rounds 300] [--waiters 32]

Uncontended: acquire and release through `DistributedLock`, beside the very statements it sends, issued bare through the
driver on one connection in the same run, turn by turn, so that both meet the same disk. (Where nothing is
written to a disk, the hop to a thread, which keeps the caller's loop free, costs more than a statement of SQLite.) Contended: many waiters on one
key; how long a hand-over takes from the release to the next holder, and how many statements a second the waiters send
while nothing happens. Servers are the tests' own unless AGENTFLOW_TEST_POSTGRES_URL or AGENTFLOW_TEST_MYSQL_URL name some.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "faults"))

from lock_servers import MariaServer, Missing, PostgresServer
from sqlalchemy.dialects import registry
from sqlalchemy.engine import make_url

from agentflow.locks import DistributedLock
from agentflow.locks.dialects import dialect_for
from agentflow.locks.keys import holder_name
from agentflow.locks.link import Link

ROOT = Path(__file__).resolve().parents[2]
WANTED_RATIO = 0.7
SERVERS = {
    "postgresql": (PostgresServer, "AGENTFLOW_TEST_POSTGRES_URL"),
    "mariadb": (MariaServer, "AGENTFLOW_TEST_MYSQL_URL"),
}


class Bare:
    """The same statements through the driver alone: no pool, no threads, no retries, no loop."""

    def __init__(self, url):
        self.dialect, parsed = dialect_for(url)
        sql = registry.load(parsed.drivername.replace("+", "."))()
        self.paramstyle = {"sqlite": "named", "postgresql": "pyformat", "mysql": "pyformat"}[
            self.dialect.name
        ]
        names = ["acquire", "release"]
        self.sql = {
            name: str(
                getattr(self.dialect.statements, name).compile(dialect=type(sql)(paramstyle=self.paramstyle))
            )
            for name in names
        }
        self.conn = self.connect(parsed)
        self.dialect.prepare(self.conn, 5.0)
        if self.dialect.name == "mysql":
            from agentflow.locks.dialects.mysql import OWN

            self.sql["own"] = str(OWN.compile(dialect=type(sql)(paramstyle=self.paramstyle)))

    def connect(self, url):
        if self.dialect.name == "sqlite":
            import sqlite3

            return sqlite3.connect(url.database, isolation_level=None)
        if self.dialect.name == "postgresql":
            import psycopg

            return psycopg.connect(
                host=url.host,
                port=url.port,
                user=url.username,
                password=url.password,
                dbname=url.database,
                autocommit=True,
            )
        import pymysql

        return pymysql.connect(
            host=url.host,
            port=url.port or 3306,
            user=url.username,
            password=url.password or "",
            database=url.database,
            autocommit=True,
            charset="utf8mb4",
            client_flag=2,  # FOUND_ROWS
        )

    def turn(self, key):
        cursor = self.conn.cursor()
        holder = holder_name("bare")
        named = {
            "key": self.dialect.key(key),
            "holder": holder,
            "ttl": self.dialect.units(30.0),
            "metadata": None,
        }
        cursor.execute(self.sql["acquire"], named)
        if self.dialect.name == "mysql":
            cursor.execute(self.sql["own"], {"key": named["key"], "holder": holder})
        token = cursor.fetchall()[0][0]
        cursor.execute(self.sql["release"], {"key": named["key"], "holder": holder, "token": token})
        assert cursor.rowcount == 1
        cursor.close()

    def close(self):
        self.conn.close()


async def uncontended(url, rounds):
    """Seconds of one acquire and release, ours and bare, one after the other: a disk's mood lasts longer than both."""
    ours, bare_s = [], []
    bare = Bare(url)
    async with DistributedLock(url, owner="bench") as lock:
        for n in range(rounds + 20):
            began = time.perf_counter()
            assert await lock.acquire("bench-ours")
            assert await lock.release("bench-ours")
            between = time.perf_counter()
            bare.turn("bench-bare")
            ended = time.perf_counter()
            if n >= 20:
                ours.append(between - began)
                bare_s.append(ended - between)
    bare.close()
    return ours, bare_s


async def hop(url, rounds):
    """Seconds from a loop to a thread of ours and back when the thread does nothing."""
    async with DistributedLock(url) as lock:
        spans = []
        for _ in range(rounds):
            began = time.perf_counter()
            await lock._calls.submit("nothing", lambda *_: None, 5).result()
            spans.append(time.perf_counter() - began)
        return statistics.median(spans)


async def contended(url, waiters, hand_overs):
    """Hand-over times of many waiters on one key, each with connections of its own, and their statements while idle."""
    locks = [DistributedLock(url, owner=f"w{n}") for n in range(waiters + 1)]
    sent, real = [0], Link._execute

    def counted(link, statement, parameters):
        sent[0] += 1
        real(link, statement, parameters)

    Link._execute = counted
    holder, times, released_at = locks[-1], [], [0.0]
    await holder.acquire_blocking("bench-crowd")

    async def wait(lock):
        while len(times) < hand_overs:
            await lock.acquire_blocking("bench-crowd")
            now = time.perf_counter()
            if released_at[0]:
                times.append(now - released_at[0])
            await asyncio.sleep(0.02)
            released_at[0] = time.perf_counter()
            await lock.release("bench-crowd")

    tasks = [asyncio.create_task(wait(lock)) for lock in locks[:-1]]
    await asyncio.sleep(2.0)  # every waiter has reached its slowest pace
    before, began = sent[0], time.perf_counter()
    await asyncio.sleep(3.0)
    per_s = (sent[0] - before) / (time.perf_counter() - began)
    released_at[0] = time.perf_counter()
    await holder.release("bench-crowd")
    await asyncio.gather(*tasks)
    Link._execute = real
    for lock in locks:
        await lock.close()
    return times[:hand_overs], per_s


CROWD = """
import asyncio, sys, time
sys.path.insert(0, sys.argv[1])
from agentflow.locks import DistributedLock
async def main():
    async with DistributedLock(sys.argv[2], owner=sys.argv[3]) as lock:
        print("ready", flush=True)
        for _ in range(int(sys.argv[4])):
            await lock.acquire_blocking("bench-processes")
            got = time.clock_gettime(time.CLOCK_REALTIME)
            await asyncio.sleep(0.02)
            left = time.clock_gettime(time.CLOCK_REALTIME)
            await lock.release("bench-processes")
            print(got, left, flush=True)
asyncio.run(main())
"""


async def across_processes(url, processes, turns):
    """Hand-over times where nobody can ring a bell: from one process's release to another's grant."""
    children = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", CROWD, str(ROOT), url, f"p{n}", str(turns), stdout=asyncio.subprocess.PIPE
        )
        for n in range(processes)
    ]
    said = [(await child.communicate())[0].decode() for child in children]
    spans = sorted(
        tuple(map(float, line.split())) for text in said for line in text.splitlines() if line != "ready"
    )
    return [later[0] - earlier[1] for earlier, later in itertools.pairwise(spans)]


def quantiles(values):
    cuts = statistics.quantiles(values, n=100)
    return cuts[49] * 1e3, cuts[98] * 1e3


async def measure(engine, url, options):
    async with DistributedLock(url) as lock:
        await lock.init_schema()
    ours, bare = await uncontended(url, options.rounds)
    ratio = statistics.median(b / o for o, b in zip(ours, bare, strict=True))
    idle_hop = await hop(url, options.rounds)
    print(
        f"{engine}: acquire+release p50 {statistics.median(ours) * 1e3:.3f} ms, the same statements bare "
        f"{statistics.median(bare) * 1e3:.3f} ms; median of the ratios turn by turn {ratio:.2f}x of the bare rate "
        f"(wanted {WANTED_RATIO}x); an empty hop to a thread and back {idle_hop * 1e6:.0f} µs"
    )
    times, per_s = await contended(url, options.waiters, options.hand_overs)
    p50, p99 = quantiles(times)
    print(
        f"  {options.waiters} waiters in this process: hand-over p50 {p50:.2f} ms, p99 {p99:.2f} ms; "
        f"{per_s:.0f} statements/s while waiting"
    )
    gaps = await across_processes(url, options.processes, options.turns)
    p50_away, p99_away = quantiles(gaps)
    print(
        f"  {options.processes} processes with one waiter each: hand-over p50 {p50_away:.2f} ms, p99 {p99_away:.2f} ms"
    )
    return {
        "engine": engine,
        "ours_ms": statistics.median(ours) * 1e3,
        "bare_ms": statistics.median(bare) * 1e3,
        "ratio": ratio,
        "hop_us": idle_hop * 1e6,
        "hand_over_p50_ms": p50,
        "hand_over_p99_ms": p99,
        "statements_per_s": per_s,
        "processes_p50_ms": p50_away,
        "processes_p99_ms": p99_away,
    }


def main():
    parser = argparse.ArgumentParser(description="What the distributed lock costs.")
    parser.add_argument("--engine", nargs="*", choices=("sqlite", *SERVERS), default=["sqlite", *SERVERS])
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--waiters", type=int, default=32)
    parser.add_argument("--hand-overs", type=int, default=120)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--turns", type=int, default=20)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--check", action="store_true", help="fail below the wanted ratio")
    options = parser.parse_args()
    figures = []
    for engine in options.engine:
        server = None
        with tempfile.TemporaryDirectory() as folder:
            url = f"sqlite:///{folder}/locks.db"
            if engine in SERVERS:
                kind, variable = SERVERS[engine]
                url = os.environ.get(variable, "")
                if not url:
                    try:
                        server = kind(on_disk=True)
                    except Missing as missing:
                        print(f"{engine}: not measured, {missing}")
                        continue
                    url = server.url
            try:
                assert make_url(url)
                figures.append(asyncio.run(measure(engine, url, options)))
            finally:
                if server is not None:
                    server.stop()
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1))
    slow = [figure["engine"] for figure in figures if figure["ratio"] < WANTED_RATIO]
    if slow:
        print(f"below {WANTED_RATIO}x: {', '.join(slow)}")
    return 1 if slow and options.check else 0


if __name__ == "__main__":
    sys.exit(main())
