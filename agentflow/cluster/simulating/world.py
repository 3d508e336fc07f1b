"""Everything of a simulation that has a state in virtual time.

Law: a world is plain data and functions of it. It can be made anew from its specification, and it can be
copied; the copy goes on like the original and shares nothing with it that either could change.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from agentflow.check.history import Failed, Invoked, Returned, Uncertain
from agentflow.cluster.agents.agent import AgentCommunication
from agentflow.cluster.agents.call import Call
from agentflow.cluster.agents.virtual import VirtualBus
from agentflow.cluster.calls import Workbench
from agentflow.cluster.deployment import Deployment, WorkerSpec
from agentflow.cluster.facade import CLIENT
from agentflow.cluster.launch import VirtualBench
from agentflow.cluster.simulating.journal import Journal, acting, noted, running
from agentflow.core.callbacks import callbacks
from agentflow.core.control.commands import ClientCommand, Completion, KeyCas, KeyGet, KeySet
from agentflow.core.machine import Machine
from agentflow.core.nodes.client import Command, Watch
from agentflow.core.nodes.messages import Order
from agentflow.core.raft import RaftConfig
from agentflow.core.scheduling import HealthCheckConfig
from agentflow.errors import InvalidConfig, Refused
from agentflow.ids import AttemptId, NodeId
from agentflow.objects.memory import MemoryStore
from agentflow.runtime.host import Host
from agentflow.runtime.injector import Injector, faulty
from agentflow.runtime.nemesis import Fault, Nemesis
from agentflow.runtime.ports import Disk, Factory, StableDisk
from agentflow.runtime.seats import Seat
from agentflow.runtime.trace import Trace
from agentflow.runtime.virtual import VirtualDriver
from agentflow.storage.faulty import Fault as DiskFault
from agentflow.storage.faulty import FaultyDisk
from agentflow.storage.memory import MemoryDisk
from agentflow.transport.codec import MessageCodec
from agentflow.transport.memory import Network

if TYPE_CHECKING:
    from agentflow.cluster.simulating.base import Base
    from agentflow.cluster.simulating.workloads import Workload


VIRTUAL_EPOCH = 946_684_800.0
"""Virtual time begins at 2000-01-01 00:00 UTC, in every process."""

DEFAULT_NETWORK = Network(latency_ms=(1, 10))
DEFAULT_CONFIG = RaftConfig()
JUDGED_STEPS = 64
"""After how many steps a judged run is looked at again."""

DEFAULT_HEALTH = HealthCheckConfig(
    heartbeat_interval_secs=1.0, suspect_after_secs=3.0, offline_after_secs=5.0
)


@dataclasses.dataclass(frozen=True)
class Spec:
    """What a simulation was made from."""

    masters: int
    workers: tuple[WorkerSpec, ...]
    seed: int
    network: Network
    config: RaftConfig
    health: HealthCheckConfig
    disk_ms: float | tuple[float, float]
    compact_after: int | None
    codec_check: bool
    nodes: Mapping[NodeId, Callable[[], Any]]


class SimulatedHost(Host):
    """A host that notes what is done to it from outside, and takes the power from the disks of the dead."""

    journal: Journal

    crash = noted("host", Host.crash)
    restart = noted("host", Host.restart)
    pause = noted("host", Host.pause)
    resume = noted("host", Host.resume)
    skew = noted("host", Host.skew)
    remove = noted("host", Host.remove)
    note_wires = noted("host", Host.note_wires)

    def _stop(self, seat: Seat, kind: str, reason: str = "") -> None:
        super()._stop(seat, kind, reason)
        disk = seat.disk.disk if isinstance(seat.disk, StableDisk) else seat.disk
        if isinstance(disk, FaultyDisk):
            disk.crash()


class SimulatedDriver(VirtualDriver):
    """A driver that notes what is done to it from outside."""

    journal: Journal
    world: World

    slow_disk = noted("driver", VirtualDriver.slow_disk)
    hold = noted("driver", VirtualDriver.hold)
    release = noted("driver", VirtualDriver.release)

    def _run(self, end: float, limit: int = 1 << 62) -> bool:
        journal = self.journal
        if not journal.quiet:
            journal.look()
        if self.world.unborn and self.steps < limit:
            self.world.give_birth()
        journal.quiet += 1
        outside = running.set(self.world)
        try:
            sim = self.world.sim
            if sim is None or not sim.judged:
                return super()._run(end, limit)
            before = self.steps
            while True:
                stop = min(limit, self.steps + JUDGED_STEPS)
                super()._run(end, stop)
                sim.judge_on()
                if self.steps < stop or stop == limit:
                    return self.steps > before
        finally:
            running.reset(outside)
            journal.quiet -= 1
            journal.seen()

    def go(self, end: float, limit: int) -> bool:
        """Let things happen until `end`, and until there were `limit` of them."""
        return self._run(end, limit)


class SimulatedDeployment(Deployment):
    """Masters, workers and clients; what is added from outside is noted."""

    journal: Journal

    add_worker = noted("deployment", Deployment.add_worker)
    remove_worker = noted("deployment", Deployment.remove_worker)
    add_client = noted("deployment", Deployment.add_client)
    transfer = noted("deployment", Deployment.transfer)


class World:
    """A host, what moves it, who lives on it, and what plagues it.

    Attributes
    ----------
    sim : Simulation or None
        Whose world it is.
    acted : int
        How many of the journal's acts it has seen, while it is being brought to an instant.
    faults : list of Fault
        All that were ever planned.
    """

    def __init__(
        self,
        spec: Spec,
        journal: Journal,
        *,
        network: Network | None = None,
        bench: Workbench | None = None,
    ) -> None:
        self.spec = spec
        self.sim: Base | None = None
        self.journal = journal
        self.acted = 0
        self.outcomes: dict[tuple[NodeId, AttemptId, int], Completion] = {}
        self.remembers = False
        self.unborn: list[NodeId] = []
        self.nodes: dict[NodeId, Callable[[], Any]] = {}
        self.bus: VirtualBus | None = None
        self.faults: list[Fault] = []
        self.only_faults: frozenset[int] | None = None
        self.healed: list[float] = []
        self.loads: list[Workload] = []
        self._asked = 0
        self._streams = 0
        host = SimulatedHost(
            trace=Trace(limit=None),
            network=network or spec.network.copy(),
            codec=MessageCodec() if spec.codec_check else None,
        )
        host.journal = journal
        self.host = host
        self.driver = SimulatedDriver(host, spec.seed, disk_ms=spec.disk_ms)
        self.driver.journal = journal
        self.driver.world = self
        self.work_at(bench or Workbench(MemoryStore()))
        self.deployment = SimulatedDeployment(
            host,
            raft=spec.config,
            health=spec.health,
            masters=spec.masters,
            seed=spec.seed,
            compact_after=spec.compact_after,
        )
        self.deployment.journal = journal
        self.injector = Injector(self.driver, self.deployment.leader, self.groups, f"{spec.seed}")
        if spec.masters:
            self.deployment.add_client(CLIENT)
        for worker in spec.workers:
            self.deployment.add_worker(worker)
        for node_id, make in spec.nodes.items():
            self.add_node(node_id, make)

    @property
    def network(self) -> Network:
        """The wires."""
        network = self.host.network
        assert isinstance(network, Network)
        return network

    @property
    def trace(self) -> Trace:
        """Everything that happened."""
        return self.host.trace

    def work_at(self, bench: Workbench) -> None:
        """Have tasks take their calls from a bench, and leave their values there."""
        self.bench = bench
        self._orders = VirtualBench(bench, self.driver)
        self.driver.perform = self.perform

    # --- copies -------------------------------------------------------------------------------------------

    def copy(self) -> World:
        """Return a world of its own in the same state. It belongs to no simulation yet."""
        host = self.host
        memo: dict[int, Any] = {
            id(each): each
            for each in (self.spec, self.journal, self.bench, self.outcomes, self.sim, host.codec)
        }
        for node_id in host.nodes:
            held = host.disk(node_id)
            disk = held.disk if isinstance(held, StableDisk) else held
            if isinstance(disk, MemoryDisk | FaultyDisk):
                memo[id(disk)] = disk.copy()
        twin = copy.deepcopy(self, memo)
        twin.sim = None
        return twin

    def join(self, journal: Journal) -> None:
        """Note from now on in this journal what is done."""
        self.journal = self.host.journal = self.driver.journal = self.deployment.journal = journal

    # --- nodes of one's own -------------------------------------------------------------------------------

    @acting
    def add_node(self, node_id: NodeId, make: Callable[[], Any]) -> None:
        """Add a node with callbacks; those added before time moves begin together."""
        self._check_name(node_id)
        self.nodes[node_id] = make
        self.host.add(node_id, self._make_node, StableDisk(MemoryDisk(node_id)), start=False)
        if self.driver.now == 0.0 and not self.driver.steps:
            self.unborn.append(node_id)
        else:
            self.host.restart(node_id)

    @acting
    def add_machine(self, node_id: NodeId, factory: Factory, disk: Disk | None) -> None:
        """Add a node that is a machine."""
        self._check_name(node_id)
        self.host.add(node_id, factory, disk)

    def _check_name(self, node_id: NodeId) -> None:
        if node_id in self.host.nodes:
            raise InvalidConfig(f"there is a node {node_id!r} already; choose another name", field="node_id")

    def _make_node(self, node_id: NodeId, stored: Any, incarnation: int, now: float) -> Machine:
        factory = callbacks(self.nodes[node_id], tuple(self.nodes), self.spec.seed)
        return factory(node_id, stored, incarnation, now)

    def give_birth(self) -> None:
        """Start the nodes that waited for each other."""
        waiting, self.unborn = self.unborn, []
        self.journal.quiet += 1
        try:
            for node_id in waiting:
                if node_id in self.host.nodes:
                    self.host.restart(node_id)
        finally:
            self.journal.quiet -= 1

    def groups(self) -> Sequence[Sequence[NodeId]]:
        """Masters, workers, nodes of one's own, agents."""
        own = tuple(self.nodes)
        return (self.deployment.master_ids, tuple(self.deployment.worker_specs), own, self.agents)

    # --- agents -------------------------------------------------------------------------------------------

    @property
    def agents(self) -> tuple[NodeId, ...]:
        """The names of the agents that are on the bus."""
        return () if self.bus is None else self.bus.directory.agents

    def lay_bus(self) -> VirtualBus:
        """Return what carries the agents, laid when the first of them comes."""
        if self.bus is None:
            self.bus = VirtualBus(self, VIRTUAL_EPOCH)
        return self.bus

    @acting
    def add_agent(self, name: NodeId, settings: Mapping[str, Any]) -> AgentCommunication:
        """Add an agent."""
        self.give_birth()
        return AgentCommunication(name, bus=self.lay_bus(), **settings)

    def speak(self, name: NodeId, method: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Do again what was done to an agent from outside; nobody waits for what comes of it."""
        assert self.bus is not None
        try:
            call = getattr(self.bus.agents[name], method)(*args, **kwargs)
            if isinstance(call, Call):
                call.ignore()
        finally:
            self.driver.settle()

    # --- requests -----------------------------------------------------------------------------------------

    @acting
    def command(
        self,
        client: NodeId,
        command: ClientCommand,
        timeout: float,
        *,
        callback: Callable[[Any, bool], None] | None = None,
    ) -> None:
        """Have a client give a command; what it asks of keys is told to the trace for the judges."""
        asked = _asked(command)
        if asked is not None:
            self._asked += 1
            function, key, argument = asked
            self.trace.append(
                self.driver.now,
                client,
                "invoke",
                payload=Invoked(
                    op=self._asked, function=function, argument=argument, key=key, process=client
                ),
            )
        told = functools.partial(self._told, client, self._asked if asked else 0, callback)
        self.host.ask(client, Command(command, timeout), told)

    def _told(
        self,
        client: NodeId,
        op: int,
        callback: Callable[[Any, bool], None] | None,
        result: Any,
        final: bool,
    ) -> None:
        if op:
            payload: Any
            if isinstance(result, Refused):
                kind, payload = "fail", Failed(op=op, error=type(result).__name__, process=client)
            elif isinstance(result, BaseException):
                kind, payload = "info", Uncertain(op=op, error=type(result).__name__, process=client)
            else:
                kind, payload = "return", Returned(op=op, result=result, process=client)
            self.trace.append(self.driver.now, client, kind, payload=payload)
        if callback is not None:
            callback(result, final)

    @acting
    def watch(self, client: NodeId, request: Watch) -> None:
        """Have a client follow a run."""
        self.host.ask(client, request, functools.partial(self._progress, request.run))

    def _progress(self, run: str, message: Any, final: bool) -> None:
        if self.sim is not None:
            self.sim.hear(run, message, final)

    @acting
    def ask(
        self, node_id: NodeId, request: Any, *, callback: Callable[[Any, bool], None] | None = None
    ) -> None:
        """Ask a node something as its own user."""
        self.give_birth()
        self.host.ask(node_id, request, callback or _nobody)

    # --- one thing at a time ------------------------------------------------------------------------------

    @acting
    def deliver(self, number: int) -> None:
        """Let a message arrive now."""
        sent = self.driver.take(number)
        if sent is None:
            raise Refused(f"no message {number} is under way; pending() lists those that are")
        self.host.deliver(sent)
        self.driver.settle()

    @acting
    def drop(self, number: int) -> None:
        """Lose a message."""
        sent = self.driver.take(number)
        if sent is None:
            raise Refused(f"no message {number} is under way; pending() lists those that are")
        self.host.lose(sent, "by hand")

    @acting
    def timeout(self, node_id: NodeId, name: str = "") -> None:
        """Let what a node waits for be due now."""
        from agentflow.cluster.simulating.wires import expire

        self.give_birth()
        machine = self.host.machine(node_id)
        if machine is None or self.host.state(node_id) != "up":
            raise Refused(f"{node_id} is {self.host.state(node_id)}, so no timer of it runs")
        expire(machine, self.driver.now, name)
        self.host.fault("timeout", name or None, node_id)
        self.host.wake(node_id)
        self.driver.settle()

    @acting
    def at(self, time: float, fn: Callable[[Any], Any]) -> None:
        """Have a function called with the simulation at an instant."""
        self.driver.at(time, self._call, fn)

    def _call(self, fn: Callable[[Any], Any]) -> None:
        fn(self.sim)

    # --- faults and work ----------------------------------------------------------------------------------

    @acting
    def inject(self, faults: list[Fault]) -> None:
        """Have faults strike."""
        first = len(self.faults)
        self.faults += faults
        only = self.only_faults
        self.injector.inject(
            fault for number, fault in enumerate(faults, first) if only is None or number in only
        )

    @acting
    def nemesis(self, nemesis: Nemesis, until: float) -> None:
        """Have a nemesis strike from now until an instant, at which everything is mended."""
        self._streams += 1
        plan = nemesis.plan(
            f"{self.spec.seed}/{self._streams}",
            self.deployment.master_ids or (*self.nodes, *self.agents),
            tuple(self.deployment.worker_specs),
            start=self.driver.now,
            until=until,
        )
        self.inject(plan)
        if until < math.inf:
            self.driver.at(until, self.heal)

    @acting
    def mend(self) -> None:
        """End every planned fault that is in force."""
        self.heal()

    def heal(self) -> None:
        """End every planned fault that is in force, and say so."""
        self.injector.heal()
        self.healed.append(self.driver.now)
        self.host.trace.append(self.driver.now, "", "healed")

    @acting
    def fail_disk(self, node_id: NodeId, fault: DiskFault) -> None:
        """Let the next write of a node meet a fault."""
        self._streams += 1
        faulty(self.host, node_id, f"{self.spec.seed}/disk/{self._streams}").inject(fault)
        self.host.fault("fail_disk", str(fault), node_id)

    @acting
    def load(self, load: Workload) -> None:
        """Put work on the cluster."""
        self._streams += 1
        twin = copy.deepcopy(load)
        self.loads.append(twin)
        twin.begin(self, self.driver.stream(f"load/{self._streams}"))

    @acting
    def reseed(self, seed: int) -> None:
        """Let the wires and disks have other luck from now on."""
        self.driver.reseed(seed)
        self.host.fault("reseed", seed)

    # --- tasks --------------------------------------------------------------------------------------------

    def perform(self, node_id: NodeId, attempt: AttemptId, order: Order) -> Completion:
        """Do a task, or remember how it went when this run went through here before.

        A user's function may print, write files or be random: going back must not do it again.
        """
        key = (node_id, attempt, self.driver.steps)
        known = self.outcomes.get(key)
        if known is None or not self.remembers:
            known = self.outcomes[key] = self._orders.perform(node_id, attempt, order)
        return known


def _asked(command: ClientCommand) -> tuple[str, str, Any] | None:
    """Say a command on a key in the words of the model that judges it."""
    if isinstance(command, KeySet):
        return "set", command.key, command.value
    if isinstance(command, KeyGet):
        return "get", command.key, None
    if isinstance(command, KeyCas):
        return "cas", command.key, (command.expected, command.value)
    return None


def _nobody(result: Any, final: bool) -> None:
    """Take an answer that nobody waits for."""
