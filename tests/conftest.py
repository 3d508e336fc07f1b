"""What every test is held to: it leaves nothing behind, and no program it needs is quietly missed."""

import gc
import os
import shutil
import threading
import time
from pathlib import Path

import psutil
import pytest
from hypothesis import HealthCheck, settings

collect_ignore_glob = [
    "benchmarks/*",
    "external/etcd_adapter/*",
    "faults/*",
    "mutants/*",
    "e2e/serves.py",
    "e2e_live/lab.py",
]
"""Programs to be run by path, and their parts: no doctests are looked for in them."""

# How long an example takes is the machine's business. In CI one commit is judged alike each time; elsewhere new
# examples are looked for.
settings.register_profile(
    "agentflow",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=bool(os.environ.get("CI")),
    print_blob=True,
)
settings.load_profile("agentflow")

PATIENCE = 3.0
"""Seconds a thread or child that is on its way out may take to go."""


def pytest_addoption(parser):
    parser.addoption("--long", action="store_true", help="also run what takes many minutes")
    parser.addoption("--rewrite", action="store_true", help="write transcripts anew instead of comparing")


def pytest_collection_modifyitems(config, items):
    if config.getoption("--long"):
        return
    skip = pytest.mark.skip(reason="takes many minutes; run with --long")
    for item in items:
        if "long" in item.keywords:
            item.add_marker(skip)


PURE = {"core", "check"}
"""Folders whose tests only compute: asking the system for children and ports would take most of their time."""


class Traces:
    """Threads, files, and unless the test is of pure code children and listening ports, at one moment."""

    def __init__(self, *, pure):
        self.threads = {thread for thread in threading.enumerate() if thread.is_alive()}
        self.files = set(os.listdir())
        self.children, self.ports = set(), set()
        if pure:
            return
        process = psutil.Process()
        self.children = {child.pid for child in process.children(recursive=True)}
        self.ports = {c.laddr for c in process.net_connections("inet") if c.status == psutil.CONN_LISTEN}

    def since(self, before):
        found = [f"thread {thread.name}" for thread in self.threads - before.threads]
        for pid in self.children - before.children:
            try:
                name = " ".join(psutil.Process(pid).cmdline()[:4])
            except psutil.NoSuchProcess:
                continue
            # multiprocessing's helper serves every later process pool and ends with the interpreter.
            if "resource_tracker" not in name:
                found.append(f"child {pid}: {name}")
        found += [f"port {address}" for address in self.ports - before.ports]
        found += [f"file {name}" for name in self.files - before.files if name not in PASSING]
        return found


PASSING = {
    ".hypothesis",
    "__pycache__",
    ".pytest_cache",
    ".mypy_cache",
    ".ruff_cache",
    ".import_linter_cache",
}


@pytest.fixture(autouse=True)
def nothing_left_behind(request):
    """Fail a test that leaves a thread, child process, listening port or file behind."""
    pure = bool(PURE & set(request.path.parent.parts))
    before = Traces(pure=pure)
    yield
    limit = time.monotonic() + PATIENCE
    while left := Traces(pure=pure).since(before):
        if time.monotonic() > limit:
            pytest.fail(f"left behind: {', '.join(left)}")
        gc.collect()
        time.sleep(0.02)


@pytest.fixture(scope="session")
def shared_data():
    """The folder of outside test data, beside the project; a test that needs it skips without it."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"outside test data is not at {folder}")
    return folder


@pytest.fixture(scope="session")
def program():
    """Find a program by name; where it is missing the test skips, but in CI that is an error."""

    def find(name, *places):
        path = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
        found = shutil.which(name, path=os.pathsep.join([*places, os.environ.get("PATH", ""), path]))
        if found is None and os.environ.get("CI"):
            pytest.fail(f"{name} is not installed, and CI must not skip for want of it")
        if found is None:
            pytest.skip(f"{name} is not installed")
        return found

    return find
