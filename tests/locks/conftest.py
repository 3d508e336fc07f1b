"""Databases for the tests of locks: a SQLite file, and PostgreSQL and MariaDB servers of the tests' own.

`AGENTFLOW_TEST_POSTGRES_URL` and `AGENTFLOW_TEST_MYSQL_URL` name existing databases for the contract; what kills a
server starts its own in any case. Where a server's program is missing the tests are skipped, except under CI.
"""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import itertools
import os
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil
import pytest

FAULTS = Path(__file__).resolve().parents[1] / "faults"
ENGINES = ("sqlite", "postgresql", "mariadb")
EXISTING = {"postgresql": "AGENTFLOW_TEST_POSTGRES_URL", "mariadb": "AGENTFLOW_TEST_MYSQL_URL"}


def load(name):
    spec = importlib.util.spec_from_file_location(f"agentflow_tests_{name}", FAULTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


lock_servers = load("lock_servers")


@pytest.fixture(scope="session")
def load_fault_module():
    """A module beside the fault test's script, by its name."""
    return load


KINDS = {"postgresql": lock_servers.PostgresServer, "mariadb": lock_servers.MariaServer}


class Servers:
    def __init__(self):
        self.running = {}

    def get(self, engine):
        if engine not in self.running:
            try:
                self.running[engine] = KINDS[engine]()
            except lock_servers.Missing as missing:
                if os.environ.get("CI"):
                    raise RuntimeError(f"CI must have every server: {missing}") from missing
                pytest.skip(str(missing))
        return self.running[engine]

    def url(self, engine):
        return os.environ.get(EXISTING[engine]) or self.get(engine).url

    def stop(self):
        for server in self.running.values():
            server.stop()


@pytest.fixture(scope="session")
def servers():
    own = Servers()
    yield own
    own.stop()


@pytest.fixture(params=ENGINES)
def engine(request):
    return request.param


@pytest.fixture
def url(engine, servers):
    """A database of each engine in turn, with the schema in it."""
    if engine != "sqlite":
        yield servers.url(engine)
        return
    with tempfile.TemporaryDirectory(dir=lock_servers.fast_folder(), prefix="agentflow-locks-") as folder:
        yield f"sqlite:///{folder}/locks.db"


@pytest.fixture(params=("postgresql", "mariadb"))
def server(request, servers):
    """A server of our own that may be killed."""
    return servers.get(request.param)


numbers = itertools.count(1)


@pytest.fixture
def key():
    """A key that no other test uses: the servers' tables outlive a test."""
    return f"key-{os.getpid()}-{next(numbers)}"


@pytest.fixture
def make(url):
    """Make locks on the test's database; they are closed afterwards."""
    from agentflow.locks import DistributedLock, LockTable

    made = []

    def build(owner="w1", ttl=30.0, where=url, **settings):
        lock = DistributedLock(where, owner=owner, ttl_secs=ttl, **settings)
        if not made:
            LockTable(lock).init_schema()
        made.append(lock)
        return lock

    yield build
    for lock in made:
        lock.shutdown()


@pytest.fixture
def run():
    """Run a coroutine on a loop of its own."""
    return asyncio.run


@pytest.fixture
def eventually():
    """Wait for something that other threads or servers bring about."""

    def wait(claim, within=5.0):
        ends = time.monotonic() + within
        while not claim():
            assert time.monotonic() < ends, "it did not happen in time"
            time.sleep(0.01)

    return wait


def traces(servers):
    """Threads and children, but for the servers, which live longer than a test."""
    own = {server.process.pid for server in servers.running.values() if server.process is not None}
    children = [child for child in psutil.Process().children() if child.pid not in own]
    found = {thread.name: thread for thread in threading.enumerate()}
    return found | {f"child {child.pid}": child for child in (*children, *more(children))}


def more(children):
    for child in children:
        try:
            yield from child.children(recursive=True)
        except psutil.NoSuchProcess:
            continue


@pytest.fixture(autouse=True)
def nothing_left_behind(servers):
    """Fail a test that leaves a thread, a child or a file behind."""
    before, files = traces(servers), set(os.listdir())
    yield
    ends = time.monotonic() + 3
    while left := traces(servers).keys() - before.keys():
        assert time.monotonic() < ends, f"left behind: {sorted(left)}"
        gc.collect()
        time.sleep(0.01)
    assert not {name for name in set(os.listdir()) - files if not name.startswith((".", "__"))}


@pytest.fixture
def sql(url):
    """Look into the table behind the lock's back."""
    import sqlalchemy as sa
    from sqlalchemy.pool import NullPool

    made = sa.create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")

    def run_sql(statement, **parameters):
        with made.connect() as conn:
            result = conn.execute(sa.text(statement), parameters)
            return result.all() if result.returns_rows else result.rowcount

    yield run_sql
    made.dispose()
