"""The three places where agents live, for tests of what holds in all of them."""

import threading

import pytest

import agentflow as af

SOON = 20.0
"""Seconds that something which takes a moment may take on a machine that is busy with other things."""


class Home:
    """Where agents live: the kernel's bus, a cluster or a simulation."""

    def __init__(self, place):
        self.place = place
        self.made = []

    @property
    def virtual(self):
        return isinstance(self.place, af.Simulation)

    def agent(self, name, **settings):
        if self.place is None:
            agent = af.AgentCommunication(name, **settings)
        else:
            agent = self.place.agent(name, **settings)
        self.made.append(agent)
        return agent

    def agents(self, *names):
        return tuple(self.agent(name) for name in names)

    def until(self, claim):
        """Wait until something is true, without asking how long that takes."""
        if self.virtual:
            return self.place.run_until(lambda sim: claim(), limit=600)
        pause = threading.Event()
        for _ in range(int(SOON / 0.005)):
            if claim():
                return True
            pause.wait(0.005)
        return claim()

    def let_pass(self, seconds):
        """Let time pass: virtual time at once."""
        if self.virtual:
            self.place.run_for(seconds)
        else:
            threading.Event().wait(seconds)

    @property
    def label(self):
        if self.place is None:
            return "the kernel's bus"
        return "the simulation" if self.virtual else "the cluster"

    def close(self):
        for agent in self.made:
            agent.close()


@pytest.fixture(scope="module")
def cluster():
    """One live cluster a module; agents come and go on it."""
    with af.Cluster(masters=1, workers=1) as cluster:
        yield cluster


@pytest.fixture
def sim():
    """A place in virtual time with agents only."""
    return af.Simulation(masters=0, seed=7)


@pytest.fixture
def kernel():
    """The kernel's own bus."""
    home = Home(None)
    yield home
    home.close()


@pytest.fixture(params=["kernel", "cluster", "simulation"])
def home(request, cluster):
    """Each of the three places in turn."""
    place = {"kernel": None, "cluster": cluster, "simulation": None}[request.param]
    if request.param == "simulation":
        place = af.Simulation(masters=0, seed=7)
    home = Home(place)
    yield home
    home.close()


@pytest.fixture
def heard():
    """Make a handler that keeps what it hears."""

    def make(agent, *topics):
        seen = []

        @agent.on(*topics)
        async def keep(message):
            seen.append(message)

        return seen

    return make
