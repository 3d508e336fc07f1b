"""What carries agents: the part that is alike in real and in virtual time.

Law: agents are nodes of a host like any other.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from agentflow.core.agents.directory import Directory
from agentflow.core.agents.messages import Reset
from agentflow.core.machine import Unreachable
from agentflow.core.record import Record
from agentflow.ids import NodeId
from agentflow.runtime.host import Host

if TYPE_CHECKING:
    from agentflow.cluster.agents.agent import AgentCommunication
    from agentflow.cluster.agents.call import Call

__all__ = ["Bus", "outward"]

P = ParamSpec("P")
R = TypeVar("R")
_T = TypeVar("_T")

_CAUSES = 256
"""Exceptions of handlers that are kept for callers in the same process."""


def outward(method: Callable[Concatenate[Any, P], R]) -> Callable[Concatenate[Any, P], R]:
    """Make a method of a handle known to the journal of the simulation it is used on."""

    @functools.wraps(method)
    def call(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> R:
        bus = self._bus
        if not bus.virtual:
            return method(self, *args, **kwargs)
        result: R = bus.do(self, method, args, kwargs)
        return result

    return call


class Bus:
    """What an agent's handle needs of its surroundings; see `live` and `virtual`.

    Parameters
    ----------
    host : Host
        Where the agents live.
    epoch : float
        Unix time at which the host's time began.
    label : str
        What it is called in messages.
    """

    loop: asyncio.AbstractEventLoop
    virtual = False

    def __init__(self, host: Host, epoch: float, label: str) -> None:
        self.host = host
        self.began = epoch
        self.label = label
        self.directory = Directory()
        self.agents: dict[NodeId, AgentCommunication] = {}
        self._causes: dict[str, BaseException] = {}

    @property
    def now(self) -> float:
        """Seconds of the host's time."""
        return self.host.driver.now

    @property
    def here(self) -> bool:
        """Whether the caller is on the loop of the handlers."""
        raise NotImplementedError

    def call(self, fn: Callable[..., _T], *args: Any) -> _T:
        """Run `fn` between two turns."""
        raise NotImplementedError

    def soon(self, fn: Callable[[], None]) -> None:
        """Run `fn` on the loop, soon; from any thread."""
        raise NotImplementedError

    def wait(self, call: Call[Any], timeout: float | None) -> bool:
        """Wait until a call has ended; return whether it has."""
        raise NotImplementedError

    def make(self, name: NodeId, settings: dict[str, Any]) -> AgentCommunication:
        """Make an agent."""
        from agentflow.cluster.agents.agent import AgentCommunication

        return AgentCommunication(name, bus=self, **settings)

    # --- members ------------------------------------------------------------------------------------------

    def joined(self, agent: AgentCommunication) -> None:
        """Take note of a new agent."""
        self.agents[agent.id] = agent

    def left(self, agent: AgentCommunication) -> None:
        """Take note that an agent is closed; each says so once."""
        if self.agents.get(agent.id) is agent:
            del self.agents[agent.id]

    def fell(self, agent_id: NodeId) -> None:
        """Let who waits for its answers know that an agent went down, as a broken connection does."""
        network = self.host.network
        for other in self.agents.values():
            cut = network.blocked(agent_id, other.id) or network.blocked(other.id, agent_id)
            if not cut and other.awaits(agent_id):
                self.host.post(other.id, Unreachable(agent_id, Reset()))

    # --- what is read -------------------------------------------------------------------------------------

    def read(self, fn: Callable[[], _T]) -> _T:
        """Call `fn` where nothing changes meanwhile."""
        return self.call(fn)

    def records(self) -> Iterable[Record]:
        """The trace, oldest first."""
        return iter(self.host.trace)

    # --- causes -------------------------------------------------------------------------------------------

    def keep_cause(self, request: str, error: BaseException) -> None:
        """Keep what a handler raised, for the caller in this process; without its frames."""
        self._causes[request] = error.with_traceback(None)
        if len(self._causes) > _CAUSES:
            with contextlib.suppress(KeyError, StopIteration):
                del self._causes[next(iter(self._causes))]

    def cause_of(self, request: str) -> BaseException | None:
        """Return what the handler of a request raised, once."""
        return self._causes.pop(request, None)
