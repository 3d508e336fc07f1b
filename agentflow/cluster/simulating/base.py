"""A simulation's world, its journal and its time: what all the rooms of `Simulation` are built on.

Law: nothing here runs beside the caller. Time moves only in `run_for`, `run_to`, `run_until`, `step` and in
what waits, such as `run.wait()`; so the same calls in the same order give the same trace, byte for byte.
"""

from __future__ import annotations

import contextlib
import functools
import math
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, Concatenate, ParamSpec, Self, TypeVar, cast

from agentflow.cluster.agents.agent import AgentCommunication
from agentflow.cluster.agents.virtual import VirtualBus
from agentflow.cluster.calls import Workbench
from agentflow.cluster.deployment import Deployment
from agentflow.cluster.facade import CLIENT, Facade, KeyValueClient
from agentflow.cluster.run import Run
from agentflow.cluster.simulating.copies import Copies
from agentflow.cluster.simulating.journal import Journal, running
from agentflow.cluster.simulating.script import Position, Script, call_of, source_of, wires_lines
from agentflow.cluster.simulating.world import (
    DEFAULT_CONFIG,
    DEFAULT_HEALTH,
    DEFAULT_NETWORK,
    VIRTUAL_EPOCH,
    World,
)
from agentflow.core.control.commands import ClientCommand, KeyCas, KeyGet, KeySet
from agentflow.core.nodes.client import Command, Watch
from agentflow.core.scheduling import Workflow
from agentflow.errors import InvalidConfig
from agentflow.ids import NodeId, RunId, TaskId
from agentflow.runtime.trace import Trace
from agentflow.transport.memory import Network

P = ParamSpec("P")
R = TypeVar("R")
_T = TypeVar("_T")
F = TypeVar("F", bound=Callable[..., Any])

EVER = sys.maxsize

PATIENCE = 3600.0
"""Virtual seconds that whoever waits without a limit waits at most."""


