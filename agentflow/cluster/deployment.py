"""The nodes of a cluster, whichever clock moves them: what `Cluster` and `Simulation` have in common.

Law: nothing here waits. It adds nodes to a host and reads what they hold; the drivers move time.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from agentflow.core.control.commands import RegisterWorker
from agentflow.core.control.plane import Plane
from agentflow.core.nodes.client import Client
from agentflow.core.nodes.master import COMPACT_AFTER, Master, MasterConfig
from agentflow.core.nodes.worker import Worker
from agentflow.core.raft import ConfigChange, RaftConfig, Stored, Transfer
from agentflow.core.raft.messages import ConfState
from agentflow.core.scheduling import HealthCheckConfig
from agentflow.errors import InvalidConfig, NoSuchNode, Refused
from agentflow.ids import NodeId
from agentflow.runtime.host import Host
from agentflow.storage.memory import MemoryDisk

EPOCHS_PER_LIFE = 1 << 20
"""A worker told to start over within one life counts on from its incarnation times this."""


@dataclasses.dataclass(frozen=True)
class WorkerSpec:
    """What a worker offers.

    Parameters
    ----------
    group : str
        The group it belongs to.
    max_tasks : int
        Attempts it runs at once.
    cpu_cores : float
        Cores it counts its load against.
    gpu_count : int
        GPUs it offers, as the resource `gpu`.
    resources : mapping
        Further resources, by name.
    attributes : mapping
        What `requires=` may ask for.
    executor : optional
        What runs its tasks, if not what runs those of the cluster.
    """

    group: str = "default"
    max_tasks: int = 4
    cpu_cores: float = 4.0
    gpu_count: int = 0
    resources: Mapping[str, float] = dataclasses.field(default_factory=dict)
    attributes: Mapping[str, str | float | bool] = dataclasses.field(default_factory=dict)
    executor: Any = None

    def __post_init__(self) -> None:
        if not isinstance(self.group, str) or not self.group:
            raise InvalidConfig(f"a worker's group is a name, not {self.group!r}", field="group")
        if not isinstance(self.max_tasks, int) or isinstance(self.max_tasks, bool) or self.max_tasks < 1:
            raise InvalidConfig(
                f"max_tasks={self.max_tasks!r}: a worker runs at least one task at once", field="max_tasks"
            )
        if not isinstance(self.cpu_cores, int | float) or not self.cpu_cores > 0:
            raise InvalidConfig(f"cpu_cores={self.cpu_cores!r} is not a positive number", field="cpu_cores")
        if not isinstance(self.gpu_count, int) or self.gpu_count < 0:
            raise InvalidConfig(f"gpu_count={self.gpu_count!r} is not a count", field="gpu_count")
        for name, amount in self.resources.items():
            if not isinstance(amount, int | float) or not amount >= 0:
                raise InvalidConfig(
                    f"resource {name!r} is {amount!r}; it cannot be negative", field="resources"
                )

    def registration(self, worker_id: NodeId, epoch: int, ahead: int = 0) -> RegisterWorker:
        """The command by which a worker of this kind registers."""
        resources = dict(self.resources)
        if self.gpu_count:
            resources["gpu"] = float(self.gpu_count)
        return RegisterWorker(
            worker=worker_id,
            epoch=epoch,
            group=self.group,
            slots=self.max_tasks,
            cpu_cores=float(self.cpu_cores),
            resources=tuple(sorted((name, float(amount)) for name, amount in resources.items())),
            attributes=tuple(sorted(self.attributes.items())),
            ahead=ahead,
        )


class Deployment:
    """Masters, workers and clients on one host.

    Parameters
    ----------
    host : Host
        Where they live.
    raft : RaftConfig
        Settings of the masters; `peers` is filled in.
    health : HealthCheckConfig
        How often workers beat, and when silence means death.
    masters : int
        How many.
    seed : int
        Fixes every election time-out.
    compact_after : int, optional
        Applied entries after which a master saves its tables and drops the log before them.
    disk : callable, optional
        Makes a master's disk; by default one in memory that outlives a kill.
    ahead : int
        How many times the tasks that it runs at once a worker takes ahead, while they are brief.
    """

    def __init__(
        self,
        host: Host,
        *,
        raft: RaftConfig,
        health: HealthCheckConfig,
        masters: int,
        seed: int,
        compact_after: int | None = None,
        disk: Callable[[NodeId], Any] = MemoryDisk,
        ahead: int = 0,
    ) -> None:
        self.ahead = ahead
        self.host = host
        self.health = health
        self.seed = seed
        self.master_ids = tuple(f"master-{i + 1}" for i in range(masters))
        self.worker_specs: dict[NodeId, WorkerSpec] = {}
        self._workers_made = 0
        self._masters_made = masters
        self._disk = disk
        self._clients: dict[NodeId, None] = {}
        self.raft = dataclasses.replace(raft, peers=self.master_ids)
        self.config = MasterConfig(
            raft=self.raft,
            offline_after=health.offline_after_secs,
            reorder_after=2 * health.heartbeat_interval_secs,
            compact_after=compact_after or COMPACT_AFTER,
        )
        for node_id in self.master_ids:
            host.add(node_id, self._make_master, disk(node_id))

    # --- making nodes -------------------------------------------------------------------------------------

    def _make_master(self, node_id: NodeId, stored: Stored | None, incarnation: int, now: float) -> Master:
        seed = self.seed * 1_000_003 + incarnation
        config = self.config
        if node_id not in self.raft.peers:
            # It learns from the log that it is a member; until then it is none.
            config = msgspec.structs.replace(config, raft=dataclasses.replace(self.raft, join=True))
        return Master(node_id, config, stored=stored or Stored(), seed=seed, now=now)

    def add_master(self) -> NodeId:
        """Start a master that is no member yet; give its id."""
        self._masters_made += 1
        while (node_id := f"master-{self._masters_made}") in self.host.nodes:
            self._masters_made += 1
        # Known to all before it votes: it may lead from then on.
        self._know((*self.master_ids, node_id))
        self.host.add(node_id, self._make_master, self._disk(node_id))
        return node_id

    def remove_master(self, node_id: NodeId) -> None:
        """Take a master that is no member any more off the host."""
        self._know(tuple(each for each in self.master_ids if each != node_id))
        self.host.remove(node_id)

    def _know(self, masters: tuple[NodeId, ...]) -> None:
        """Tell workers and clients who the masters are."""
        self.master_ids = masters
        for node_id in (*self.worker_specs, *self._clients):
            machine = self.host.machine(node_id)
            if isinstance(machine, Worker | Client):
                machine.masters = masters

    def propose(self, change: ConfigChange) -> None:
        """Ask whoever leads to change the membership, if somebody does."""
        leader = self.leader()
        if leader is not None:
            self.host.ask(leader, change, _nobody)

    def membership(self) -> ConfState | None:
        """Who the members are, as the leader has it in force; None without one."""
        leader = self.leader()
        machine = None if leader is None else self.master(leader)
        return None if machine is None else machine.raft.status().conf

    def add_worker(self, spec: WorkerSpec) -> NodeId:
        """Start a worker; give its id."""
        self._workers_made += 1
        while (worker_id := f"worker-{self._workers_made}") in self.host.nodes:
            self._workers_made += 1  # a client has that name
        self.worker_specs[worker_id] = spec
        self.host.add(worker_id, self._make_worker)
        return worker_id

    def _make_worker(self, node_id: NodeId, stored: Any, incarnation: int, now: float) -> Worker:
        epoch = incarnation * EPOCHS_PER_LIFE
        spec = self.worker_specs[node_id]
        registration = spec.registration(
            node_id, epoch, self.ahead * spec.max_tasks if spec.executor is None else 0
        )
        return Worker(registration, self.master_ids, self.health.heartbeat_interval_secs, now)

    def remove_worker(self, worker_id: NodeId) -> None:
        """Take a worker off the host."""
        del self.worker_specs[worker_id]
        self.host.remove(worker_id)

    def add_client(self, client_id: NodeId) -> None:
        """Start a client, unless one of that name is there."""
        if client_id in self._clients:
            return
        if client_id in self.host.nodes:
            raise InvalidConfig(
                f"{client_id!r} is a node already; give the client another name", field="name"
            )
        self._clients[client_id] = None
        self.host.add(client_id, self._make_client)

    def _make_client(self, node_id: NodeId, stored: Any, incarnation: int, now: float) -> Client:
        # Several masters are asked before a caller's patience ends: the first may be cut off.
        retry = max(0.05, min(self.raft.election_timeout_ms, self.raft.replication_timeout_ms / 3) / 1000)
        return Client(node_id, self.master_ids, retry, first=(incarnation << 32) + 1)

    # --- reading nodes ------------------------------------------------------------------------------------

    def master(self, node_id: NodeId) -> Master | None:
        """The master's machine; None while it is down."""
        machine = self.host.machine(node_id)
        assert machine is None or isinstance(machine, Master)
        return machine

    def leader(self) -> NodeId | None:
        """The master that leads the highest term of those up, once it serves; None without one."""
        leading = [
            machine
            for node_id in self.master_ids
            if (machine := self.master(node_id)) is not None and machine.is_serving
        ]
        return max(leading, key=lambda machine: machine.raft.term).id if leading else None

    def plane(self) -> Plane:
        """The control plane to read from: the leader's, else the one that has applied most."""
        leader = self.leader()
        if leader is not None and (machine := self.master(leader)) is not None:
            return machine.plane
        up = [machine for node_id in self.master_ids if (machine := self.master(node_id)) is not None]
        return max(up, key=lambda machine: machine.raft.applied).plane if up else Plane()

    def transfer(self, to: NodeId) -> None:
        """Ask whoever leads to hand leadership on."""
        leader = self.leader()
        if leader is None:
            raise Refused("nobody leads, so there is no leadership to hand on")
        self.host.ask(leader, Transfer(to), _nobody)

    def check_node(self, node_id: NodeId) -> NodeId:
        """Refuse an id that names no node of the host."""
        if node_id not in self.host.nodes:
            known = ", ".join(self.host.nodes)
            raise NoSuchNode(f"there is no node {node_id!r}; there are: {known}", node=node_id)
        return node_id


def _nobody(answer: object, final: bool) -> None:
    """Nobody waits for this answer: what came of it is seen in who leads."""


def default_cores() -> float:
    """Cores of this machine, for workers that are threads of one process."""
    return float(os.cpu_count() or 1)
