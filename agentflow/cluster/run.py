"""A run: one execution of a workflow, held in a notebook; its results, and what one does with it."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from agentflow.cluster.calls import Missing
from agentflow.cluster.compiling import task_id_of
from agentflow.cluster.progression import Progression
from agentflow.core.control.commands import ErrorReport
from agentflow.core.control.runs import SETTLED, State
from agentflow.core.nodes.messages import Failure
from agentflow.core.scheduling import MapHandle, TaskHandle
from agentflow.core.scheduling.handles import HasOutput, RunOutput
from agentflow.errors import (
    AgentflowError,
    InvalidConfig,
    NoSuchTask,
    ObjectLost,
    TaskCancelled,
    TaskFailed,
    UpstreamFailed,
)
from agentflow.ids import AttemptId, TaskId
from agentflow.views import Watchable, find

if TYPE_CHECKING:
    from agentflow.cluster.frames import RunFrames


NO_WORD = Failure(-1, "a worker", ErrorReport("TaskFailed", "no reason was given"))


class Cancelled(int):
    """How many tasks were cancelled, and which functions run on all the same.

    Attributes
    ----------
    still_running : tuple of str
        Tasks whose functions go on: a Python thread cannot be stopped from outside.
    """

    still_running: tuple[str, ...]

    def __new__(cls, count: int, still_running: Iterable[str] = ()) -> Cancelled:
        """Make one of the count and the names."""
        made = super().__new__(cls, count)
        made.still_running = tuple(still_running)
        return made

    def __repr__(self) -> str:
        if not self.still_running:
            return f"<{int(self)} tasks cancelled>"
        return (
            f"<{int(self)} tasks cancelled; still running in their threads: {', '.join(self.still_running)}>"
        )


class Run(Progression, HasOutput, Watchable):
    """One execution of a workflow; made by `Cluster.submit`.

    Attributes
    ----------
    id : str
        `run-1`, `run-2`, ... in the order the masters took them.
    flow : Workflow
        What runs.
    key : str
        The submission's idempotency key: submitting again with it gives this run.
    """

    # --- results ------------------------------------------------------------------------------------------

    def result(
        self, task: TaskId | TaskHandle | MapHandle | None = None, timeout: float | None = None
    ) -> Any:
        """Give what a task returned, waiting for it.

        Parameters
        ----------
        task : str or handle, optional
            Which one; without it the only task that no other waits for. The handle of a `map` gives a list.
        timeout : float, optional
            Seconds to wait at most.

        Raises
        ------
        TaskFailed
            If its function raised; the exception is the cause.
        UpstreamFailed, TaskCancelled
            If it never ran, or was cancelled.
        TimedOut
            If the time is over; the run goes on.
        """
        if task is None:
            task = self._only_end()
        if isinstance(task, MapHandle) and task.static:
            clock = self._home.clock
            limit = None if timeout is None else clock() + timeout
            return [self.result(each, None if limit is None else max(0.0, limit - clock())) for each in task]
        name = task_id_of(task)
        at = self._find(name)
        self._wait(lambda: self._done or self._state[at] in SETTLED, timeout, repr(name))
        if self._lost is not None and self._state[at] not in SETTLED:
            raise self._lost
        return self._outcome(at)

    def results(
        self, errors: Literal["raise", "skip", "return"] = "raise", timeout: float | None = None
    ) -> dict[TaskId, Any]:
        """Give every task's value, waiting for all.

        Parameters
        ----------
        errors : {"raise", "skip", "return"}
            What to do with tasks that have none: raise the first error, leave them out, or put the error in
            the value's place.
        timeout : float, optional
            Seconds to wait at most.

        Returns
        -------
        dict
            Task id to value, in order of submission.
        """
        if errors not in ("raise", "skip", "return"):
            raise InvalidConfig(f"errors is 'raise', 'skip' or 'return', not {errors!r}", field="errors")
        self.wait(timeout)
        return self._known(errors)

    def _known(self, errors: Literal["raise", "skip", "return"]) -> dict[TaskId, Any]:
        """The values of what has settled, without waiting for more."""
        found: dict[TaskId, Any] = {}
        for at, name in enumerate(self._ids):
            if self._state[at] not in SETTLED:
                continue
            try:
                found[name] = self._outcome(at)
            except (TaskFailed, UpstreamFailed, TaskCancelled, ObjectLost) as error:
                if errors == "raise":
                    raise
                if errors == "return":
                    found[name] = error
        return found

    def _only_end(self) -> TaskId | MapHandle:
        ends = self.flow.ends()
        if len(ends) == 1:
            return ends[0]
        if not ends:
            raise InvalidConfig(f"{self.id} has no tasks, so it has no result", field="task")
        raise InvalidConfig(
            f"{self.id} ends in {len(ends)} tasks; name the one whose result is wanted: "
            f"{', '.join(repr(task_id_of(end)) for end in ends[:8])}{', ...' if len(ends) > 8 else ''}",
            field="task",
        )

    def _find(self, name: TaskId) -> int:
        at = self._position.get(name)
        if at is None:
            raise NoSuchTask(f"{self.id} has no task {name!r}; run.tasks lists them", task=name)
        return at

    def _outcome(self, at: int) -> Any:
        """Give a settled task's value, or raise what stands in its place."""
        state, name = self._state[at], self._ids[at]
        if state == State.COMPLETED:
            if at in self._released:
                raise ObjectLost(
                    f"the value of {name!r} was released when no task needed it any more; submit(keep=...) keeps "
                    f"it, and run.retry(tasks=[{name!r}]) computes it again",
                    key=name,
                )
            try:
                return self._home.value_of(self._value[at])
            except ObjectLost:
                raise ObjectLost(
                    f"the value of {name!r} of {self.id} is gone: the run was released; submit the workflow again",
                    key=name,
                ) from None
        if state == State.CANCELLED:
            raise TaskCancelled(f"{name!r} of {self.id} was cancelled before it finished", task=name)
        if state == State.SKIPPED:
            raise self._skipped(at)
        raise self._failure(at)

    def _skipped(self, at: int) -> AgentflowError:
        name, root = self._ids[at], self._roots.get(at)
        if root is None:
            return UpstreamFailed(
                f"{name!r} of {self.id} was skipped by its trigger rule", task=name, root=None
            )
        cause = self._ids[root]
        if self._state[root] == State.CANCELLED:
            return TaskCancelled(
                f"{name!r} of {self.id} never ran: {cause!r} before it was cancelled", task=name
            )
        error = UpstreamFailed(
            f"{name!r} of {self.id} never ran: {cause!r} before it failed", task=name, root=cause
        )
        error.__cause__ = self._failure(root)
        return error

    def _failure(self, at: int) -> TaskFailed:
        name, failure = self._ids[at], self._errors.get(at) or NO_WORD
        report = failure.report
        shown = f"\n\n{report.traceback}" if report.traceback else ""
        error = TaskFailed(
            f"{name!r} of {self.id} failed on {failure.worker} (attempt {failure.attempt}): "
            f"{report.type}: {report.message}{shown}",
            task=name,
            attempt=failure.attempt,
            worker=failure.worker,
            traceback=report.traceback,
        )
        error.__cause__ = self._home.error_of(failure.attempt)
        return error

    # --- what one does with it ----------------------------------------------------------------------------

    def cancel(self) -> Cancelled:
        """Cancel every task that has not settled.

        A Python thread cannot be stopped: a function that runs goes on to its end, its result is refused, and
        another thread takes its place meanwhile. A process is killed.

        Returns
        -------
        Cancelled
            How many tasks were cancelled; its `still_running` names those whose functions go on.
        """
        return self._home.cancel(self.id)

    def retry(self, *, failed_only: bool = True, tasks: Iterable[TaskId | TaskHandle] | None = None) -> Run:
        """Run tasks again that have come to their end; what they need and is gone is computed again too.

        Parameters
        ----------
        failed_only : bool
            What failed, was cancelled or never ran because of that; otherwise every task.
        tasks : list of str or handle, optional
            These tasks instead.

        Returns
        -------
        Run
            Itself, under way again.
        """
        names = () if tasks is None else tuple(task_id_of(task) for task in tasks)
        for name in names:
            self._find(name)
        if tasks is None or names:
            self._home.retry(self, names, not failed_only)
        return self

    def rerun(self, task: TaskId | TaskHandle, *, debug: bool = False) -> Any:
        """Call a task's function here, in this thread, with its real inputs; the run itself does not change.

        Parameters
        ----------
        task : str or handle
            Which one; the tasks before it have completed.
        debug : bool
            Open the debugger where it raises.

        Returns
        -------
        Any
            What the function returns.
        """
        call = self._home.perform_here(self, self._find(task_id_of(task)))
        try:
            value = call()
            return asyncio.run(value) if asyncio.iscoroutine(value) else value
        except Exception as error:
            if debug:
                post_mortem(error)
            raise

    def output(self, task: TaskId | TaskHandle | MapHandle | None = None) -> RunOutput | list[RunOutput]:
        """Give what stands for a task's result among the arguments of another workflow's tasks.

        The run itself does so for its only end: `flow.add(fn, run)`.

        Parameters
        ----------
        task : str or handle, optional
            Which one.
        """
        task = self._only_end() if task is None else task
        if isinstance(task, MapHandle) and task.static:
            return [RunOutput(self._home, self.id, self._ids[self._find(each.id)]) for each in task]
        name = task_id_of(task)
        self._find(name)
        return RunOutput(self._home, self.id, name)

    def release(self) -> None:
        """Drop the run's values and tables on the cluster; what this object knows it keeps."""
        self._home.forget(self.id)

    @property
    def frames(self) -> RunFrames:
        """The run's tables as DataFrames: `tasks()`, `attempts()`, `results()`, `errors()`."""
        return self._home.run_frames(self)

    @property
    def plot(self) -> Any:
        """Pictures of the run: `view()`, `graph()`, `gantt()`, `utilisation()`, `task(id)`.

        Each gives a picture that shows itself and has `.save("x.svg" | "x.html" | "x.png")`; `gantt` and
        `utilisation` draw on a matplotlib axis if one is passed.
        """
        return drawn("plot", self)

    def gantt(self) -> Any:
        """Give the picture of every attempt by worker and time."""
        return self.plot.gantt()

    def graph(self) -> Any:
        """Give the picture of the graph, coloured by state, with the critical path."""
        return self.plot.graph()

    def report(self, path: str | os.PathLike[str]) -> Path:
        """Write one self-contained HTML file: graph, Gantt, elections, workers, slowest tasks, errors, versions.

        Parameters
        ----------
        path : str or path
            Ends in `.html`.
        """
        written: Path = drawn("report", self)(path)
        return written

    def explain(self, task: TaskId | TaskHandle) -> str:
        """Say in words why a task is where it is: what it waits for, or how it ended."""
        name = task_id_of(task)
        self._find(name)
        return self._home.explain(self, name)

    def values_made(self) -> dict[TaskId, AttemptId]:
        """Give the attempts that made the values which are kept, by task."""
        with self._changed:
            return {
                name: self._value[at]
                for at, name in enumerate(self._ids)
                if self._state[at] == State.COMPLETED and at not in self._released
            }

    def missing(self) -> list[Missing]:
        """List what has no value, with the reason."""
        return [
            Missing(self._ids[at], State(self._state[at]).name)
            for at in dict.fromkeys(self._settled)
            if self._state[at] in SETTLED and self._value[at] < 0
        ]


def post_mortem(error: BaseException) -> None:
    """Open the debugger where an exception was raised: IPython's own in a notebook."""
    if "IPython" in sys.modules and sys.modules["IPython"].get_ipython() is not None:
        from IPython.core.debugger import Pdb

        debugger: Any = Pdb()
        debugger.reset()
        debugger.interaction(None, error.__traceback__)
    else:
        import pdb

        pdb.post_mortem(error.__traceback__)


def drawn(kind: str, subject: Any) -> Any:
    """Give a view by its kind; those who draw are imported now, and not before."""
    draw = find(kind, type(subject))
    assert draw is not None, f"{kind!r} of {type(subject).__name__} is registered by the provider of views"
    return draw(subject)
