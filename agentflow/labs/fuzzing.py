"""Clusters that a seed draws: how many masters, with what settings, under what work, and what breaks.

Law: `fuzzed(seed)` with the same arguments is the same run, event for event.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable
from functools import partial
from typing import Any

import msgspec

from agentflow.cluster.simulating.sweeping import Trial
from agentflow.cluster.simulating.workloads import KeyValueLoad, MembershipLoad, WorkflowLoad
from agentflow.cluster.simulation import Simulation
from agentflow.core.raft import RaftConfig
from agentflow.core.scheduling import HealthCheckConfig
from agentflow.errors import InvalidConfig
from agentflow.runtime.nemesis import KINDS, Nemesis
from agentflow.transport.memory import Network

__all__ = ["ENOUGH_SECONDS", "Fuzz", "Totals", "check_seconds", "fuzzed", "quiet_seconds"]

ENOUGH_SECONDS = 600.0
"""Virtual seconds under faults after which every kind of fault must have landed at least once."""

HEALTH = HealthCheckConfig(heartbeat_interval_secs=0.3, suspect_after_secs=0.8, offline_after_secs=1.5)


def check_seconds(seconds: float) -> None:
    """Refuse a length that a run cannot have."""
    if not 0 < seconds < math.inf:
        raise InvalidConfig(f"seconds={seconds!r} is no time above 0", field="seconds")


def quiet_seconds(seconds: float) -> float:
    """Return how long the end of a run is without faults and work, so that its recovery can be judged."""
    return min(7.0, seconds / 3)


def fuzzed(
    seed: int,
    *,
    masters: int | None = None,
    seconds: float = 30.0,
    nemesis: str = "all",
    workers: int | None = None,
    judged: bool = False,
) -> Simulation:
    """Make the cluster that a seed draws, run it under faults and work, and give it as it is at the end.

    Parameters
    ----------
    seed : int
        Fixes everything.
    masters : int, optional
        How many; by default 3 or 5, as the seed draws.
    seconds : float
        Virtual length of the run. The last third of it, but no more than 7 s, is without faults.
    nemesis : str
        What breaks: kinds of fault with commas between them, `all`, or `none`.
    workers : int, optional
        How many; by default 0 to 3, as the seed draws.
    judged : bool
        Raise where a promise is broken, and do not go on from there.

    Examples
    --------
    >>> fuzzed(7, seconds=10).check()
    <Verdict ok: simulation>
    """
    check_seconds(seconds)
    rng = random.Random(f"{seed}/fuzz")
    until = seconds - quiet_seconds(seconds)
    drawn = _settings(rng)
    # Drawn even where they are given, so that everything else stays as it was.
    chosen = rng.choice((3, 5)), rng.choice((0, 1, 2, 3))
    count = chosen[0] if masters is None else masters
    helpers = chosen[1] if workers is None else workers
    sim = Simulation(masters=count, workers=helpers, seed=seed, health=HEALTH, judged=judged, **drawn)
    sim.origin = (
        f"from agentflow.labs.fuzzing import fuzzed; sim = fuzzed({seed}, masters={count}, "
        f"seconds={seconds!r}, nemesis={nemesis!r}, workers={helpers})"
    )
    sim.load(_keys(rng, until))
    if rng.random() < 0.3:
        sim.load(_keys(rng, until))
    if helpers:
        sim.load(WorkflowLoad(until=until, failing=rng.choice((0.0, 0.1, 0.5))))
    if rng.random() < 0.5 and drawn["config"].check_quorum:
        pace = rng.choice((0.3, 1.0))
        sim.load(MembershipLoad(every=(0.3 * pace, 2.0 * pace), until=until))
    if nemesis != "none":
        pace = rng.choice((0.5, 1.0, 2.0))
        kinds = Nemesis(*(kind.strip() for kind in nemesis.split(",") if kind.strip())).kinds
        if drawn["config"].lease_reads:
            # A lease is promised for clocks that differ by no more than the stated drift.
            kinds = tuple(kind for kind in kinds if kind != "skew") or ("crash",)
        sim.nemesis(Nemesis(*kinds, every=(0.3 * pace, 1.6 * pace), seconds=(0.2, 4.0)), until=until)
    return sim.run_to(seconds)


def _settings(rng: random.Random) -> dict[str, Any]:
    """Draw what a cluster is like."""
    latency = rng.choice(((1.0, 10.0), (0.0, 2.0), (5.0, 40.0), (1.0, 1.0)))
    network = Network(
        latency_ms=latency,
        loss=rng.choice((0.0, 0.0, 0.01, 0.05)),
        duplicate=rng.choice((0.0, 0.0, 0.05)),
        reorder=rng.choice((0.0, 0.0, 0.1)),
    )
    config: dict[str, Any] = {"pre_vote": rng.random() < 0.8, "check_quorum": rng.random() < 0.8}
    if config["check_quorum"] and rng.random() < 0.3:
        config["lease_reads"] = True
    if rng.random() < 0.3:
        config |= {
            "max_size_per_message": rng.choice((600, 2_000)),
            "max_inflight_messages": rng.choice((2, 4)),
        }
    if rng.random() < 0.2:
        config["max_uncommitted_bytes"] = rng.choice((400, 4_000))
    if rng.random() < 0.2:
        config["max_committed_bytes_per_ready"] = rng.choice((200, 2_000))
    if rng.random() < 0.2:
        config["apply_before_durable"] = True
    return {
        "network": network,
        "config": RaftConfig.fast(**config),
        "disk_ms": rng.choice((0.0, (0.0, 3.0), (1.0, 20.0))),
        "compact_after": rng.choice((None, 10, 40, 200)),
        "codec_check": rng.random() < 0.1,
    }


def _keys(rng: random.Random, until: float) -> KeyValueLoad:
    mix = rng.choice(((0.4, 0.3, 0.3), (1.0, 0.0, 0.0), (0.2, 0.8, 0.0), (0.1, 0.2, 0.7)))
    every = rng.choice(((0.0, 0.3), (0.0, 0.05), (0.2, 1.0)))
    return KeyValueLoad(rng.randint(1, 4), rng.randint(1, 4), every=every, mix=mix, until=until)


class Fuzz(msgspec.Struct, frozen=True):
    """What all seeds of a fuzz have in common.

    Parameters
    ----------
    masters, seconds, nemesis
        As for `fuzzed`.
    """

    masters: int | None = None
    seconds: float = 30.0
    nemesis: str = "all"

    @property
    def scenario(self) -> partial[Simulation]:
        """The scenario, for `sweep` and `trials`."""
        return partial(fuzzed, masters=self.masters, seconds=self.seconds, nemesis=self.nemesis, judged=True)

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of fault it chooses from."""
        if self.nemesis == "none":
            return ()
        return Nemesis(*(kind.strip() for kind in self.nemesis.split(",") if kind.strip())).kinds

    def replay(self, seed: int) -> str:
        """Give the command that runs one seed again."""
        masters = f" --masters {self.masters}" if self.masters else ""
        return (
            f"agentflow fuzz --seeds {seed}:{seed + 1}{masters} --seconds {self.seconds:g} "
            f"--nemesis {self.nemesis}"
        )


