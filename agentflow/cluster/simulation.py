"""The same cluster in virtual time: what takes a minute takes a moment, and one seed is one history."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from agentflow.cluster.deployment import WorkerSpec
from agentflow.cluster.settings import checked_masters, checked_seed, worker_specs
from agentflow.cluster.simulating.breaking import Breaking
from agentflow.cluster.simulating.past import Past
from agentflow.cluster.simulating.wires import ByHand
from agentflow.cluster.simulating.world import (
    DEFAULT_CONFIG,
    DEFAULT_HEALTH,
    DEFAULT_NETWORK,
    Spec,
    World,
)
from agentflow.core.raft import RaftConfig
from agentflow.core.scheduling import HealthCheckConfig
from agentflow.errors import InvalidConfig
from agentflow.ids import NodeId
from agentflow.transport.memory import Network


class Simulation(ByHand, Breaking, Past):
    """A cluster in virtual time, fixed by a seed.

    Parameters
    ----------
    masters : int, optional
        How many masters; by default 5, or none where there are nodes of your own.
    workers : int or mapping
        How many workers; or how many per group.
    seed : int
        Fixes every chance: latencies, losses, election time-outs.
    network : Network, optional
        The wires; by default each message takes 1 to 10 ms.
    config : RaftConfig, optional
        Settings of the masters; by default the specification's (elections within 5 s).
    health : HealthCheckConfig, optional
        How often workers beat, and when silence means death.
    disk_ms : float or (float, float)
        How long a write takes to become durable.
    compact_after : int, optional
        Entries after which a master saves its tables and drops the log before them; who is further behind
        gets a snapshot.
    codec_check : bool
        Send every message through its bytes and back.
    nodes : mapping, optional
        Nodes of your own, by name: classes with callbacks; see `add_node`.
    judged : bool
        Judge the run while it goes on, and raise `InvariantViolated` where a promise is broken.

    Examples
    --------
    >>> sim = Simulation(masters=3, workers=2, seed=7)
    >>> sim.run_until(lambda s: s.leader)
    True
    >>> run = sim.submit(sum, [1, 2, 3])
    >>> run.result()
    6
    >>> sim.now < 10
    True
    """

    def __init__(
        self,
        masters: int | None = None,
        workers: int | dict[str, int] = 0,
        seed: int = 0,
        *,
        network: Network | None = None,
        config: RaftConfig | None = None,
        health: HealthCheckConfig | None = None,
        disk_ms: float | tuple[float, float] = 0.0,
        compact_after: int | None = None,
        codec_check: bool = False,
        nodes: Mapping[NodeId, Callable[[], Any]] | None = None,
        judged: bool = False,
    ) -> None:
        own = dict(nodes or {})
        if masters is None:
            masters = 0 if own else 5
        if masters != 0 or isinstance(masters, bool):
            checked_masters(masters)
        specs = worker_specs(workers)
        if specs and not masters:
            raise InvalidConfig(
                "workers need masters to tell them what to do; give masters=", field="masters"
            )
        if compact_after is not None and (
            not isinstance(compact_after, int) or isinstance(compact_after, bool) or compact_after < 1
        ):
            raise InvalidConfig(
                f"compact_after={compact_after!r} is no number of entries above 0", field="compact_after"
            )
        self._open(checked_seed(seed))
        network = network or DEFAULT_NETWORK.copy()
        spec = Spec(
            masters=masters,
            workers=tuple(specs),
            seed=seed,
            network=network.copy(),
            config=config or DEFAULT_CONFIG,
            health=health or DEFAULT_HEALTH,
            disk_ms=disk_ms,
            compact_after=compact_after,
            codec_check=codec_check,
            nodes=own,
        )
        self._move_in(World(spec, self._journal, network=network))
        self.judged = judged

    def __repr__(self) -> str:
        runs = f" {len(self._runs)} runs" if self._runs else ""
        leader = f" leader={self.leader}" if self._deployment.master_ids else ""
        return f"<Simulation seed={self.seed} t={self.now:.3f} s{leader}{runs}>"


__all__ = ["Simulation", "WorkerSpec"]
