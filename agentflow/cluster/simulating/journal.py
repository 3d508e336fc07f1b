"""What was done to a simulation from outside, and when: with the seed, this is the whole run.

Law: everything that changes a simulated world and is not a consequence of what is in it goes through a noted
method. So a world that is made anew and treated alike is the same, event for event.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import math
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

import msgspec

from agentflow.errors import InvariantViolated, Refused

if TYPE_CHECKING:
    from agentflow.cluster.simulating.world import World
    from agentflow.transport.memory import Network

running: contextvars.ContextVar[World | None] = contextvars.ContextVar("agentflow.world", default=None)
"""The world that is at work, for code of the user's that runs in it and knows it by handles of another."""

P = ParamSpec("P")
R = TypeVar("R")


class Act(msgspec.Struct):
    """One thing done from outside, after `step` things had happened, when it was `now`.

    A `step` of -1 says that only the time counts: it is done after everything that falls on `now`.
    """

    step: int
    now: float
    target: str
    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class Journal:
    """The acts of one simulation.

    Attributes
    ----------
    acts : list of Act
        In order.
    quiet : int
        Above 0 while the world is at work by itself: what it does then is a consequence, and not noted.
    """

    def __init__(self, acts: list[Act] | None = None) -> None:
        self.acts: list[Act] = acts or []
        self.quiet = 1
        self.on_wires: Callable[[Network, Network], None] | None = None
        self._world: World | None = None
        self._version = -1
        self._wires: Network | None = None

    def begin(self, world: World) -> None:
        """Note from now on what is done to this world."""
        self._world = world
        self._version = -1
        self.quiet = 0
        self.seen()

    def note(self, target: str, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Note an act that is about to be done."""
        world = self._world
        assert world is not None
        self.look()
        driver = world.driver
        # Callbacks are the caller's own business; a world that is made anew has other callers.
        plain = {key: value for key, value in kwargs.items() if key != "callback"}
        self.acts.append(Act(driver.steps, driver.now, target, name, args, plain))

    def look(self, *, told: bool = True) -> None:
        """Note what was changed at the wires directly; `told` says that nobody has said so yet."""
        world = self._world
        if world is None or world.host.network.version == self._version:
            return
        network = world.network
        before = self._wires
        self.seen()
        after = network.copy()
        self.acts.append(Act(world.driver.steps, world.driver.now, "network", "restore", (after,), {}))
        if told and self.on_wires is not None and before is not None:
            self.on_wires(before, after)

    def seen(self) -> None:
        """Take the wires as they are for known."""
        world = self._world
        if world is not None and world.host.network.version != self._version:
            self._version = world.host.network.version
            self._wires = world.network.copy()

    def withdraw(self, count: int) -> None:
        """Forget all acts but the first `count`: the others were refused."""
        del self.acts[count:]


def noted(target: str, method: Callable[Concatenate[Any, P], R]) -> Callable[Concatenate[Any, P], R]:
    """Make a method note itself in its object's `journal`, unless it is called by the world itself.

    Parameters
    ----------
    target : str
        Where the object is found in a world: `host`, `driver`, `deployment` or `world`.
    method : callable
        The method.
    """
    name = method.__name__

    @functools.wraps(method)
    def call(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> R:
        journal: Journal = self.journal
        if journal.quiet:
            return method(self, *args, **kwargs)
        before = len(journal.acts)
        journal.note(target, name, args, kwargs)
        journal.quiet += 1
        try:
            return method(self, *args, **kwargs)
        except Refused:
            journal.withdraw(before)
            raise
        finally:
            journal.quiet -= 1
            journal.seen()

    return call


def acting(method: Callable[Concatenate[Any, P], R]) -> Callable[Concatenate[Any, P], R]:
    """Make a method of a world note itself."""
    return noted("world", method)


def perform(act: Act, world: World) -> None:
    """Do an act again."""
    target = world if act.target == "world" else getattr(world, act.target)
    getattr(target, act.name)(*act.args, **act.kwargs)


def replay(world: World, acts: list[Act], *, time: float, step: int) -> None:
    """Bring a world to an instant by doing again what was done until then.

    Parameters
    ----------
    world : World
        A world that has seen the first `world.acted` of the acts.
    acts : list of Act
        All that are to be done.
    time, step : float, int
        When to stop: after everything that falls on `time`, and after so many steps.
    """
    while world.acted < len(acts):
        act = acts[world.acted]
        if act.now > time or act.step > step:
            break
        if act.step < 0:
            advance(world, act.now, sys.maxsize)
        else:
            advance(world, math.inf, act.step)
        again(world, act)
    advance(world, time, step)


def again(world: World, act: Act) -> None:
    """Do an act again."""
    world.driver.now = act.now
    world.acted += 1
    # What raised when it was first done raises again, and whoever did it was told then.
    with contextlib.suppress(Exception):
        perform(act, world)


def advance(world: World, time: float, step: int) -> None:
    """Let things happen up to an instant and a number of steps; what raises there raised before."""
    driver = world.driver
    while True:
        before = driver.steps
        try:
            driver.go(time, step)
        except InvariantViolated:
            raise  # by a judge: the run as it was first made is replayed without
        except Exception:
            if driver.steps == before:
                raise
            continue
        return
