"""From what a user writes as `executor=` to a runner.

Law: what cannot work is refused here, before a worker exists, with what could be written instead.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any, Final, TypeAlias

from agentflow.errors import InvalidConfig
from agentflow.executors import streams
from agentflow.executors.base import Clock, Runner
from agentflow.executors.engines import RayExecutor
from agentflow.executors.futures import ExecutorRunner
from agentflow.executors.inline import InlineRunner
from agentflow.executors.processes import ProcessRunner
from agentflow.executors.threads import Brigade, ThreadRunner, check_slots

ExecutorSpec: TypeAlias = str | Executor | Runner | Callable[[str], Any]

ENGINES: Final = ("threads", "processes", "inline", "ray")
"""The executors that have a name here."""


def runner_for(
    spec: ExecutorSpec,
    *,
    name: str,
    slots: int,
    clock: Clock = time.monotonic,
    capture: int = streams.LIMIT,
    brigade: Brigade | None = None,
) -> Runner:
    """Make a worker's runner.

    Parameters
    ----------
    spec : str, Executor, Runner or callable
        "threads", "processes", "ray" or "inline"; any `concurrent.futures.Executor`, or a client that offers one
        by `get_executor()`, as Dask's does; a runner; or a callable that is given the worker's name and
        returns one of these. An executor that was passed stays the caller's to shut down; one that a
        callable made is shut down with the worker.
    name : str
        The worker's name.
    slots : int
        How many attempts it runs at once.
    clock : callable
        Gives the seconds that outcomes are stamped with.
    capture : int
        How many characters of a task's output are kept; 0 lets threads print where they stand.
    brigade : Brigade, optional
        Threads that help one another; see `ThreadRunner`.

    Raises
    ------
    InvalidConfig
        `spec` is none of these.
    MissingExtra
        It needs a package that is not installed.

    Examples
    --------
    >>> runner_for("threads", name="worker-1", slots=4)
    <ThreadRunner worker-1: 0 of 4 slots busy, 0 queued>
    >>> runner_for("thread", name="worker-1", slots=4)
    Traceback (most recent call last):
    ...
    agentflow.errors.InvalidConfig: executor='thread' is not known; write 'threads', 'processes', ...
    """
    check_slots(name, slots)
    if isinstance(spec, str) and spec == "threads":
        return ThreadRunner(name, slots, clock=clock, capture=capture, brigade=brigade)
    made = _made(spec, name, slots, clock, capture, owns=False)
    if made is None and callable(spec) and not isinstance(spec, type):
        given = spec(name)
        made = _made(given, name, slots, clock, capture, owns=True)
        if made is None:
            raise _refusal(f"the executor that {spec!r} gave for {name}: {given!r}", spec)
    if made is None:
        raise _refusal(f"executor={spec!r}", spec)
    return made


def _made(spec: Any, name: str, slots: int, clock: Clock, capture: int, owns: bool) -> Runner | None:
    match spec:
        case "threads":
            return ThreadRunner(name, slots, clock=clock, capture=capture)
        case "processes":
            return ProcessRunner(name, slots, clock=clock, capture=capture)
        case "inline":
            return InlineRunner(name, clock=clock)
        case "ray":
            return ExecutorRunner(name, RayExecutor(), slots, owns=True, clock=clock, capture=capture)
    if isinstance(spec, (type, str)):
        return None
    if isinstance(spec, Runner):
        return spec
    if callable(getattr(spec, "get_executor", None)):
        spec = spec.get_executor()
    if isinstance(spec, Executor) or all(callable(getattr(spec, a, None)) for a in ("submit", "shutdown")):
        return ExecutorRunner(name, spec, slots, owns=owns, clock=clock, capture=capture)
    return None


def _refusal(subject: str, spec: Any) -> InvalidConfig:
    hint = f"; did you mean {spec.__name__}()?" if isinstance(spec, type) else ""
    choices = "'threads', 'processes', a concurrent.futures.Executor, or a callable that makes one per worker"
    return InvalidConfig(f"{subject} is not known; write {choices}{hint}", field="executor")