def alone(method: F) -> F:
    """Let nobody else move a simulation meanwhile: a player in the notebook and a cell take turns."""

    @functools.wraps(method)
    def call(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        with self.turn:
            return method(self, *args, **kwargs)

    return cast("F", call)


def by_hand(
    method: Callable[Concatenate[Any, P], R], write: Callable[..., str] | None = None
) -> Callable[Concatenate[Any, P], R]:
    """Take down what a method does as a line of the script, unless it is called by another such method.

    Parameters
    ----------
    method : callable
        A method of a simulation.
    write : callable, optional
        Writes the line from the method's arguments; by default the call itself.
    """
    name = method.__name__

    @functools.wraps(method)
    @alone
    def call(self: Base, /, *args: P.args, **kwargs: P.kwargs) -> R:
        if self._hands or self._journal.quiet:
            return method(self, *args, **kwargs)
        self._journal.look()
        begin = self._here()
        self._hands += 1
        try:
            result = method(self, *args, **kwargs)
        except BaseException:
            if self._here() != begin:
                self._take_down(begin, name, write, args, kwargs, raised=True)
            raise
        else:
            self._take_down(begin, name, write, args, kwargs)
            return result
        finally:
            self._hands -= 1

    return call


def write_command(client: NodeId, command: ClientCommand, timeout: float | None = None) -> str:
    """Write a command as its client's call, and as a request for when nobody waited for its end."""
    said = key_call(command)
    if said is None:
        return f"# {client} gave {type(command).__name__}"
    function, args = said
    inner = ", ".join(source_of(arg) for arg in args)
    limit = "" if timeout is None else f", timeout={timeout!r}"
    return f"sim.client({client!r}).{function}({inner}{limit})\0" + call_of(
        "request", client, function, *args, timeout=timeout
    )


def key_call(command: ClientCommand) -> tuple[str, tuple[Any, ...]] | None:
    """Say a command on a key as a method of its client."""
    if isinstance(command, KeySet):
        return "set", (command.key, command.value)
    if isinstance(command, KeyGet):
        return "get", (command.key,)
    if isinstance(command, KeyCas):
        return "cas", (command.key, command.expected, command.value)
    return None


def write_spoken(agent: NodeId, name: str, args: tuple[Any, ...], kwargs: Any) -> str:
    """Write what was done to an agent from outside."""
    if name == "_forget":
        return f"# {agent} waits for {args[0]} no more"
    if name == "_handle":
        topics = ", ".join(map(repr, args[1:]))
        return f"sim.agent({agent!r}).on({topics})({source_of(args[0])})"
    return call_of(name, *args, **kwargs).replace("sim.", f"sim.agent({agent!r}).", 1)


def write_submit(work: Any, *args: Any, **kwargs: Any) -> str:
    """Write a submission; a workflow goes by its name."""
    if isinstance(work, Workflow):
        name = "".join(c if c.isalnum() else "_" for c in work.name)
        given = "".join(f", {key}={source_of(value)}" for key, value in kwargs.items())
        return f"sim.submit({name}{given})  # a workflow of {len(work.tasks)} tasks"
    return call_of("submit", work, *args, **kwargs)


class Base(Facade):
    """A world in virtual time and the way to it."""

    _world: World
    _journal: Journal
    _script: Script
    _hands: int
    seed: int
    turn: threading.RLock
    """Held by whoever moves or reads it."""

    def _open(self, seed: int) -> None:
        """Begin with an empty past."""
        self._setup()
        self.began = VIRTUAL_EPOCH
        self.seed = seed
        self._hands = 0
        self.turn = threading.RLock()
        self._script = Script()
        self._journal = Journal()
        self._copies = Copies()
        self._whole = (0, 0.0)
        self._given: dict[RunId, tuple[TaskId, ...]] = {}
        self.judged = False

    def _move_in(self, world: World) -> None:
        """Take a world for one's own."""
        self._world = world
        world.sim = self
        world.join(self._journal)
        self._deployment: Deployment = world.deployment
        self._bench: Workbench = world.bench
        self._journal.begin(world)
        self._journal.on_wires = self._wires_changed
        self._changed_past()

    def _changed_past(self) -> None:
        """Forget what was concluded from a past that is another now."""

    def client(self, name: str) -> KeyValueClient:
        """Give a client of the replicated key-value store, with a session of its own."""
        if name in self._deployment.host.nodes:
            return super().client(name)
        return self._new_client(name)

    def _new_client(self, name: str) -> KeyValueClient:
        return super().client(name)

    _new_client = by_hand(_new_client, lambda name: f"sim.client({name!r})")  # type: ignore[assignment]

    def agent(self, name: str, **settings: int) -> AgentCommunication:
        """Give the agent of that name, started if there is none.

        It is a node like any other, so faults are made with it too. `settings` are the `capacity` of its
        mailbox and the length of its `history`.
        """
        if name in self._lay_bus().agents:
            return super().agent(name, **settings)
        return self._new_agent(name, **settings)

    def _new_agent(self, name: str, **settings: int) -> AgentCommunication:
        return super().agent(name, **settings)

    _new_agent = by_hand(_new_agent, lambda name, **settings: call_of("agent", name, **settings))  # type: ignore[assignment, arg-type]

    @property
    def trace(self) -> Trace:
        """Everything that happened, a record an event."""
        return self._world.trace

    # --- time ---------------------------------------------------------------------------------------------

    @property
    def now(self) -> float:
        """Virtual seconds since the beginning."""
        return self._world.driver.now

    @alone
    def step(self, count: int = 1) -> bool:
        """Let the next thing happen: one message, one write, one timer.

        Parameters
        ----------
        count : int
            How many things.

        Returns
        -------
        bool
            False if nothing was left to happen.
        """
        driver = self._world.driver
        before = driver.steps
        driver.run_steps(before + count)
        self._moved(whole=False)
        return driver.steps > before

    @alone
    def run_for(self, seconds: float) -> Self:
        """Let `seconds` of virtual time pass."""
        if not isinstance(seconds, int | float) or not 0 <= seconds < math.inf:
            raise InvalidConfig(f"time runs forwards: run_for({seconds!r}) is not possible", field="seconds")
        self._world.driver.run_for(seconds)
        self._moved(whole=True)
        return self

    @alone
    def run_to(self, time: float) -> Self:
        """Let time pass until an instant; everything that falls on it has happened then."""
        if not isinstance(time, int | float) or not self.now <= time < math.inf:
            raise InvalidConfig(
                f"it is {self.now:g} s; run_to({time!r}) is not possible, rewind(to=...) goes back",
                field="time",
            )
        driver = self._world.driver
        driver.go(time, EVER)
        driver.now = float(time)
        self._moved(whole=True)
        return self

    def run_until(self, predicate: Callable[[Any], Any], limit: float = PATIENCE) -> bool:
        """Let time pass until `predicate(self)` is true.

        Parameters
        ----------
        predicate : callable
            Asked after every event.
        limit : float
            Virtual seconds after which it is given up.

        Returns
        -------
        bool
            Whether it became true.
        """
        return self._until(lambda: predicate(self), limit)

    @alone
    def _until(self, done: Callable[[], Any], limit: float) -> bool:
        driver = self._world.driver
        end = driver.now + limit
        came = driver.run_until(done, limit)
        self._moved(whole=not came and driver.now >= end)
        return came

    def _moved(self, *, whole: bool) -> None:
        """Take note of where time was moved to."""
        driver = self._world.driver
        if whole:
            self._whole = (driver.steps, driver.now)

    def judge_on(self) -> None:
        """Judge what happened since the last time, and raise if a promise is broken."""

    def _here(self) -> Position:
        return Position(len(self._journal.acts), self._world.driver.steps, *self._whole)

    def at(self, time: float, fn: Callable[[Any], Any]) -> None:
        """Script something: call `fn(self)` when virtual time reaches `time`.

        What it keeps outside of the simulation is not taken back by `rewind`.
        """
        if not isinstance(time, int | float) or not math.isfinite(time):
            raise InvalidConfig(f"at({time!r}, ...) is no instant; give seconds", field="time")
        self._world.at(time, fn)

    # --- what was done by hand ----------------------------------------------------------------------------

    def _take_down(
        self,
        begin: Position,
        name: str,
        write: Callable[..., str] | None,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        raised: bool = False,
    ) -> None:
        self._journal.look(told=False)
        text = write(*args, **kwargs) if write is not None else call_of(name, *args, **kwargs)
        text, _, unfinished = text.partition("\0")
        if raised:
            text = f"try:\n    {text}\nexcept af.AgentflowError:\n    pass"
        self._script.add(begin, self._here(), text, unfinished)

    def _wires_changed(self, before: Network, after: Network) -> None:
        if not self._hands:
            for line in wires_lines(before, after):
                self._script.add(self._here(), self._here(), line)

    def _head(self) -> list[str]:
        """The lines that make a simulation like this one."""
        spec = self._world.spec
        given: dict[str, Any] = {"masters": spec.masters}
        counts: dict[str, int] = {}
        for worker in spec.workers:
            counts[worker.group] = counts.get(worker.group, 0) + 1
        if counts:
            given["workers"] = counts if list(counts) != ["default"] else counts["default"]
        given["seed"] = spec.seed
        if source_of(spec.network) != source_of(DEFAULT_NETWORK):
            given["network"] = spec.network
        given["config"] = spec.config if spec.config != DEFAULT_CONFIG else None
        given["health"] = spec.health if spec.health != DEFAULT_HEALTH else None
        given["disk_ms"] = spec.disk_ms or None
        given["compact_after"] = spec.compact_after
        given["codec_check"] = spec.codec_check or None
        given["nodes"] = dict(spec.nodes) or None
        if not spec.masters and spec.nodes:
            del given["masters"]
        parts = [f"{key}={source_of(value)}" for key, value in given.items() if value is not None]
        return ["import agentflow as af", "", f"sim = af.Simulation({', '.join(parts)})"]

    def script(self) -> str:
        """Give everything done by hand as Python that does it again.

        Functions and classes of your own are named, not copied: have them defined before it runs.

        Examples
        --------
        >>> from agentflow import Simulation
        >>> sim = Simulation(masters=3, seed=7)
        >>> sim.run_for(2.5).kill("master-1")
        >>> print(sim.script())
        import agentflow as af
        <BLANKLINE>
        sim = af.Simulation(masters=3, seed=7)
        sim.run_to(2.5)
        sim.kill('master-1')
        <BLANKLINE>
        """
        self._journal.look()
        return self._script.text(self._head(), self._here())

    # --- what the facade asks -----------------------------------------------------------------------------

    def _lay_bus(self) -> VirtualBus:
        at_work = running.get()
        if at_work is not None and at_work.spec is self._world.spec:
            return at_work.lay_bus()  # a handler asks, and means the world it is in
        return self._world.lay_bus()

    def wait_for(self, done: Callable[[], bool], timeout: float | None) -> bool:
        """Move time until `done()`, for at most `timeout` virtual seconds (an hour if None)."""
        return bool(done()) or self._until(done, PATIENCE if timeout is None else timeout)

    @contextlib.contextmanager
    def spoken(self, agent: NodeId, name: str, args: tuple[Any, ...], kwargs: Any) -> Iterator[None]:
        """Take down what is done to an agent."""
        if self._hands:
            yield
            return
        self._journal.look()
        begin = self._here()
        self._hands += 1
        raised = True
        try:
            yield
            raised = False
        finally:
            self._take_down(begin, name, write_spoken, (agent, name, args, kwargs), {}, raised=raised)
            self._hands -= 1

    @alone
    def read(self, fn: Callable[[], _T]) -> _T:
        """Call `fn`: nothing changes while no time passes."""
        return fn()

    def _ask(self, node_id: NodeId, request: Any, callback: Callable[[Any, bool], None]) -> None:
        if isinstance(request, Watch):
            self._world.watch(node_id, request)
        elif isinstance(request, Command):
            self._world.command(node_id, request.command, request.timeout, callback=callback)
        else:
            self._world.ask(node_id, request, callback=callback)

    def wait(self, condition: threading.Condition, done: Callable[[], bool], timeout: float | None) -> bool:
        """Move time until `done()`, for at most `timeout` virtual seconds (an hour if None)."""
        return self.wait_for(done, timeout)

    def hear(self, run: RunId, message: Any, final: bool) -> None:
        """Pass on news of a run."""
        known = self._runs.get(run)
        if known is not None:
            known._hear(message, final)

    def _adopt(self, run: Run) -> Run:
        self._runs[run.id] = run
        self._given[run.id] = run.tasks
        if not run.done:
            self._world.watch(CLIENT, Watch(run.id, len(run)))
        return run

    # --- acts of the facade, taken down ---------------------------------------------------------------------

    _command = by_hand(Facade._command, write_command)
    kill = by_hand(Facade.kill)
    restart = by_hand(Facade.restart)
    pause = by_hand(Facade.pause)
    resume = by_hand(Facade.resume)
    slow = by_hand(Facade.slow)
    partition = by_hand(Facade.partition)
    heal = by_hand(Facade.heal)
    transfer_leadership = by_hand(Facade.transfer_leadership)
    add_master = by_hand(Facade.add_master)
    remove_master = by_hand(Facade.remove_master)
    add_worker = by_hand(Facade.add_worker)
    remove_worker = by_hand(Facade.remove_worker)
    cancel = by_hand(Facade.cancel)
    forget = by_hand(Facade.forget)
    submit = by_hand(Facade.submit, write_submit)  # type: ignore[arg-type]
    map = by_hand(Facade.map)  # type: ignore[arg-type]
