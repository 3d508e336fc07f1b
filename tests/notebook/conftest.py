"""A cluster in virtual time to look at."""

import pytest

import agentflow as af


@pytest.fixture
def sim():
    """A leader and two registered workers."""
    sim = af.Simulation(masters=3, workers=2, seed=1, config=af.RaftConfig.fast())
    assert sim.run_until(lambda s: s.leader and len(s.plane().workers) == 2)
    return sim
