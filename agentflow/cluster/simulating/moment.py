"""One instant of a run, to look at.

Law: a moment is a still: it holds what was so then, and nothing done later changes it.
"""

from __future__ import annotations

import contextlib
import copy
from typing import TYPE_CHECKING, Any

from agentflow.cluster.frames import node_rows
from agentflow.cluster.tables import NODES
from agentflow.core.callbacks import CallbackMachine
from agentflow.core.raft import RaftStatus
from agentflow.errors import NoSuchNode
from agentflow.ids import NodeId
from agentflow.rows import Rows
from agentflow.views import Viewable

if TYPE_CHECKING:
    import pandas as pd

    from agentflow.cluster.simulating.base import Base


class Moment(Viewable):
    """The state of a simulation at an instant; made by `Simulation.state_at`.

    Attributes
    ----------
    now : float
        The instant.
    events : int
        How many events the trace had by then.
    leader : str or None
        Who led.
    up : dict
        For each node `up`, `paused`, `starting` or `down`.
    masters : dict
        What Raft said of itself on each master that was up.
    network : dict
        What was wrong with the wires.
    faults : list
        The planned faults in force.
    keys : dict
        The replicated keys, as the leader (or whoever had applied most) knew them.
    """

    def __init__(self, sim: Base) -> None:
        deployment = sim._deployment
        host = deployment.host
        self.now = sim.now
        self.events = sim.trace.next
        self.leader = deployment.leader()
        self.up = {node_id: host.state(node_id) for node_id in host.nodes}
        machines = sim.masters_up()
        self.masters: dict[NodeId, RaftStatus] = {
            node_id: machine.raft.status() for node_id, machine in machines.items() if machine is not None
        }
        self.network = host.network.describe()
        self.faults = sim._world.injector.active
        self.keys = dict(sim.plane().keys)
        self._rows = list(node_rows(machines))
        self._began = sim.began
        self._machines = {node_id: host.machine(node_id) for node_id in host.nodes}

    def __getitem__(self, node_id: NodeId) -> Any:
        """Return a node as it was: the object with callbacks, or the machine; None if it was down."""
        if node_id not in self._machines:
            raise NoSuchNode(
                f"there was no node {node_id!r}; there were: {', '.join(self._machines)}", node=node_id
            )
        machine = self._machines[node_id]
        return machine.node if isinstance(machine, CallbackMachine) else machine

    def nodes(self) -> pd.DataFrame:
        """The masters as a table, with the columns of `frames.nodes()`."""
        return Rows(NODES, self._rows, self._began).to_pandas()

    def __repr__(self) -> str:
        terms = ", ".join(
            f"{node_id} {status.role} of term {status.term}" for node_id, status in self.masters.items()
        )
        down = ", ".join(node_id for node_id, state in self.up.items() if state != "up")
        shown = terms or f"{len(self.up)} nodes"
        return f"<t={self.now:.3f} s: {shown}{f'; not up: {down}' if down else ''}>"


def look(sim: Base) -> Moment:
    """Take a still of a simulation that goes on."""
    moment = Moment(sim)
    for node_id, machine in moment._machines.items():
        # A node that cannot be copied is shown as it is; whoever looks sees it move on.
        with contextlib.suppress(Exception):
            moment._machines[node_id] = copy.deepcopy(machine)
    return moment
