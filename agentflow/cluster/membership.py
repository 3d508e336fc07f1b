"""Masters that come and go while the cluster works.

Law: the membership changes through a joint configuration, so at no moment do two majorities exist; a new
master is brought up to date before it votes, and one that leaves hands leadership on first.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from agentflow.cluster.leading import Leading
from agentflow.cluster.nodes import MasterHandle
from agentflow.core.raft import ConfigChange, Transition
from agentflow.errors import NoSuchNode, Refused, TimedOut
from agentflow.ids import NodeId

if TYPE_CHECKING:
    from agentflow.cluster.facade import Facade
    from agentflow.core.raft.messages import ConfState

MEMBERSHIP_SECS = 10.0
"""How long a change of the masters may take, unless it is said otherwise."""


class Membership(Leading):
    """The part of a cluster that can change who its masters are."""

    def add_master(self, *, timeout: float = MEMBERSHIP_SECS) -> MasterHandle:
        """Start one more master: it learns the log first, and votes when it has it.

        Parameters
        ----------
        timeout : float
            Seconds for it to take part.

        Returns
        -------
        MasterHandle
            The new master.

        Raises
        ------
        TimedOut
            If it does not take part in time; it may yet.

        Examples
        --------
        >>> from agentflow import Simulation
        >>> sim = Simulation(masters=3, seed=7)
        >>> _ = sim.run_until(lambda s: s.leader)
        >>> sim.add_master().id, len(sim.masters)
        ('master-4', 4)
        """
        deployment = self._deployment
        if self.read(deployment.leader) is None:
            raise Refused("nobody leads, so nobody can admit a master; cluster.diagnose() says why")
        node_id = self.read(deployment.add_master)
        self._change_to(ConfigChange.of(learn=[node_id]), lambda conf: node_id in conf.learners, timeout)
        ready = self.wait(threading.Condition(), lambda: self.read(lambda: self._has_log(node_id)), timeout)
        if not ready:
            raise TimedOut(f"{node_id} has not caught up with the log after {timeout:g} s; it learns on")
        joint = ConfigChange.of(add=[node_id], transition=Transition.IMPLICIT)
        self._change_to(joint, lambda conf: node_id in conf.voters and not conf.voters_outgoing, timeout)
        return MasterHandle(cast("Facade", self), node_id)

    def remove_master(self, master: Any, *, timeout: float = MEMBERSHIP_SECS) -> None:
        """Take a master away, for good.

        Parameters
        ----------
        master : str or handle
            Which one; if it leads, another is made the leader first.
        timeout : float
            Seconds for the others to go on without it.

        Raises
        ------
        Refused
            If it is the only one.
        """
        node_id = self._node(master)
        deployment = self._deployment
        masters = deployment.master_ids
        if node_id not in masters:
            raise NoSuchNode(f"{node_id!r} is no master; masters are {', '.join(masters)}", node=node_id)
        if len(masters) == 1:
            raise Refused(f"{node_id} is the only master; close the cluster instead")
        if self.read(deployment.leader) == node_id:
            state = deployment.host.state
            up = self.read(lambda: [each for each in masters if each != node_id and state(each) == "up"])
            if not up:
                raise Refused(f"{node_id} leads and no other master is up; restart one first")
            self.transfer_leadership(up[0], timeout=timeout)
        joint = ConfigChange.of(remove=[node_id], transition=Transition.IMPLICIT)
        self._change_to(joint, lambda conf: node_id not in (*conf.voters, *conf.voters_outgoing), timeout)
        self.read(lambda: deployment.remove_master(node_id))

    def _change_to(self, change: ConfigChange, done: Callable[[ConfState], bool], timeout: float) -> None:
        """Propose a change until it is in force; a leader may be busy with another, or fall."""
        pause = self._deployment.raft.election_timeout_ms / 1000

        def in_force() -> bool:
            conf = self._deployment.membership()
            return conf is not None and done(conf)

        waited = 0.0
        while waited < timeout:
            self.read(lambda: self._deployment.propose(change))
            if self.wait(threading.Condition(), lambda: self.read(in_force), pause):
                return
            waited += pause
        raise TimedOut(f"the masters did not change within {timeout:g} s; cluster.diagnose() says why")

    def _has_log(self, node_id: NodeId) -> bool:
        leader = self._deployment.leader()
        ahead = None if leader is None else self._deployment.master(leader)
        mine = self._deployment.master(node_id)
        return ahead is not None and mine is not None and mine.raft.applied >= ahead.raft.commit
