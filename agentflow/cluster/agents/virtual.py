"""Agents in virtual time, and in whichever past of it they are.

Law: what is done to an agent from outside is an act of the journal; what its handlers do is a consequence.
So a world with agents can be made again like any other, and the handles follow to where the simulation goes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from agentflow.cluster.agents.bus import Bus
from agentflow.cluster.agents.call import refuse_here
from agentflow.cluster.agents.virtual_loop import VirtualLoop
from agentflow.cluster.simulating.journal import running
from agentflow.errors import Closed
from agentflow.ids import NodeId

if TYPE_CHECKING:
    from agentflow.cluster.agents.agent import AgentCommunication
    from agentflow.cluster.agents.call import Call
    from agentflow.cluster.simulating.world import World

__all__ = ["VirtualBus"]

_T = TypeVar("_T")


class VirtualBus(Bus):
    """Agents in virtual time.

    Parameters
    ----------
    world : World
        The simulated world they live in.
    epoch : float
        As for `Bus`.
    """

    virtual = True

    def __init__(self, world: World, epoch: float) -> None:
        super().__init__(world.host, epoch, "the simulation")
        self.world = world
        self.loop = VirtualLoop(world.driver)  # type: ignore[abstract]
        self._handles: dict[NodeId, AgentCommunication] = {}
        self._left_behind = False

    def make(self, name: NodeId, settings: dict[str, Any]) -> AgentCommunication:
        """Make an agent; it is an act, which is in the journal."""
        return self.world.add_agent(name, settings)

    def joined(self, agent: AgentCommunication) -> None:
        """Take note of a new agent."""
        super().joined(agent)
        self._handles[agent.id] = agent

    def do(self, agent: AgentCommunication, method: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Have something done to an agent from outside its simulation, or by a handler from within.

        From outside it is an act, and takes effect before this returns. A handler holds the handles that its
        author had. If its world is made again, they are those of another world, so their twins are meant.
        """
        world, journal = running.get(), self.world.journal
        if world is not None and world is not self.world and world.spec is self.world.spec:
            twin = None if world.bus is None else world.bus.agents.get(agent.id)
            if twin is None:
                raise Closed(f"there is no agent {agent.id!r} in this past of the simulation")
            return method(twin, *args, **kwargs)
        if journal.quiet:
            return method(agent, *args, **kwargs)
        sim = self.world.sim
        assert sim is not None
        with sim.spoken(agent.id, method.__name__, args, kwargs):
            journal.note("world", "speak", (agent.id, method.__name__, args, kwargs), {})
            journal.quiet += 1
            try:
                return method(agent, *args, **kwargs)
            finally:
                self.world.driver.settle()
                journal.quiet -= 1
                journal.seen()

    def hand_over(self, heir: VirtualBus | None) -> None:
        """Give the handles that people hold to another world's agents: the simulation went there."""
        self._left_behind = True
        for name, handle in self._handles.items():
            twin = None if heir is None else heir._handles.get(name)
            if heir is None or twin is None:
                handle.leave_behind()
                continue
            handle.__dict__ = twin.__dict__
            heir._handles[name] = handle
            if heir.agents.get(name) is twin:
                heir.agents[name] = handle

    @property
    def here(self) -> bool:
        """Whether the caller is a handler, or something else that the simulation calls."""
        return running.get() is not None

    def call(self, fn: Callable[..., _T], *args: Any) -> _T:
        """Call `fn`: nothing changes while no time passes."""
        return fn(*args)

    def soon(self, fn: Callable[[], None]) -> None:
        """Call `fn` at once."""
        fn()

    def wait(self, call: Call[Any], timeout: float | None) -> bool:
        """Move time until a call has ended, for at most an hour unless told otherwise."""
        if self.here:
            raise refuse_here()
        if self._left_behind:
            gone = "the simulation went back to before this was answered; ask again"
            return call.settle(error=Closed(gone))
        sim = self.world.sim
        assert sim is not None
        return sim.wait_for(lambda: call.done, timeout)
