"""What makes faults happen to a host in virtual time, and ends them.

Law: several faults may be in force at once; the wires are always what the wires were before them, made
worse by each. A node comes back when nothing keeps it down any more.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Sequence

from agentflow.core.raft.messages import Stored
from agentflow.errors import InvalidConfig, Refused
from agentflow.ids import NodeId
from agentflow.runtime.host import Host
from agentflow.runtime.nemesis import LEADER, Fault
from agentflow.runtime.virtual import VirtualDriver
from agentflow.storage.faulty import Fault as DiskFault
from agentflow.storage.faulty import FaultyDisk
from agentflow.transport.memory import Network

__all__ = ["Injector"]

_DISK = (DiskFault.FAIL, DiskFault.FULL, DiskFault.TORN)
_DOWN = ("crash", "worker_crash", "fail_disk")
_WIRES = ("partition", "one_way", "loss", "delay", "duplicate", "reorder")


class Injector:
    """Strikes a host with faults.

    Parameters
    ----------
    driver : VirtualDriver
        Moves the host's time.
    leader : callable
        Says who leads; see `agentflow.runtime.nemesis.LEADER`.
    groups : callable
        Says which nodes are of one sort: masters, workers. A partition parts those of each sort that is on
        its side, and nobody else.
    disk_seed : str
        Fixes what is left of a torn write.
    """

    def __init__(
        self,
        driver: VirtualDriver,
        leader: Callable[[], NodeId | None],
        groups: Callable[[], Sequence[Sequence[NodeId]]],
        disk_seed: str = "",
    ) -> None:
        self._driver = driver
        self._leader = leader
        self._groups = groups
        self._seed = disk_seed
        self._number = 0
        self._active: dict[int, Fault] = {}
        self._ends: dict[int, tuple[NodeId, ...]] = {}
        self._wires: Network | None = None

    @property
    def _host(self) -> Host:
        return self._driver.host

    @property
    def active(self) -> list[Fault]:
        """The faults in force."""
        return list(self._active.values())

    def inject(self, faults: Iterable[Fault]) -> None:
        """Have faults strike at their times; those whose time is past strike now."""
        known = set(self._host.nodes) | {LEADER}
        plan = list(faults)
        for fault in plan:
            for node in fault.nodes:
                if node not in known:
                    raise InvalidConfig(
                        f"{fault.kind} strikes {node!r}, which is no node; there are: "
                        f"{', '.join(self._host.nodes)}",
                        field="nodes",
                    )
        for fault in plan:
            self._number += 1
            self._driver.at(fault.at, self._begin, self._number, fault)

    def heal(self) -> None:
        """End every fault in force now."""
        for number in list(self._active):
            self._end(number)

    # --- beginning and ending -----------------------------------------------------------------------------

    def _begin(self, number: int, fault: Fault) -> None:
        nodes = tuple(dict.fromkeys(self._named(fault.nodes)))
        if fault.kind in _WIRES:
            if fault.nodes and not nodes:
                return
        else:
            nodes = tuple(node for node in nodes if self._applies(fault.kind, node))
            if not nodes:
                return
        self._active[number] = fault
        self._ends[number] = nodes
        self._note(number, fault.kind, "begin", nodes)
        if fault.kind in _WIRES:
            self._rewire()
        else:
            for node in nodes:
                self._strike(fault, node)
        if fault.seconds < math.inf:
            self._driver.after(fault.seconds, self._end, number)

    def _end(self, number: int) -> None:
        fault = self._active.pop(number, None)
        if fault is None:
            return
        nodes = self._ends.pop(number)
        self._note(number, fault.kind, "end", nodes)
        if fault.kind in _WIRES:
            self._rewire()
            return
        for node in nodes:
            if node in self._host.nodes:
                self._mend(fault, node)

    def _note(self, number: int, kind: str, phase: str, nodes: tuple[NodeId, ...]) -> None:
        self._host.trace.append(
            self._driver.now, "", "nemesis", type=kind, payload=(number, phase, list(nodes))
        )

    def _named(self, nodes: Iterable[NodeId]) -> list[NodeId]:
        named = [self._leader() if node == LEADER else node for node in nodes]
        return [node for node in named if node is not None]

    def _applies(self, kind: str, node: NodeId) -> bool:
        if node not in self._host.nodes or self._host.state(node) != "up":
            return False
        return kind != "fail_disk" or self._host.disk(node) is not None

    # --- nodes --------------------------------------------------------------------------------------------

    def _strike(self, fault: Fault, node: NodeId) -> None:
        host, driver = self._host, self._driver
        if fault.kind in ("crash", "worker_crash"):
            host.crash(node, "nemesis")
        elif fault.kind == "pause":
            host.pause(node)
        elif fault.kind == "skew":
            host.skew(node, rate=fault.amount)
        elif fault.kind == "slow_disk":
            driver.slow_disk(node, fault.amount)
        elif fault.kind == "fail_disk":
            faulty(host, node, f"{self._seed}/{self._number}").inject(_DISK[int(fault.amount)])

    def _mend(self, fault: Fault, node: NodeId) -> None:
        host, driver = self._host, self._driver
        again = any(
            other.kind == fault.kind and node in self._ends[number] for number, other in self._active.items()
        )
        if fault.kind in _DOWN:
            if fault.kind == "fail_disk":
                disk = host.disk(node)
                if isinstance(disk, FaultyDisk):
                    disk.make_room()
                    disk.plan.clear()
            kept_down = any(
                other.kind in _DOWN[:2] and node in self._ends[number]
                for number, other in self._active.items()
            )
            if not kept_down and (fault.kind == "fail_disk" or host.state(node) == "down"):
                # A node whose disk failed has said no more since: it begins again from what it holds.
                host.restart(node)
        elif again:
            return
        elif fault.kind == "pause":
            host.resume(node)
        elif fault.kind == "skew":
            host.skew(node, rate=1.0)
        elif fault.kind == "slow_disk":
            driver.slow_disk(node, 0.0)

    # --- wires --------------------------------------------------------------------------------------------

    def _rewire(self) -> None:
        """Set the wires to what they were before any fault, made worse by those in force."""
        network = self._host.network
        assert isinstance(network, Network)
        wired = [
            (fault, self._ends[number]) for number, fault in self._active.items() if fault.kind in _WIRES
        ]
        if self._wires is None:
            self._wires = network.copy()
        network.restore(self._wires)
        if not wired:
            self._wires = None
            return
        parted = bool(network.describe().get("partition"))
        for fault, nodes in wired:
            if fault.kind == "partition":
                others = self._others(nodes)
                if not parted and nodes and others:
                    network.partition(nodes, others)
                    parted = True
                else:
                    for a in nodes:
                        for b in others:
                            network.cut(a, b)
                            network.cut(b, a)
            elif fault.kind == "one_way":
                for other in nodes[1:]:
                    network.cut(nodes[0], other)
            elif fault.kind == "delay":
                for node in nodes or self._host.nodes:
                    network.slow(node, fault.amount if nodes else fault.amount / 2)
            elif fault.kind == "reorder":
                network.reorder = max(network.reorder, fault.amount)
                network.reorder_ms = max(network.reorder_ms, 50.0)
            else:
                setattr(network, fault.kind, max(getattr(network, fault.kind), fault.amount))

    def _others(self, side: tuple[NodeId, ...]) -> list[NodeId]:
        """Return who is on the other side."""
        parted = [group for group in self._groups() if any(node in side for node in group)]
        return [node for group in parted for node in group if node not in side]


def faulty(host: Host, node: NodeId, seed: str) -> FaultyDisk:
    """Put a disk that can fail over a node's own, unless it is one; return it."""
    disk = host.disk(node)
    if disk is None:
        raise Refused(f"{node} has no disk that could fail; masters have one")
    if isinstance(disk, FaultyDisk):
        return disk
    if not isinstance(disk.load(), Stored):
        raise Refused(f"{node} keeps its values on a disk that cannot be made to fail; masters' disks can")
    over = FaultyDisk(disk, rng=random.Random(f"{seed}/{node}"))  # type: ignore[arg-type]
    host.replace_disk(node, over)
    return over
