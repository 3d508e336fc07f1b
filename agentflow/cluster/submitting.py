"""Handing work to the masters, and finding it again."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, cast

from agentflow.cluster.calls import Workbench
from agentflow.cluster.compiling import Keep, compile_flow
from agentflow.cluster.elastic import CLIENT, Elastic
from agentflow.cluster.locking import NO_LOCKS
from agentflow.cluster.run import Run
from agentflow.cluster.settings import check_readable
from agentflow.cluster.unchanged import unchanged
from agentflow.core.nodes.client import Watch
from agentflow.core.scheduling import Workflow
from agentflow.core.scheduling.options import keywords_of
from agentflow.errors import InvalidConfig, NoSuchTask, Refused, Unknown
from agentflow.ids import AttemptId, NodeId, RunId, TaskId

if TYPE_CHECKING:
    from agentflow.cluster.facade import Facade


class Submitting(Elastic):
    """What takes work."""

    _bench: Workbench
    _runs: dict[RunId, Run]
    _submissions: int
    _has_locks = False

    def _ask(self, node_id: NodeId, request: Any, callback: Callable[[Any, bool], None]) -> None:
        raise NotImplementedError

    def submit(
        self,
        work: Workflow | Callable[..., Any],
        *args: Any,
        idempotency_key: str | None = None,
        commit_timeout: float | None = None,
        keep: Keep = None,
        reuse: Run | None = None,
        **kwargs: Any,
    ) -> Run:
        """Hand work to the masters; return when a majority of them has it, not when it is done.

        Parameters
        ----------
        work : Workflow or callable
            A workflow, or a function to call once with the arguments that follow. Keywords that `Workflow.add`
            defines (`retries`, `group`, ...) are settings of that one task.
        idempotency_key : str, optional
            A second submission with the same key is the first one again: use it to ask again after `Unknown`.
        commit_timeout : float, optional
            Seconds to wait for the majority; by default the masters' `replication_timeout_ms`.
        keep : bool, task, or list of tasks, optional
            Whose values stay when no task needs them any more: all (True), only those of the tasks at the end
            (False), or these as well. By default all, as long as they are no more than 1 GiB together; then
            those go first that were needed last.
        reuse : Run, optional
            Take over from this run the values of tasks whose function, arguments and inputs are the same.

        Returns
        -------
        Run
            What to wait for and to read results from.

        Raises
        ------
        Refused
            Nothing was started: the workflow is wrong, or no majority of masters can be reached (`NoQuorum`).
        Unknown
            It may have been started; submit again with the same key to find out: the error has it as `key`.
        """
        self._check_open()
        if isinstance(work, Workflow):
            if args or kwargs:
                raise InvalidConfig(
                    f"submit({work!r}, ...) takes no further arguments; give them to the workflow's tasks",
                    field="args",
                )
            flow = work
        else:
            flow = Workflow(getattr(work, "__name__", None) or type(work).__name__)
            flow.add(work, *args, **kwargs)
            mine = {
                "idempotency_key": idempotency_key,
                "commit_timeout": commit_timeout,
                "keep": keep,
                "reuse": reuse,
            }
            for option in [name for name, value in mine.items() if value is not None]:
                if option in keywords_of(work):
                    raise InvalidConfig(
                        f"{flow.name} has a parameter {option!r}, and {option}= is an option of submit too; "
                        f"give the function's as kwargs={{{option!r}: {mine[option]!r}}}",
                        field=option,
                    )
        return self._submit(flow, idempotency_key, commit_timeout, keep=keep, reuse=reuse)

    def map(self, fn: Callable[..., Any], *iterables: Iterable[Any], **options: Any) -> Run:
        """Run a function on each item, as one task each; `run.result()` gives the list.

        Parameters
        ----------
        fn : callable
            What to call.
        *iterables : iterable
            One or more; of several, the function gets an item of each, as with the built-in `map`.
        **options
            Settings of the tasks, as for `Workflow.map`.
        """
        self._check_open()
        if not iterables:
            raise InvalidConfig("map needs something to go through: map(fn, items)", field="iterables")
        flow = Workflow(f"map {getattr(fn, '__name__', type(fn).__name__)}")
        if len(iterables) == 1:
            flow.map(fn, iterables[0], **options)
        else:
            for each in iterables:
                if isinstance(each, str | bytes) or not isinstance(each, Iterable):
                    raise InvalidConfig(
                        f"a map goes over a list, a range, ..., not {each!r}", field="iterables"
                    )
            flow.map(Spread(fn), zip(*iterables, strict=False), **options)
        return self._submit(flow, None, None)

    def _submit(
        self,
        flow: Workflow,
        key: str | None,
        timeout: float | None,
        *,
        keep: Keep = None,
        reuse: Run | None = None,
    ) -> Run:
        if key is not None and (not isinstance(key, str) or not key):
            raise InvalidConfig(
                f"an idempotency key is a string with something in it, not {key!r}", field="idempotency_key"
            )
        self._submissions += 1
        key = key or f"{CLIENT}/{self._submissions}"
        for output in flow.sources.values():
            if output.home is not self:
                raise InvalidConfig(f"{output!r} is of another cluster; pass its value instead", field="args")
        taken = None if reuse is None else self._reusable(flow, reuse)
        command, table = compile_flow(flow, key=key, payload=key, keep=keep, taken=taken)
        if not self._has_locks and any(each.locks for each in command.options):
            task = next(node.id for node in flow.tasks.values() if node.locks)
            raise InvalidConfig(f"{task!r} declares locks, and {NO_LOCKS}", field="locks")
        check_readable(command)
        payload = ("payload", key)
        mine = payload not in self._bench.objects
        if mine:
            self._bench.objects.put(payload, table)
        try:
            run_id = self._command(CLIENT, command, timeout)
        except Unknown as error:
            error.key = key  # type: ignore[attr-defined]
            raise
        except Refused:
            if mine:
                self._bench.objects.delete(payload)
            raise
        known = self._runs.get(run_id)
        if known is not None:
            return known
        return self._adopt(Run(run_id, flow, command.ids, key, cast("Facade", self)))

    def _reusable(self, flow: Workflow, run: Run) -> dict[TaskId, AttemptId]:
        """The tasks whose values a run made already, with the attempts that made them."""
        if not isinstance(run, Run) or run.id not in self._runs:
            raise InvalidConfig(f"reuse={run!r} is no run of this cluster", field="reuse")
        made = run.values_made()
        return {task: made[task] for task in unchanged(run.flow, flow) if task in made}

    def _adopt(self, run: Run) -> Run:
        self._runs[run.id] = run
        if not run.done:
            self._ask(CLIENT, Watch(run.id, len(run)), run._hear)
        return run

    def attach(self, run_id: RunId) -> Run:
        """Give a run that was submitted before.

        Raises
        ------
        NoSuchTask
            If there is no run of that id.
        """
        run = self._runs.get(run_id)
        if run is None:
            known = ", ".join(self._runs) or "none"
            raise NoSuchTask(f"there is no run {run_id!r}; this cluster has {known}", task=run_id)
        return run

    @property
    def runs(self) -> dict[RunId, Run]:
        """Every run submitted here, by id."""
        return dict(self._runs)


class Spread:
    """Calls a function with the items of one tuple."""

    def __init__(self, fn: Callable[..., Any]) -> None:
        if not callable(fn):
            raise InvalidConfig(f"{fn!r} cannot be called; a map needs a function", field="fn")
        self.fn = fn
        self.__name__ = getattr(fn, "__name__", None) or type(fn).__name__
        with contextlib.suppress(TypeError, ValueError):
            self.__signature__ = inspect.signature(fn)  # so that its parameters are not taken for options

    def __call__(self, items: tuple[Any, ...], *args: Any, **kwargs: Any) -> Any:
        """Call the function."""
        return self.fn(*items, *args, **kwargs)
