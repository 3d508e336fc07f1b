"""The workflow: a graph of tasks, as its author builds it.

Law: what cannot be a task is refused when it is added and leaves the workflow as it was; what only shows
in the whole (a circle, a dependency that never came) is refused by `validate`, before anything runs.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeAlias

from agentflow.core.scheduling.forms import Forms
from agentflow.core.scheduling.handles import (
    ATOMS,
    Call,
    Handle,
    HasOutput,
    MapHandle,
    RunOutput,
    TaskHandle,
    find_handles,
    replace_outputs,
)
from agentflow.core.scheduling.options import (
    OPTIONS,
    UNSET,
    Tasks,
    given_options,
    ids_of,
    keywords_of,
    name_of,
    node_of,
)
from agentflow.core.scheduling.tasks import (
    Attribute,
    Backoff,
    PriorityLike,
    RetryOn,
    TaskNode,
    TriggerRule,
    check_id,
    check_name,
)
from agentflow.core.scheduling.validate import link
from agentflow.errors import DuplicateTask, InvalidConfig, NoSuchTask
from agentflow.ids import TaskId
from agentflow.views import Viewable

TaskSpec: TypeAlias = TaskNode | tuple[TaskId, Iterable[TaskId]] | TaskId
After: TypeAlias = Handle | TaskId | Iterable[Handle | TaskId]


class Workflow(Forms, Viewable):
    """A named graph of tasks.

    Parameters
    ----------
    name : str
        What people see.
    tasks : iterable, optional
        Tasks to begin with: `("id", [ids it waits for])`, a `TaskNode`, or an id. They may name tasks that
        come later. Such tasks have no function: they do nothing, and in virtual time take as long as
        estimated.

    Attributes
    ----------
    tasks : Mapping
        Id to `TaskNode`, in order of submission.
    calls : dict
        Id to `Call`, for the tasks that have a function.
    expansions : dict
        Id to source, for the maps that expand when the value of another task is there.
    maps : dict
        Id to `MapHandle`, for every map.
    sources : dict
        Id to `RunOutput`, for the tasks that stand for results of other runs.

    Examples
    --------
    >>> flow = Workflow("build-and-test", tasks=[("build", []), ("test", ["build"])])
    >>> flow
    <Workflow 'build-and-test': 2 tasks>

    or built up from functions, whose handles say what depends on what:

    >>> flow = Workflow("etl")
    >>> raw = flow.add(str.split, "c a b", id="load", priority="high", retries=2, timeout=30)
    >>> rows = flow.add(sorted, raw)
    >>> @flow.task(after=[rows])
    ... def publish():
    ...     print("published")
    >>> {task: node.dependencies for task, node in flow.tasks.items()}
    {'load': (), 'sorted': ('load',), 'publish': ('sorted',)}
    """

    def __init__(self, name: str = "workflow", tasks: Iterable[TaskSpec] | None = None) -> None:
        check_name("a workflow's name", name)
        self.name = name
        self.calls: dict[TaskId, Call] = {}
        self.expansions: dict[TaskId, Handle] = {}
        self.maps: dict[TaskId, MapHandle] = {}
        self.sources: dict[TaskId, RunOutput] = {}
        self._used_maps: set[TaskId] = set()
        self._counters: dict[str, int] = {}
        self._parameters: dict[Any, frozenset[str]] = {}
        self._async: dict[Any, bool] = {}
        self._nodes: dict[TaskId, TaskNode | tuple[TaskId, ...]] = {}
        self.tasks = Tasks(self._nodes)
        self._put_all(tasks or ())

    # --- adding tasks -------------------------------------------------------------------------------------

    def add(
        self,
        fn: Callable[..., Any],
        /,
        *args: Any,
        id: TaskId = UNSET,  # noqa: A002
        name: str = UNSET,
        priority: PriorityLike = UNSET,
        group: str | None = UNSET,
        retries: int = UNSET,
        timeout: float | None = UNSET,
        backoff: Backoff | None = UNSET,
        when: TriggerRule | str = UNSET,
        after: After = UNSET,
        resources: Mapping[str, float] | None = UNSET,
        requires: Mapping[str, Attribute] | None = UNSET,
        duration: float = UNSET,
        locks: Iterable[str] | str = UNSET,
        retry_on: RetryOn | None = UNSET,
        kwargs: Mapping[str, Any] | None = UNSET,
        **keyword_args: Any,
    ) -> TaskHandle:
        """Add a call of a function as a task.

        Parameters
        ----------
        fn : callable
            What to call; a coroutine function is awaited.
        *args, **keyword_args
            What to call it with. The handles among them, also inside lists, tuples, dicts and sets, are
            dependencies, and are replaced by those tasks' results.
        id : str, optional
            By default the function's name, with a counter where that is taken: `clean`, `clean-2`.
        name : str, optional
            What people see; the id by default.
        priority : TaskPriority, int or str
            MEDIUM by default.
        group : str, optional
            The only worker group in which it may run.
        retries : int
            How many times it is tried again; 0 by default.
        timeout : float, optional
            Seconds that one try may take.
        backoff : Backoff, optional
            How long to wait between two tries.
        when : TriggerRule or str
            When it may run, given how its dependencies ended: `"all_success"` by default.
        after : handle, id, or iterable of these
            Tasks to wait for without taking their results.
        resources : dict, optional
            What it takes of its worker while it runs: `{"gpu": 1}`.
        requires : dict, optional
            What its worker must be: `{"arch": "x86_64"}`.
        duration : float
            Estimated seconds, for the critical path and virtual time; 1 by default.
        locks : iterable of str
            Locks held around each try, by key: of all who ask for one, in every cluster that names the
            same database, one has it at a time. Its token is `af.current_task().token` inside.
        retry_on : exception type, tuple of types, or callable, optional
            Which exceptions are worth another try.
        kwargs : dict, optional
            Further keyword arguments of the function: those whose names are taken by the options above.

        Returns
        -------
        TaskHandle
            Stands for the task, and for its result among other tasks' arguments.

        Raises
        ------
        DuplicateTask
            If the id is taken.
        InvalidConfig
            If `fn` cannot be called, an option cannot work, a handle is another workflow's, or an option's
            name is also a parameter of the function: then it is not clear who is meant.

        Examples
        --------
        >>> def fetch(url, timeout): ...
        >>> flow = Workflow("names")
        >>> flow.add(fetch, "https://example.org", timeout=30)
        Traceback (most recent call last):
            ...
        agentflow.errors.InvalidConfig: fetch has a parameter 'timeout', and timeout= is an option of its
        task too; give the function's as kwargs={'timeout': 30}
        >>> flow.add(fetch, "https://example.org", kwargs={"timeout": 30}, timeout=60)
        <TaskHandle 'fetch' of 'names'>
        """
        given = given_options(locals())
        call, dependencies = self._call(fn, args, keyword_args, given)
        task = self._insert(fn, given, dependencies)
        self.calls[task] = call
        return TaskHandle(self, task)

    def map(
        self,
        fn: Callable[..., Any],
        items: Iterable[Any] | Handle,
        /,
        *args: Any,
        id: TaskId = UNSET,  # noqa: A002
        name: str = UNSET,
        priority: PriorityLike = UNSET,
        group: str | None = UNSET,
        retries: int = UNSET,
        timeout: float | None = UNSET,
        backoff: Backoff | None = UNSET,
        when: TriggerRule | str = UNSET,
        after: After = UNSET,
        resources: Mapping[str, float] | None = UNSET,
        requires: Mapping[str, Attribute] | None = UNSET,
        duration: float = UNSET,
        locks: Iterable[str] | str = UNSET,
        retry_on: RetryOn | None = UNSET,
        kwargs: Mapping[str, Any] | None = UNSET,
        **keyword_args: Any,
    ) -> MapHandle:
        """Add one task an item: `fn(item, *args, **keyword_args)`.

        Over things that are there the tasks are added now, with ids `clean[0]`, `clean[1]`, ... Over the
        handle of a task (or of a late map) one task is added, which expands when that value is there.

        Parameters
        ----------
        fn : callable
            What to call with each item.
        items : iterable or handle
            The items, or the task whose result has them.
        *args, **keyword_args, id, name, priority, ...
            As in `add`; they are the same for every item.

        Returns
        -------
        MapHandle
            Stands for the list of results.

        Raises
        ------
        DuplicateTask, InvalidConfig
            As in `add`; then no task was added.

        Examples
        --------
        >>> flow = Workflow("maps")
        >>> words = flow.map(str.upper, ["a", "b"])
        >>> line = flow.add(" ".join, words)
        >>> line.node.dependencies
        ('upper[0]', 'upper[1]')
        """
        given = given_options(locals())
        items = replace_outputs(items, self._source) if isinstance(items, HasOutput | RunOutput) else items
        if isinstance(items, TaskHandle) or (isinstance(items, MapHandle) and not items.static):
            call, dependencies = self._call(fn, (items, *args), keyword_args, given)
            task = self._insert(fn, given, dependencies)
            self.calls[task] = call
            self.expansions[task] = items
            handle = MapHandle(self, task, (), items)
            self.maps[task] = handle
            return handle
        if isinstance(items, str | bytes) or not isinstance(items, Iterable):
            raise InvalidConfig(
                f"a map goes over a list, a range, ... or a handle, not {items!r}", field="items"
            )
        return self._map_now(fn, replace_outputs(list(items), self._source), args, keyword_args, given)

    def _map_now(
        self,
        fn: Callable[..., Any],
        items: list[Any],
        args: tuple[Any, ...],
        keyword_args: dict[str, Any],
        given: dict[str, Any],
    ) -> MapHandle:
        # The settings and what every item shares are checked once, and before the first item is added.
        shared, common = self._call(fn, args, keyword_args, given)
        stem = self._free_id(fn, given)
        ids = [f"{stem}[{i}]" for i in range(len(items))]
        if not ids:
            node_of(stem, given, common)
        nodes, calls = [], []
        for task, item in zip(ids, items, strict=True):
            if task in self._nodes:
                raise self._duplicate(task)
            handles = [] if type(item) in ATOMS else self._own(find_handles(item))
            dependencies = (*ids_of(handles), *common) if handles else common
            nodes.append(node_of(task, given, dependencies))
            calls.append(
                Call(fn, (item, *args), shared.kwargs, shared.has_handles or bool(handles), shared.is_async)
            )
        for task, node, call in zip(ids, nodes, calls, strict=True):
            self._nodes[task] = node
            self.calls[task] = call
        handle = MapHandle(self, stem, [TaskHandle(self, task) for task in ids])
        self.maps[stem] = handle
        return handle

    def task(self, *args: Any, **options: Any) -> Any:
        """Make a task of the function that follows.

        Parameters
        ----------
        *args
            What to call it with: handles, mostly.
        **options
            As in `add`.

        Returns
        -------
        callable
            The decorator. What it leaves behind is the task's handle, which can also be called like the
            function: that runs it here and now, outside any run.

        Examples
        --------
        >>> flow = Workflow("decorated")
        >>> @flow.task
        ... def numbers():
        ...     return [1, 2, 3]
        >>> @flow.task(numbers, priority="high")
        ... def total(values):
        ...     return sum(values)
        >>> total.node.dependencies, total([4, 5])
        (('numbers',), 9)
        """
        if len(args) == 1 and not options and inspect.isroutine(args[0]):
            return self.task()(args[0])

        def decorate(fn: Callable[..., Any]) -> TaskHandle:
            if callable(fn) and not isinstance(fn, TaskHandle):
                arguments = {k: v for k, v in options.items() if k not in OPTIONS} | (
                    options.get("kwargs") or {}
                )
                try:
                    inspect.signature(fn).bind(*args, **arguments)
                except TypeError as error:
                    raise InvalidConfig(
                        f"{name_of(fn)} cannot be called as a task: {error}; its arguments go before the "
                        f"options, as in @flow.task(other_task, retries=2)",
                        field="args",
                    ) from None
                except ValueError:
                    pass  # A builtin that does not tell its parameters.
            return self.add(fn, *args, **options)

        return decorate

    def add_task(self, task: TaskNode | TaskId, dependencies: Iterable[TaskId] = ()) -> TaskHandle:
        """Add a task that has no function: a `TaskNode`, or an id and what it waits for.

        Examples
        --------
        >>> flow = Workflow("plan")
        >>> flow.add_task("test", ["build"]), flow.add_task(TaskNode("build", priority="high"))
        (<TaskHandle 'test' of 'plan'>, <TaskHandle 'build' of 'plan'>)
        """
        self._put(task if isinstance(task, TaskNode) else (task, dependencies))
        return TaskHandle(self, next(reversed(self._nodes)))

    # --- reading ------------------------------------------------------------------------------------------

    def validate(self) -> None:
        """Check the graph as a whole.

        Raises
        ------
        MissingDependency
            If a task waits for one that is not there.
        CycleInWorkflow
            If tasks wait for one another in a circle; `cycle` names them, each before the one that waits
            for it.
        """
        link(list(self._nodes), list(self._dependencies()))

    def parts(self) -> tuple[list[TaskId], list[tuple[TaskId, ...]], Iterator[tuple[int, TaskNode]]]:
        """Give the ids, what each waits for, and by position the tasks that are more than these two."""
        nodes = ((at, node) for at, node in enumerate(self._nodes.values()) if isinstance(node, TaskNode))
        return list(self._nodes), list(self._dependencies()), nodes

    def ends(self) -> list[TaskId | MapHandle]:
        """Tasks that no other waits for; a map of which that is true as a whole is its handle.

        Examples
        --------
        >>> flow = Workflow("open")
        >>> parts = flow.map(abs, [1, -2])
        >>> flow.ends()
        [<MapHandle 'abs' of 'open': 2 tasks>]
        """
        ends = dict.fromkeys(self._nodes)
        for dependencies in self._dependencies():
            for dependency in dependencies:
                ends.pop(dependency, None)
        found: dict[TaskId, TaskId | MapHandle] = {task: task for task in ends}
        for stem, handle in self.maps.items():
            if not handle.static:
                continue
            items = [each.id for each in handle]
            if all(task in found for task in items) and (items or stem not in self._used_maps):
                for task in items[1:]:
                    del found[task]
                found[items[0] if items else stem] = handle
        return list(found.values())

    def __getitem__(self, task: TaskId) -> Handle:
        """Give the handle of a task or a map."""
        if task in self.maps:
            return self.maps[task]
        if task not in self._nodes:
            raise NoSuchTask(f"{self.name!r} has no task {task!r}", task=task)
        return TaskHandle(self, task)

    def __contains__(self, task: object) -> bool:
        return task in self._nodes

    def __iter__(self) -> Iterator[TaskId]:
        return iter(self._nodes)

    def __len__(self) -> int:
        return len(self._nodes)

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        count = len(self._nodes)
        return f"<Workflow {self.name!r}: {count} task{'' if count == 1 else 's'}>"

    # --- helpers ------------------------------------------------------------------------------------------

    def _dependencies(self) -> Iterator[tuple[TaskId, ...]]:
        for node in self._nodes.values():
            yield node if isinstance(node, tuple) else node.dependencies

    def _put_all(self, tasks: Iterable[TaskSpec]) -> None:
        nodes = self._nodes
        for spec in tasks:
            # The common case at the least cost; what is odd about any other is found by `_put`.
            if type(spec) is tuple and len(spec) == 2 and type(task := spec[0]) is str and task not in nodes:
                after = spec[1]
                if type(after) is list or type(after) is tuple:
                    count = len(after)
                    if task and (
                        count < 2 or (count == 2 and after[0] != after[1]) or len(set(after)) == count
                    ):
                        nodes[task] = tuple(after)
                        continue
            self._put(spec)

    def _put(self, spec: Any) -> None:
        """Add a task without a function. A pair stays a pair until somebody asks for its node."""
        if isinstance(spec, TaskNode):
            task: TaskId = spec.id
            entry: TaskNode | tuple[TaskId, ...] = spec
        elif isinstance(spec, str):
            task, entry = check_id(spec), ()
        else:
            if not isinstance(spec, tuple | list) or len(spec) != 2:
                raise InvalidConfig(
                    f"a task is (id, dependencies) or a TaskNode, not {spec!r}", field="tasks"
                )
            task, after = spec
            if type(task) is not str or not task:
                check_id(task)
            entry = TaskNode(task, dependencies=after).dependencies
        if task in self._nodes or task in self.maps:
            raise self._duplicate(task)
        self._nodes[task] = entry

    def _call(
        self,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        keyword_args: dict[str, Any],
        given: dict[str, Any],
    ) -> tuple[Call, tuple[TaskId, ...]]:
        """Check a call; give it with the ids of the tasks it waits for."""
        if isinstance(fn, TaskHandle | MapHandle):
            raise InvalidConfig(f"{fn.id!r} is a task already; pass it as an argument instead", field="fn")
        if not callable(fn):
            raise InvalidConfig(f"a task calls a function, and {fn!r} is none", field="fn")
        extra = given.pop("kwargs", None) or {}
        if given:
            self._check_names(fn, given, extra)
        if extra:
            if not isinstance(extra, Mapping):
                raise InvalidConfig(f"kwargs={extra!r} is no dict of keyword arguments", field="kwargs")
            if both := keyword_args.keys() & extra.keys():
                raise InvalidConfig(f"{min(both)!r} is given twice, once in kwargs=", field="kwargs")
            keyword_args = {**keyword_args, **extra}
        handles: list[Handle] = []
        for value in (*args, *keyword_args.values()) if keyword_args else args:
            if type(value) is TaskHandle:
                handles.append(value)
            elif type(value) not in ATOMS:
                handles += find_handles(value)
        if any(isinstance(each, RunOutput | HasOutput) for each in handles):
            args = replace_outputs(args, self._source)
            keyword_args = replace_outputs(keyword_args, self._source)
            handles = find_handles([*args, *keyword_args.values()])
        call = Call(fn, args, keyword_args, bool(handles), self._is_async(fn))
        after = given.pop("after", None)
        ids = ids_of(self._own(handles)) if handles else ()
        return call, (ids if after is None else (*ids, *self._after(after)))

    def _source(self, output: RunOutput) -> TaskHandle:
        """Give the task that stands for the result of another run."""
        task = f"{output.run}/{output.task}"
        if task not in self.sources:
            if task in self._nodes:
                raise self._duplicate(task)
            self._nodes[task] = ()
            self.sources[task] = output
        return TaskHandle(self, task)

    def _check_names(self, fn: Any, given: dict[str, Any], extra: Mapping[str, Any]) -> None:
        """Refuse an option that could as well be meant for the function."""
        try:
            parameters = self._parameters.get(fn)
        except TypeError:
            parameters = keywords_of(fn)
        else:
            if parameters is None:
                parameters = self._parameters[fn] = keywords_of(fn)
        for option, value in given.items():
            if option in parameters and option not in extra:
                raise InvalidConfig(
                    f"{name_of(fn)} has a parameter {option!r}, and {option}= is an option of its task too; "
                    f"give the function's as kwargs={{{option!r}: {value!r}}}",
                    field=option,
                )

    def _is_async(self, fn: Any) -> bool:
        """Whether it is a coroutine function; looked up once for many tasks of one function."""
        try:
            found = self._async.get(fn)
            if found is None:
                found = self._async[fn] = inspect.iscoroutinefunction(fn)
        except TypeError:
            found = inspect.iscoroutinefunction(fn)
        return found

    def _insert(self, fn: Any, given: dict[str, Any], dependencies: tuple[TaskId, ...]) -> TaskId:
        task = self._free_id(fn, given)
        self._nodes[task] = node_of(task, given, dependencies)
        return task

    def _free_id(self, fn: Any, given: dict[str, Any]) -> TaskId:
        """The id asked for, or one made of the function's name."""
        task: TaskId
        if given.get("id") is not None:
            task = check_id(given.pop("id"))
            if task in self._nodes or task in self.maps:
                raise self._duplicate(task)
            return task
        given.pop("id", None)
        stem = name_of(fn)
        # The counter only says where to begin looking, so an id that was not used after all is not lost.
        count = self._counters.get(stem, 1)
        while (task := stem if count == 1 else f"{stem}-{count}") in self._nodes or task in self.maps:
            count += 1
        self._counters[stem] = count
        return task

    def _duplicate(self, task: TaskId) -> DuplicateTask:
        return DuplicateTask(
            f"{self.name!r} has a task {task!r} already; give this one another id", task=task
        )

    def _after(self, after: Any) -> tuple[TaskId, ...]:
        """Read `after=`."""
        several = [after] if isinstance(after, str | TaskHandle | MapHandle) else after
        if not isinstance(several, Iterable):
            raise InvalidConfig(f"after={after!r} is no handle, id, or list of these", field="after")
        ids: list[TaskId] = []
        for each in several:
            if isinstance(each, str):
                handle = self.maps.get(each)
                ids += [each] if handle is None or each in self._nodes else ids_of(self._own([handle]))
            elif isinstance(each, TaskHandle | MapHandle):
                ids += ids_of(self._own([each]))
            else:
                raise InvalidConfig(f"after={each!r} is no handle and no id", field="after")
        return tuple(ids)

    def use(self, handle: MapHandle) -> MapHandle:
        """Note that somebody waits for a map; give it back."""
        self._used_maps.add(handle.id)
        return handle

    def is_used(self, handle: MapHandle) -> bool:
        """Whether somebody waits for a map as a whole."""
        return handle.id in self._used_maps

    def _own(self, handles: list[Handle]) -> list[Handle]:
        """Refuse handles of another workflow; remember the maps that somebody waits for."""
        for handle in handles:
            if handle.flow is not self:
                raise InvalidConfig(
                    f"{handle.id!r} is a task of {handle.flow.name!r}, not of {self.name!r}; a task can only "
                    f"wait for one of its own workflow",
                    field="args",
                    task=handle.id,
                )
        self._used_maps.update(handle.id for handle in handles if isinstance(handle, MapHandle))
        return handles
