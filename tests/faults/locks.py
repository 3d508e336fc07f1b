"""Proof of the distributed lock under faults.

    python tests/faults/locks.py --engine sqlite|postgresql|mariadb --processes 6 --seconds 30 [--mutant NAME]

Worker processes contend for a few locks and write to a resource that checks tokens. They are stopped past their ttl and
killed, by chance and at the worst moment, their clocks are skewed, and the database is killed with -9 and restarted (a
SQLite database lives in the workers, so killing them is that). Then all is healed, and judges look at what the database
and the resource saw. Ends with `N passed, N failed`; status 0 only if none failed, and with a mutant only if it was caught.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import lock_judge
import lock_mutants
import psutil
import sqlalchemy as sa
from lock_evidence import AUDITS, COLUMNS, Change, Evidence, Notebook, Write, read_notes, true_time
from lock_servers import MariaServer, Missing, PostgresServer, fast_folder

SKEWS_S = (0.0, 3600.0, -3600.0, 7.0, -7.0, 86_400.0)
EXTRA_S = 50.0  # a short run goes on for this long at most until every kind of fault has landed
HERE = Path(__file__).resolve().parent


class Arena:
    """Database, resource and workers of one run."""

    def __init__(self, options):
        self.options = options
        self.rng = random.Random(options.seed)
        self.folder = Path(tempfile.mkdtemp(prefix="agentflow-faults-", dir=fast_folder()))
        self.server = None
        self.workers = {}
        self.born = 0
        self.counts = Counter()
        self.untouched, self.look_again = True, 0.0
        self.back_at = None
        self.book = Notebook(self.folder / "parent.notes")
        try:
            self.set_up()
        except BaseException:
            self.tear_down()
            raise

    def set_up(self):
        servers = {"postgresql": PostgresServer, "mariadb": MariaServer}
        if self.options.engine in servers:
            self.server = servers[self.options.engine]()
        self.url = self.server.url if self.server else f"sqlite:///{self.folder}/locks.db"
        from lock_worker import Resource

        from agentflow.locks import DistributedLock, LockTable

        lock = DistributedLock(self.url)
        LockTable(lock).init_schema()
        lock.shutdown()
        with self.database() as conn:
            if self.options.mutant == "unlogged-table":
                conn.exec_driver_sql("ALTER TABLE distributed_locks SET UNLOGGED")
            for statement in AUDITS[self.options.engine]():
                conn.exec_driver_sql(statement)
            conn.exec_driver_sql(
                {
                    "sqlite": "CREATE TABLE lock_sequence (id INTEGER PRIMARY KEY AUTOINCREMENT, drawn INTEGER)",
                    "postgresql": "CREATE SEQUENCE lock_sequence",
                    "mariadb": "CREATE TABLE lock_sequence (id BIGINT AUTO_INCREMENT PRIMARY KEY, drawn INT)",
                }[self.options.engine]
            )
        Resource(self.folder / "resource.db", fenced=True).create()

    def database(self):
        engine = sa.create_engine(self.url, poolclass=sa.pool.NullPool, isolation_level="AUTOCOMMIT")
        return engine.connect()

    def tear_down(self):
        for process in self.workers.values():
            process.kill()
            process.wait()
        if self.server is not None:
            self.server.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    # --- workers -------------------------------------------------------------------------------------

    def hire(self):
        name = f"w{self.born}"
        skew_s = SKEWS_S[self.born % len(SKEWS_S)]
        self.born += 1
        command = [sys.executable, str(HERE / "lock_worker.py")]
        for option, value in (
            ("engine", self.options.engine),
            ("url", self.url),
            ("folder", self.folder),
            ("name", name),
            ("seed", self.options.seed),
            ("ttl", self.options.ttl),
            ("skew", skew_s),
            ("keys", self.options.keys),
        ):
            command += [f"--{option}={value}"]
        if self.options.mutant:
            command += ["--mutant", self.options.mutant]
        with (self.folder / f"{name}.log").open("wb") as log:
            self.workers[name] = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def is_ready(self, name):
        notes = self.folder / f"{name}.notes"
        return notes.exists() and notes.stat().st_size > 0

    def bury(self):
        """Replace the dead; those who were not killed are a failure of their own."""
        for name, process in list(self.workers.items()):
            if process.poll() is not None:
                if process.returncode != -signal.SIGKILL:
                    said = (self.folder / f"{name}.log").read_text()[-2000:]
                    raise RuntimeError(f"worker {name} ended with {process.returncode}:\n{said}")
                del self.workers[name]
                self.hire()

    def send(self, name, number):
        if self.is_ready(name) and self.workers[name].poll() is None:
            self.workers[name].send_signal(number)
            return True
        return False

    # --- faults --------------------------------------------------------------------------------------

    def torment(self, until):
        """Faults by chance, until the time has come and every kind has met a holder, within limits."""
        resume_at, self.back_at = {}, None
        ttl_s = self.options.ttl
        next_pause = next_kill = next_chance = time.monotonic()
        # A mutant is caught by the faults of holders, but for the one whose table a crash empties.
        next_restart = time.monotonic() + (
            6.0 if self.options.mutant not in (None, "unlogged-table") else 0.8
        )
        next_look = time.monotonic() + 1.0
        while time.monotonic() < until or (self.is_untouched() and time.monotonic() < until + EXTRA_S):
            now = time.monotonic()
            self.bury()
            names = list(self.workers)
            for name in names:
                if name not in resume_at and self.is_stopped(name):
                    resume_at[name] = now + ttl_s * self.rng.uniform(1.5, 4)
            for name, at in list(resume_at.items()):
                if now >= at:
                    del resume_at[name]
                    if name in self.workers:
                        self.workers[name].send_signal(signal.SIGCONT)
            if now >= next_pause and self.send(self.rng.choice(names), signal.SIGUSR1):
                next_pause = now + self.rng.uniform(0.5, 1.5) * ttl_s
            if now >= next_kill and self.send(self.rng.choice(names), signal.SIGUSR2):
                next_kill = now + self.rng.uniform(1, 2)
            if now >= next_chance:
                next_chance = now + self.rng.uniform(0.3, 1.2)
                name = self.rng.choice(names)
                if self.rng.random() < 0.15 and self.send(name, signal.SIGKILL):
                    self.counts["random kills"] += 1
                elif name not in resume_at and self.send(name, signal.SIGSTOP):
                    self.counts["random pauses"] += 1
                    resume_at[name] = now + self.rng.uniform(0.25, 2.2) * ttl_s
            if self.server is not None:
                if self.back_at is None and now >= next_restart:
                    self.server.kill()
                    self.counts["restarts"] += 1
                    self.back_at = now + self.rng.uniform(0.05, 2) * ttl_s
                elif self.back_at is not None and now >= self.back_at:
                    self.server.start()
                    self.back_at, next_restart = None, time.monotonic() + self.rng.uniform(1.5, 5)
            if self.options.mutant and now >= next_look and self.back_at is None:
                next_look = now + 0.7
                if any(judge(self.evidence()) for judge in lock_judge.SAFETY):
                    break
            time.sleep(0.005)
        if self.back_at is not None:
            self.server.start()

    def is_untouched(self):
        """Whether a kind of fault has not met a holder yet; looked at now and then, because it reads everything."""
        if time.monotonic() < self.look_again or self.back_at is not None:
            return self.untouched
        restarts = self.counts["restarts"] if self.server else None
        found = lock_judge.landed(self.evidence(), ttl_s=self.options.ttl, restarts=restarts)
        self.untouched, self.look_again = not all(found.values()), time.monotonic() + 1.0
        return self.untouched

    def is_stopped(self, name):
        try:
            return psutil.Process(self.workers[name].pid).status() == psutil.STATUS_STOPPED
        except psutil.NoSuchProcess:
            return False

    def heal(self):
        """Let everybody go on, and give them time to show it."""
        self.bury()
        for name in self.workers:
            self.wait_for(lambda name=name: self.is_ready(name) or self.workers[name].poll() is not None, 30)
            self.workers[name].send_signal(signal.SIGCONT)
        time.sleep(0.05)
        for process in self.workers.values():  # those who stopped themselves just now
            process.send_signal(signal.SIGCONT)
        self.book.note("healed")

    def rest(self, at_least_s, at_most_s):
        """Until everybody was served, within limits; who was ordered to die still may, and is replaced."""
        began = time.monotonic()
        while time.monotonic() - began < at_most_s:
            self.bury()
            for name in self.workers:
                if self.is_stopped(name):
                    self.workers[name].send_signal(signal.SIGCONT)
            if time.monotonic() - began > at_least_s and not lock_judge.there_is_progress_after_healing(
                self.evidence()
            ):
                return
            time.sleep(0.1)

    def dismiss(self):
        for process in self.workers.values():
            process.send_signal(signal.SIGCONT)
            process.send_signal(signal.SIGTERM)
        ends = time.monotonic() + 15
        for name, process in self.workers.items():
            while process.poll() is None and time.monotonic() < ends:
                if self.is_stopped(name):
                    process.send_signal(signal.SIGCONT)
                time.sleep(0.02)
            if process.poll() is None:
                raise RuntimeError(f"worker {name} does not end")
        self.workers.clear()

    @staticmethod
    def wait_for(claim, limit_s):
        ends = time.monotonic() + limit_s
        while not claim() and time.monotonic() < ends:
            time.sleep(0.02)

    # --- evidence ------------------------------------------------------------------------------------

    def evidence(self):
        """What there is now; whoever was stopped with a file locked goes on first, as nobody else can let it."""
        for _ in range(3):
            try:
                return self.read_evidence()
            except sa.exc.OperationalError:
                for process in self.workers.values():
                    process.send_signal(signal.SIGCONT)
        return self.read_evidence()

    def read_evidence(self):
        """Each witness is read after those whose word it must confirm: a run may be going on."""
        engine = sa.create_engine(f"sqlite:///{self.folder}/resource.db", poolclass=sa.pool.NullPool)
        with engine.connect() as conn:
            found = conn.exec_driver_sql("SELECT seq, lock_key, token, holder FROM writes ORDER BY seq").all()
        acquired = [note for note in read_notes(self.folder) if note["what"] == "acquired"]
        with self.database() as conn:
            rows = conn.exec_driver_sql(
                f"SELECT seq, op, lock_key, at, {', '.join(COLUMNS)} FROM lock_audit ORDER BY seq"
            ).all()
        living = set(self.workers)
        others = [
            note
            for note in read_notes(self.folder)
            if note["what"] != "acquired" and (note["what"] != "alive" or note["worker"] in living)
        ]
        changes = [Change(row[0], row[1], _text(row[2]), *row[3:]) for row in rows]
        return Evidence(changes, [Write(*row) for row in found], acquired + others)


def _text(value):
    return value.decode() if isinstance(value, bytes) else value


def run(options):
    """One run; the evidence, and what the parent counted."""
    arena = Arena(options)
    try:
        for _ in range(options.processes):
            arena.hire()
        arena.wait_for(lambda: all(arena.is_ready(name) for name in arena.workers), 60)
        heal_s = max(1.5, 4 * options.ttl)
        arena.torment(time.monotonic() + max(1.0, options.seconds - heal_s))
        arena.heal()
        arena.rest(0.2 if options.mutant else heal_s, 20.0)
        evidence = arena.evidence()
        arena.dismiss()
        final = arena.evidence()
        final.notes += [note for note in evidence.notes if note["what"] == "alive"]
        return final, arena.counts
    finally:
        arena.tear_down()


def report(options, evidence, counts):
    """Print counts and verdicts; the exit status."""
    told = Counter(note["what"] for note in evidence.notes)
    restarts = counts["restarts"] if options.engine != "sqlite" else None
    landed = lock_judge.landed(evidence, ttl_s=options.ttl, restarts=restarts)
    print(
        f"{options.engine}: {options.processes} processes, {options.seconds:g} s, ttl {options.ttl:g} s, "
        f"seed {options.seed}, mutant {options.mutant or 'none'}"
    )
    print(
        "  "
        + ", ".join(
            f"{told[what]} {what}"
            for what in ("acquired", "wrote", "refused", "renewed", "released", "failed")
        )
    )
    print("  " + ", ".join(f"{n} {what}" for what, n in landed.items()))
    print("  " + ", ".join(f"{counts[what]} {what}" for what in ("random pauses", "random kills")))
    print(f"  {len(evidence.changes)} changes of rows and {len(evidence.writes)} accepted writes judged")
    failed = passed = caught = 0
    claims = [(judge.__name__.replace("_", " "), judge(evidence)) for judge in lock_judge.SAFETY]
    caught = sum(bool(violations) for _, violations in claims)
    claims.append(("there is progress after healing", lock_judge.there_is_progress_after_healing(evidence)))
    claims += [(f"the run had {what}", [] if n else ["none landed"]) for what, n in landed.items()]
    for claim, violations in claims:
        passed, failed = passed + (not violations), failed + bool(violations)
        print(f"{'FAIL' if violations else 'PASS'} {claim}" + (f" ({len(violations)})" if violations else ""))
        for violation in violations[:3]:
            print(f"       {violation}")
    if options.mutant:
        print(f"mutant {options.mutant} was {'caught' if caught else 'NOT caught'}")
    print(f"{passed} passed, {failed} failed")
    return (0 if caught else 1) if options.mutant else (1 if failed else 0)


def main(arguments=None):
    parser = argparse.ArgumentParser(description="The distributed lock under faults.")
    parser.add_argument("--engine", choices=("sqlite", "postgresql", "mariadb"), default="sqlite")
    parser.add_argument("--processes", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--mutant", choices=sorted(lock_mutants.MUTANTS))
    parser.add_argument("--ttl", type=float, default=0.4)
    parser.add_argument("--keys", type=int, default=2)
    parser.add_argument("--seed", default=str(int(true_time())))
    options = parser.parse_args(arguments)
    if options.mutant and options.engine not in lock_mutants.MUTANTS[options.mutant][1]:
        parser.error(f"{options.mutant} is no mutant of {options.engine}")
    try:
        evidence, counts = run(options)
    except Missing as missing:
        print(f"not run: {missing}")
        return 1 if os.environ.get("CI") else 77
    return report(options, evidence, counts)


if __name__ == "__main__":
    sys.exit(main())