class Totals(msgspec.Struct):
    """What came of all seeds together."""

    seeds: int = 0
    virtual_s: float = 0.0
    elections: int = 0
    messages: int = 0
    delivered: int = 0
    commits: int = 0
    operations: int = 0
    tasks: int = 0
    events: int = 0
    unknown: list[int] = msgspec.field(default_factory=list)
    landed: dict[str, int] = msgspec.field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    violations: list[Trial] = msgspec.field(default_factory=list)

    def add(self, trial: Trial) -> None:
        """Count one more seed.

        Examples
        --------
        >>> totals = Totals()
        >>> totals.add(Trial(7, commits=40, landed={"crash": 2}))
        >>> totals.commits, totals.landed["crash"]
        (40, 2)
        """
        self.seeds += 1
        self.virtual_s += trial.virtual_s
        for field in ("elections", "messages", "delivered", "commits", "operations", "tasks", "events"):
            setattr(self, field, getattr(self, field) + getattr(trial, field))
        for kind, count in trial.landed.items():
            self.landed[kind] += count
        if trial.failed:
            self.violations.append(trial)
        elif trial.verdict == "unknown":
            self.unknown.append(trial.seed)

    def missed(self, kinds: Iterable[str]) -> list[str]:
        """Say which kinds of fault should have had an effect by now and had none.

        Where there was too little time for each, one fault of any kind is enough.

        Examples
        --------
        >>> Totals(virtual_s=30.0).missed(["crash", "loss"])
        ['crash', 'loss']
        >>> Totals(virtual_s=30.0, landed={"crash": 1, "loss": 0}).missed(["crash", "loss"])
        []
        """
        kinds = list(kinds)
        absent = [kind for kind in kinds if not self.landed.get(kind)]
        return absent if self.virtual_s >= ENOUGH_SECONDS or len(absent) == len(kinds) else []
