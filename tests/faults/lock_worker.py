"""One contender of the lock's fault test: a process that takes locks, writes to the resource, and suffers.

SIGUSR1: stop yourself between the check of your lease and the write it allows. SIGUSR2: kill yourself while you hold a
lock. SIGTERM: end. Its wall clock is skewed by `--skew`.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import os
import random
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import lock_mutants
from lock_evidence import Notebook, true_time
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from agentflow.errors import LockHeld, LockLost, StaleToken, Unknown
from agentflow.locks import AutoRenewLock, DistributedLock, FencedTable
from agentflow.locks.signals import lease_clock


class Resource:
    """What the lock protects: a SQLite file of its own that admits tokens and keeps a log of accepted writes."""

    def __init__(self, path, *, fenced):
        self.engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": 20}, poolclass=NullPool)
        self.fence = FencedTable()
        self.fenced = fenced

    def create(self):
        with self.engine.connect() as conn:
            conn.exec_driver_sql("PRAGMA journal_mode = WAL")
        with self.engine.begin() as conn:
            self.fence.create(conn)
            conn.exec_driver_sql(
                "CREATE TABLE writes (seq INTEGER PRIMARY KEY AUTOINCREMENT, lock_key TEXT, token INTEGER, holder TEXT)"
            )

    def write(self, key, token, holder):
        with self.engine.connect() as conn:
            conn.exec_driver_sql("BEGIN IMMEDIATE")
            if self.fenced:
                self.fence.admit(conn, key, token)
            conn.execute(
                text("INSERT INTO writes (lock_key, token, holder) VALUES (:key, :token, :holder)"),
                {"key": key, "token": token, "holder": holder},
            )
            conn.commit()


class Worker:
    def __init__(self, arguments):
        self.name = arguments.name
        self.ttl_s = arguments.ttl
        self.skew_s = arguments.skew
        self.rng = random.Random(f"{arguments.seed}/{arguments.name}")
        self.book = Notebook(Path(arguments.folder) / f"{arguments.name}.notes")
        self.resource = Resource(
            Path(arguments.folder) / "resource.db", fenced=arguments.mutant != "no-fencing-check"
        )
        self.keys = [f"shared-{n}" for n in range(arguments.keys)]
        self.pause = self.die = self.ended = False
        signal.signal(signal.SIGUSR1, lambda *_: setattr(self, "pause", True))
        signal.signal(signal.SIGUSR2, lambda *_: setattr(self, "die", True))
        signal.signal(signal.SIGTERM, lambda *_: setattr(self, "ended", True))
        skew_s = self.skew_s
        time.time = lambda: true_time() + skew_s
        self.lock = DistributedLock(
            arguments.url,
            owner=self.name,
            ttl_secs=self.ttl_s,
            timeout_secs=2.0,
            poll_secs=0.05,
            clock=lambda: lease_clock() + skew_s,
        )

    async def run(self):
        self.book.note("alive", name=self.name)
        while not self.ended:
            # A key of one's own shows what happens to an expired lease that nobody takes over.
            key = self.rng.choice([*self.keys, f"own-{self.name}"])
            turn = self.renewing_turn if self.rng.random() < 0.35 else self.plain_turn
            try:
                await turn(key)
            except (Unknown, LockHeld, LockLost) as error:
                self.book.note("failed", key=key, kind=type(error).__name__)
                await asyncio.sleep(self.rng.uniform(0, 0.02))
            if self.rng.random() < 0.2:
                await self.tidy()
        await self.lock.close()

    async def plain_turn(self, key):
        info = await self.lock.acquire_blocking(key, 1.0, {"by": self.name})
        self.acquired(info)
        for _ in range(self.rng.randint(1, 4)):
            await asyncio.sleep(self.rng.uniform(0, self.ttl_s / 4))
            was_paused = self.lock.remaining(key) > 0 and self.write(info)
            if self.rng.random() < (0.4 if was_paused else 0.7):
                renewed = await self.lock.renew(key)
                self.book.note("renewed", key=key, holder=info.holder, outcome=renewed)
            if was_paused:
                break
        self.book.note("releasing", key=key, holder=info.holder)
        released = await self.lock.release(key)
        self.book.note("released", key=key, holder=info.holder, outcome=released)

    async def renewing_turn(self, key):
        held = await AutoRenewLock.acquire(self.lock, key, max_duration=1.0)
        info = held.info
        self.acquired(info)
        try:
            async with held:
                try:
                    for _ in range(self.rng.randint(1, 3)):
                        await asyncio.sleep(self.rng.uniform(0, self.ttl_s / 2))
                        held.ensure_held()
                        self.write(info)
                finally:
                    self.book.note("releasing", key=key, holder=info.holder)
        except LockLost:  # perhaps on entering; what is dropped now is released
            self.book.note("releasing", key=key, holder=info.holder)
            raise

    def acquired(self, info):
        self.book.note("acquired", key=info.key, holder=info.holder, token=info.token, skew_s=self.skew_s)

    def write(self, info):
        """Between the check, just made, and the write lies the worst moment; that is where faults are put.

        Returns whether it was paused.
        """
        if self.die:
            self.book.note("dying", key=info.key, holder=info.holder)
            os.kill(os.getpid(), signal.SIGKILL)
        paused = self.pause and (info.key in self.keys or self.rng.random() < 0.5)
        if paused:
            self.pause = False
            self.book.note("pausing", key=info.key, holder=info.holder)
            began = true_time()
            os.kill(os.getpid(), signal.SIGSTOP)
            self.book.note("resumed", key=info.key, holder=info.holder, for_s=true_time() - began)
        try:
            self.resource.write(info.key, info.token, info.holder)
        except StaleToken as error:
            self.book.note(
                "refused", key=info.key, holder=info.holder, token=info.token, newest=error.current
            )
        else:
            self.book.note("wrote", key=info.key, holder=info.holder, token=info.token)
        return paused

    async def tidy(self):
        try:
            await self.lock.cleanup_expired_locks()
        except Unknown:
            self.book.note("failed", key="", kind="cleanup")


def main():
    parser = argparse.ArgumentParser()
    for name, kind in (
        ("engine", str),
        ("url", str),
        ("folder", str),
        ("name", str),
        ("seed", str),
        ("ttl", float),
        ("skew", float),
        ("keys", int),
        ("mutant", str),
    ):
        parser.add_argument(f"--{name}", type=kind, required=name != "mutant")
    arguments = parser.parse_args()
    if arguments.mutant:
        lock_mutants.apply(arguments.mutant, arguments.engine)
    asyncio.run(Worker(arguments).run())


assert datetime  # imported before time is skewed, so that its module keeps the true clock
if __name__ == "__main__":
    main()
