"""Handing leadership from one master to another, as an operator does before taking a leader down."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from agentflow.errors import NoSuchNode, Refused, TimedOut
from agentflow.ids import NodeId
from agentflow.views import Watchable

if TYPE_CHECKING:
    from agentflow.cluster.deployment import Deployment

_T = TypeVar("_T")


class Leading(Watchable):
    """The part of a cluster that can change its leader on request."""

    _deployment: Deployment

    def read(self, fn: Callable[[], _T]) -> _T:
        """Call `fn` where nothing changes meanwhile, and give what it returns."""
        raise NotImplementedError

    def wait(self, condition: threading.Condition, done: Callable[[], bool], timeout: float | None) -> bool:
        """Wait until `done()`; give whether it came true in time."""
        raise NotImplementedError

    def _node(self, node: Any) -> NodeId:
        raise NotImplementedError

    def transfer_leadership(self, to: Any, *, timeout: float | None = None) -> None:
        """Let another master lead: it is brought up to date first, so nobody is without a leader for long.

        Parameters
        ----------
        to : str or handle
            The master that shall lead.
        timeout : float, optional
            Seconds to wait for it; by default two election time-outs.

        Raises
        ------
        Refused
            If nobody leads, or the master is down.
        TimedOut
            If it does not lead in time; the old leader then goes on, or another is elected.

        Examples
        --------
        >>> from agentflow import Simulation
        >>> sim = Simulation(masters=3, seed=7)
        >>> _ = sim.run_until(lambda s: s.leader)
        >>> heir = next(node for node in sim.masters if node != sim.leader)
        >>> sim.transfer_leadership(heir)
        >>> sim.leader == heir
        True
        """
        heir = self._node(to)
        deployment = self._deployment
        if heir not in deployment.master_ids:
            raise NoSuchNode(
                f"{heir!r} is no master; masters are {', '.join(deployment.master_ids)}", node=heir
            )
        if self.read(lambda: deployment.host.state(heir)) != "up":
            raise Refused(f"{heir} is not up, so it cannot lead; restart or resume it first")
        if self.read(deployment.leader) == heir:
            return
        self.read(lambda: deployment.transfer(heir))
        limit = 2 * deployment.raft.election_timeout_ms / 1000 if timeout is None else timeout
        if not self.wait(threading.Condition(), lambda: self.read(deployment.leader) == heir, limit):
            raise TimedOut(
                f"{heir} does not lead after {limit:g} s; cluster.diagnose() says how things stand"
            )
