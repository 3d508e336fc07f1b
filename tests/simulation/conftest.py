"""Clusters, nodes and faults that the tests of the simulation share."""

import pytest

import agentflow as af

FAST = af.RaftConfig.fast()
HEALTH = af.HealthCheckConfig(heartbeat_interval_secs=0.3, suspect_after_secs=0.8, offline_after_secs=1.5)


class Counter:
    """Counts what it is told, remembers the sum on disk, and tells the others."""

    def on_start(self, ctx):
        self.stable["sum"] = 0
        self.heard = 0
        ctx.set_timer("tick", 1.0)

    def on_recover(self, ctx):
        self.heard = 0

    def on_local(self, msg, ctx):
        self.stable["sum"] += msg
        ctx.broadcast({"type": "SUM", "sum": self.stable["sum"]})
        ctx.reply(self.stable["sum"])

    def on_SUM(self, msg, source, ctx):
        self.heard += 1
        ctx.log("heard", sum=msg["sum"], luck=ctx.random.random())

    def on_timer(self, name, ctx):
        ctx.set_timer("tick", 1.0)
        ctx.broadcast({"type": "SUM", "sum": self.stable["sum"]})


@pytest.fixture
def counter():
    return Counter


@pytest.fixture
def busy():
    """Make a cluster with work and faults of every kind."""

    def make(seed=7, *, masters=5, workers=2, until=20.0, nemesis="all", **options):
        sim = af.Simulation(
            masters=masters,
            workers=workers,
            seed=seed,
            config=FAST,
            health=HEALTH,
            disk_ms=(0, 3),
            **options,
        )
        sim.load(af.KeyValueLoad(3, 3, until=until))
        if workers:
            sim.load(af.WorkflowLoad(until=until))
        if nemesis:
            sim.nemesis(nemesis, until=until)
        return sim

    return make


@pytest.fixture
def elected():
    """Make a quiet cluster that has a leader."""

    def make(seed=7, masters=3, **options):
        sim = af.Simulation(masters=masters, seed=seed, config=FAST, **options)
        assert sim.run_until(lambda s: s.leader, limit=10)
        return sim

    return make
