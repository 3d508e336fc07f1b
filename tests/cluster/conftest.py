"""Clusters in both kinds of time, for the tests of what a person holds."""

import threading

import pytest

import agentflow as af

SOON = 20.0
"""Seconds that something which takes a moment may take on a machine that is busy with other things."""


@pytest.fixture
def sim():
    """A cluster in virtual time with a leader and two registered workers."""
    sim = af.Simulation(masters=3, workers=2, seed=1, config=af.RaftConfig.fast())
    assert sim.run_until(lambda s: s.leader and len(s.plane().workers) == 2)
    return sim


@pytest.fixture(scope="module")
def live():
    """One live cluster a module; its threads are there before a test looks at which ones it leaves."""
    with af.Cluster(masters=3, workers=1) as cluster:
        together = threading.Barrier(4)
        cluster.map(lambda _: together.wait(SOON), range(4)).wait(SOON)
        yield cluster


@pytest.fixture
def fresh():
    """A live cluster of the test's own."""
    with af.Cluster(masters=3, workers=2) as cluster:
        yield cluster


@pytest.fixture
def eventually():
    """Wait until something is true, without asking how long that takes."""

    def wait(claim, seconds=SOON):
        settled = threading.Event()
        for _ in range(int(seconds / 0.01)):
            if claim():
                return True
            settled.wait(0.01)
        return bool(claim())

    return wait
