"""Agents in real time: on a cluster's host, or on the kernel's own bus.

Law: the kernel's bus has a host of its own, shared by all agents made without a cluster; it starts with the
first of them and has ended when the last one is closed.
"""

from __future__ import annotations

import atexit
import contextlib
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from agentflow.cluster.agents.bus import Bus
from agentflow.runtime.host import Host

if TYPE_CHECKING:
    from agentflow.cluster.agents.agent import AgentCommunication
    from agentflow.cluster.agents.call import Call
    from agentflow.runtime.realtime import RealtimeDriver

__all__ = ["LiveBus", "kernel_bus"]

_T = TypeVar("_T")

TRACE_LIMIT = 200_000
"""Events that the kernel's own bus keeps."""


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
