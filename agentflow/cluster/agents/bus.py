"""What carries agents: the kernel's own bus, a cluster's, a simulation's.

Law: agents are nodes of a host like any other. The kernel's bus has a host of its own, shared by all agents
made without a cluster; it starts with the first of them and has ended when the last one is closed.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import threading
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

from agentflow.core.agents.directory import Directory
from agentflow.core.agents.messages import Reset
from agentflow.core.machine import Unreachable
from agentflow.core.record import Record
from agentflow.ids import NodeId
from agentflow.runtime.host import Host

if TYPE_CHECKING:
    from agentflow.cluster.agents.agent import AgentCommunication
    from agentflow.cluster.agents.call import Call
    from agentflow.runtime.realtime import RealtimeDriver
    from agentflow.runtime.virtual import VirtualDriver

__all__ = ["Bus", "LiveBus", "VirtualBus", "kernel_bus"]

_T = TypeVar("_T")

TRACE_LIMIT = 200_000
"""Events that the kernel's own bus keeps."""

_CAUSES = 256
"""Exceptions of handlers that are kept for callers in the same process."""


class Bus:
    """What an agent's handle needs of its surroundings; see `LiveBus` and `VirtualBus`.

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

    def moves_time_from(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Whether who waits on that loop has to move time himself."""
        return False

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


class LiveBus(Bus):
    """Agents in real time.

    Parameters
    ----------
    driver : RealtimeDriver
        What moves the host.
    epoch, label
        As for `Bus`.
    """

    def __init__(self, driver: RealtimeDriver, epoch: float, label: str) -> None:
        from agentflow.runtime.loops import LoopThread

        super().__init__(driver.host, epoch, label)
        self._driver = driver
        self._loops = LoopThread.acquire()
        self.loop = self._loops.loop
        self._loops.release()  # the driver holds it for as long as the bus can be used

    @property
    def here(self) -> bool:
        """Whether the caller is on agentflow's loop."""
        return self._loops.here

    def call(self, fn: Callable[..., _T], *args: Any) -> _T:
        """Run `fn` between two turns."""
        return self._driver.call(fn, *args)

    def soon(self, fn: Callable[[], None]) -> None:
        """Run `fn` on the loop, soon; from any thread."""
        if self._loops.here:
            self.loop.call_soon(fn)
        else:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self.loop.call_soon_threadsafe(fn)

    def wait(self, call: Call[Any], timeout: float | None) -> bool:
        """Block until a call has ended; return whether it has."""
        from agentflow.cluster.agents.call import refuse_here

        if self._loops.here:
            raise refuse_here()
        ended = threading.Event()
        call.add_done_callback(lambda _: ended.set())
        return ended.wait(timeout)


class VirtualBus(Bus):
    """Agents in virtual time.

    Parameters
    ----------
    driver : VirtualDriver
        What moves the host.
    epoch, label
        As for `Bus`.
    """

    virtual = True

    def __init__(self, driver: VirtualDriver, epoch: float, label: str) -> None:
        from agentflow.cluster.agents.virtual_loop import VirtualLoop

        super().__init__(driver.host, epoch, label)
        self._driver = driver
        self.loop = VirtualLoop(driver)  # type: ignore[abstract]

    @property
    def here(self) -> bool:
        """Whether the caller runs in virtual time: there is nowhere else."""
        return True

    def call(self, fn: Callable[..., _T], *args: Any) -> _T:
        """Call `fn`: nothing changes while no time passes."""
        return fn(*args)

    def soon(self, fn: Callable[[], None]) -> None:
        """Call `fn` at once."""
        fn()

    def wait(self, call: Call[Any], timeout: float | None) -> bool:
        """Move time until a call has ended, for at most an hour unless told otherwise."""
        return self._driver.run_until(lambda: call.done, 3600.0 if timeout is None else timeout)

    def moves_time_from(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Whether who waits on that loop has to move time himself: all but the handlers."""
        return loop is not self.loop


class _KernelBus(LiveBus):
    """The bus of all agents made without a cluster."""

    def __init__(self) -> None:
        from agentflow.runtime.realtime import RealtimeDriver
        from agentflow.runtime.trace import Trace
        from agentflow.transport.memory import Network

        driver = RealtimeDriver(Host(trace=Trace(TRACE_LIMIT), network=Network()))
        super().__init__(driver, time.time(), "the kernel's bus")
        self.users = 0

    def left(self, agent: AgentCommunication) -> None:
        """Take note that an agent is closed, and end with the last one."""
        super().left(agent)
        _release(self)

    def end(self) -> None:
        """Stop everything."""
        self._driver.close()


_guard = threading.Lock()
_kernel: _KernelBus | None = None


def kernel_bus() -> Bus:
    """Return the kernel's bus, started if need be, as one more user of it."""
    global _kernel
    with _guard:
        if _kernel is None or _kernel.loop.is_closed():
            _kernel = _KernelBus()
        _kernel.users += 1
        return _kernel


def _release(bus: _KernelBus) -> None:
    global _kernel
    with _guard:
        bus.users -= 1
        if bus.users:
            return
        if _kernel is bus:
            _kernel = None
    bus.end()


def _close_kernel_bus() -> None:
    """At the interpreter's end: leave nothing that would keep it."""
    bus = _kernel
    if bus is not None:
        for agent in list(bus.agents.values()):
            with contextlib.suppress(Exception):
                agent.close()


atexit.register(_close_kernel_bus)
