from __future__ import annotations

import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from queue import Queue

import pytest

from agentflow.executors import ExecutorRunner, InlineRunner, ProcessRunner, ThreadRunner


class Ends:
    """Collects the ends of work, from whatever thread they come."""

    def __init__(self):
        self.queue = Queue()

    def __call__(self, key, outcome):
        self.queue.put((key, outcome))

    def next(self, timeout=30):
        return self.queue.get(timeout=timeout)

    def outcome(self):
        return self.next()[1]

    def take(self, count):
        return dict(self.next() for _ in range(count))


@pytest.fixture
def ends():
    return Ends()


@pytest.fixture
def runners():
    """Make runners by kind; close them all at the end, and see that nothing is left."""
    made = []
    before, streams = set(threading.enumerate()), (sys.stdout, sys.stderr)

    def make(kind, slots=2, **keywords):
        match kind:
            case "threads":
                runner = ThreadRunner("w1", slots, **keywords)
            case "pool":
                runner = ExecutorRunner("w1", ThreadPoolExecutor(slots), slots, owns=True, **keywords)
            case "processes":
                pytest.importorskip("loky")
                runner = ProcessRunner("w1", slots, **keywords)
            case "inline":
                runner = InlineRunner("w1", **keywords)
        made.append(runner)
        return runner

    yield make
    for runner in made:
        assert runner.close(20) == []
    assert set(threading.enumerate()) <= before
    assert (sys.stdout, sys.stderr) == streams
