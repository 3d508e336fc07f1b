"""The graph of a workflow, and where each of its tasks stands.

Law: a task becomes ready once, when its trigger rule is met; a task whose rule can no longer be met is
skipped, with everything that its end decides, and remembers which failure was the root of it. A task that
has come to its end stays there.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from itertools import chain, pairwise
from typing import Any

from agentflow.core.control.triggers import Decision, decide
from agentflow.core.scheduling import analysis
from agentflow.core.scheduling.analysis import CriticalPath
from agentflow.core.scheduling.clock import Clock, default
from agentflow.core.scheduling.links import Links
from agentflow.core.scheduling.states import (
    ALLOWED,
    CODE,
    COMPLETED,
    ENDS,
    FAILURES,
    PENDING,
    READY,
    RUNNING,
    SKIPPED,
    STATES,
    Progress,
    Tally,
)
from agentflow.core.scheduling.tasks import DEFAULT_DURATION_SECS, TaskNode, TaskState, TriggerRule
from agentflow.core.scheduling.validate import check_circles, link
from agentflow.core.scheduling.workflow import TaskSpec, Workflow
from agentflow.errors import DuplicateTask, InvalidConfig, InvalidTransition, MissingDependency, NoSuchTask
from agentflow.ids import TaskId


class TaskDependencyGraph:
    """A workflow's graph: what may run now, in which order, and what the longest chain is.

    Parameters
    ----------
    tasks : iterable, optional
        As for `Workflow`: `("id", [ids it waits for])`, a `TaskNode`, or an id.
    clock : callable, optional
        Gives the time, for measured durations; agentflow's monotonic clock by default.

    Raises
    ------
    CycleInWorkflow, MissingDependency, DuplicateTask
        If it is not a graph that can be run.

    Notes
    -----
    Tasks are integers inside and their links flat arrays: a million tasks with two million dependencies
    are built, ordered and measured in seconds. Nothing recurses, so chains may be of any length.

    Examples
    --------
    >>> graph = TaskDependencyGraph([("build", []), ("unit", ["build"]), ("lint", []), ("ship", ["unit", "lint"])])
    >>> graph.get_ready_tasks()
    ['build', 'lint']
    >>> graph.update_task_state("build", TaskState.COMPLETED)
    ['unit']
    >>> graph.get_execution_order()
    ['build', 'unit', 'lint', 'ship']
    >>> graph.get_critical_path()
    ['build', 'unit', 'ship']
    >>> graph.progress()
    <Progress 1/4 (25 %): 1 completed, 2 ready, 1 pending>
    """

    def __init__(self, tasks: Iterable[TaskSpec] = (), *, clock: Clock | None = None) -> None:
        self._build(Workflow(tasks=tasks), clock)

    @classmethod
    def from_workflow(cls, workflow: Workflow, *, clock: Clock | None = None) -> TaskDependencyGraph:
        """Take the graph of a workflow.

        Tasks begin where their nodes stand, if that is an end; all others begin anew. The workflow itself
        is never changed.

        Parameters
        ----------
        workflow : Workflow
            Whose tasks.
        clock : callable, optional
            Gives the time; agentflow's monotonic clock by default.

        Returns
        -------
        TaskDependencyGraph
            Its books, from the beginning.

        Raises
        ------
        CycleInWorkflow
            Tasks wait for one another in a circle; `cycle` names them, each before the one that waits for it.
        MissingDependency
            A task waits for one that is not there.
        """
        self = cls.__new__(cls)
        self._build(workflow, clock)
        return self

    @classmethod
    def from_edges(
        cls,
        ids: Sequence[TaskId],
        dependencies: Sequence[Sequence[int]],
        durations: Sequence[float] | None = None,
        *,
        clock: Clock | None = None,
    ) -> TaskDependencyGraph:
        """Make the graph of tasks that know each other by position.

        Parameters
        ----------
        ids : sequence of str
            The tasks' names.
        dependencies : sequence of sequences of int
            For each task the positions of those it waits for.
        durations : sequence of float, optional
            Estimated seconds; 1 each by default.

        Examples
        --------
        >>> TaskDependencyGraph.from_edges(["a", "b"], [[], [0]], [2.0, 3.0]).critical_path().length_secs
        5.0
        """
        self = cls.__new__(cls)
        links = Links(list(map(len, dependencies)), chain.from_iterable(dependencies))
        size = len(ids)
        if len(links) != size:
            raise InvalidConfig(f"{size} tasks have {size} lists of dependencies", field="dependencies")
        if links.flat and not 0 <= min(links.flat) <= max(links.flat) < size:
            raise MissingDependency(f"a dependency is no position from 0 to {size - 1}")
        check_circles(links, ids)
        self._start(list(ids), links, clock)
        if len(self._position) < size:
            twice = next(task for at, task in enumerate(ids) if self._position[task] != at)
            raise DuplicateTask(f"there are two tasks {twice!r}", task=twice)
        if durations is not None:
            self._durations = array("d", durations)
            if len(self._durations) != size:
                raise InvalidConfig(f"{size} tasks have {size} durations", field="durations")
        return self

    def _build(self, workflow: Workflow, clock: Clock | None) -> None:
        ids, dependencies, nodes = workflow.parts()
        self._start(ids, link(ids, dependencies), clock)
        ended = []
        for at, node in nodes:
            self._durations[at] = node.estimated_duration_secs
            if node.when is not TriggerRule.ALL_SUCCESS:
                self._rules[at] = node.when
                self._tallies[at] = Tally()
            if node.state.is_final:
                ended.append((at, CODE[node.state]))
        if ended or self._rules:
            self._open(ended)

    def _start(self, ids: list[TaskId], links: Links, clock: Clock | None) -> None:
        self._ids = ids
        self._positions: dict[TaskId, int] | None = None
        self._links = links
        self._clock = default if clock is None else clock
        self._durations = array("d", [DEFAULT_DURATION_SECS]) * len(ids)
        self._rules: dict[int, TriggerRule] = {}
        self._tallies: dict[int, Tally] = {}
        self._roots: dict[int, int] = {}
        self._begun: dict[int, float] = {}
        self._measured: dict[int, float] = {}
        self._state = bytearray(len(ids))
        self._counts = [len(ids)] + [0] * 7
        self._waiting: array[int] | None = None
        self._ready: set[int] = set()

    # --- questions ----------------------------------------------------------------------------------------

    def get_ready_tasks(self) -> list[TaskId]:
        """Tasks that may run now and do not yet, in order of submission."""
        self._waits()
        return [self._ids[task] for task in sorted(self._ready)]

    def can_execute_task(self, task: TaskId) -> bool:
        """Whether the task may run now and does not yet.

        Parameters
        ----------
        task : str
            Its id.

        Returns
        -------
        bool
            True for READY tasks only.
        """
        at = self._at(task)
        self._waits()
        return at in self._ready

    def is_workflow_completed(self) -> bool:
        """Whether every task has come to its end; `progress()` says which."""
        return sum(self._counts[code] for code in ENDS) == len(self._ids)

    def progress(self) -> Progress:
        """Count the tasks in each state."""
        self._waits()
        return Progress(len(self._ids), *self._counts)

    def state(self, task: TaskId) -> TaskState:
        """Where a task stands."""
        at = self._at(task)
        self._waits()
        return STATES[self._state[at]]

    def root_cause(self, task: TaskId) -> TaskId | None:
        """The failed or cancelled task because of which this one never ran, through any depth."""
        root = self._roots.get(self._at(task))
        return None if root is None else self._ids[root]

    def get_execution_order(self) -> list[TaskId]:
        """All tasks, each after those it waits for; of those that may come next, the earliest submitted.

        Examples
        --------
        >>> TaskDependencyGraph([("late", ["a"]), "b", "a"]).get_execution_order()
        ['b', 'a', 'late']
        """
        ids = self._ids
        return ids.copy() if self._links.in_order else [ids[task] for task in self._links.order()]

    def levels(self) -> list[list[TaskId]]:
        """Tasks by rank: those of one rank could run side by side.

        Examples
        --------
        >>> TaskDependencyGraph(["a", "b", ("c", ["a"]), ("d", ["b", "c"])]).levels()
        [['a', 'b'], ['c'], ['d']]
        """
        ids = self._ids
        return [[ids[task] for task in rank] for rank in self._links.levels()]

    def dependencies(self, task: TaskId) -> list[TaskId]:
        """What a task waits for."""
        return [self._ids[other] for other in self._links.before(self._at(task))]

    def dependents(self, task: TaskId) -> list[TaskId]:
        """What waits for a task, in order of submission."""
        return [self._ids[other] for other in self._links.after(self._at(task))]

    def ancestors(self, task: TaskId) -> list[TaskId]:
        """Everything a task waits for, however indirectly, in order of submission."""
        return [self._ids[other] for other in self._links.reach(self._at(task), self._links.before)]

    def descendants(self, task: TaskId) -> list[TaskId]:
        """Everything that waits for a task, however indirectly, in order of submission."""
        return [self._ids[other] for other in self._links.reach(self._at(task), self._links.after)]

    # --- time ---------------------------------------------------------------------------------------------

    def get_critical_path(self) -> list[TaskId]:
        """The chain of tasks that takes longest by their estimates; of equals the earliest submitted."""
        return self.critical_path().tasks

    def critical_path(self, slots: int | None = None, *, measured: bool = False) -> CriticalPath:
        """Say how long the workflow takes at least, and with so many slots.

        Parameters
        ----------
        slots : int, optional
            How many tasks can run at once. Then the result also has the lower bound `max(longest chain,
            work / slots)` and the makespan of a list schedule that prefers the longest remaining chain.
        measured : bool
            Take the durations seen between RUNNING and the end, where there are any, for the estimates.

        Examples
        --------
        >>> graph = TaskDependencyGraph(["a", "b", "c", ("end", ["a"])])
        >>> graph.critical_path(slots=2)
        <CriticalPath 2 s: a -> end; on 2 slots at least 2 s, list schedule 2 s>
        """
        return analysis.critical_path(self._links, self._ids, self._times(measured), slots)

    def schedule(self, slots: int, *, policy: str = "longest", measured: bool = False) -> dict[TaskId, float]:
        """Simulate a list schedule: the instant at which each task begins.

        Parameters
        ----------
        slots : int
            How many tasks can run at once.
        policy : {"longest", "submitted"}
            Which of the ready tasks goes first: that with the longest remaining chain, or the earliest
            submitted.
        """
        starts, _ = analysis.list_schedule(self._links, self._times(measured), slots, policy)
        return dict(zip(self._ids, starts, strict=True))

    def duration(self, task: TaskId) -> float | None:
        """Seconds from RUNNING to the end, once both were seen."""
        return self._measured.get(self._at(task))

    def _times(self, measured: bool) -> Sequence[float]:
        if not (measured and self._measured):
            return self._durations
        found = self._durations[:]
        for task, secs in self._measured.items():
            found[task] = secs
        return found

    # --- changes ------------------------------------------------------------------------------------------

    def update_task_state(
        self, task: TaskId, state: TaskState | str, *, now: float | None = None
    ) -> list[TaskId]:
        """Say what became of a task.

        Parameters
        ----------
        task : str
            Which.
        state : TaskState or str
            Where it stands now. Telling the same again changes nothing.
        now : float, optional
            When; by default the clock is read.

        Returns
        -------
        list of str
            Tasks that became ready by it, in order of submission.

        Raises
        ------
        NoSuchTask
            If there is none.
        InvalidTransition
            If a task in its state cannot come to that one: it still waits for others, or has come to its
            end. Nothing was changed.

        Examples
        --------
        >>> graph = TaskDependencyGraph(["a", ("b", ["a"]), ("c", ["b"])])
        >>> graph.update_task_state("a", "failed")
        []
        >>> graph.state("c").name, graph.root_cause("c")
        ('SKIPPED', 'a')
        """
        at = self._at(task)
        try:
            code = CODE[TaskState(state)]
        except ValueError:
            raise InvalidConfig(f"{state!r} is no state of a task", field="state") from None
        self._waits()
        before = self._state[at]
        if code == before:
            return []
        if code not in ALLOWED[before]:
            raise self._cannot(at, before, code)
        self._measure(at, code, now)
        if code not in ENDS:
            self._move(at, code)
            return []
        return [self._ids[other] for other in sorted(self._settle(at, code))]

    def add_task(self, task: TaskNode | TaskId, dependencies: Iterable[TaskId] = ()) -> bool:
        """Add a task while others run; give whether it is ready at once.

        Parameters
        ----------
        task : TaskNode or str
            The task, or its id.
        dependencies : iterable of str
            What an id alone waits for.

        Returns
        -------
        bool
            Whether it is ready at once.

        Raises
        ------
        DuplicateTask, MissingDependency
            If its id is taken, or it waits for a task that is not there yet.

        Examples
        --------
        >>> graph = TaskDependencyGraph(["a"])
        >>> graph.add_task("b", ["a"])
        False
        """
        node = task if isinstance(task, TaskNode) else TaskNode(task, dependencies=tuple(dependencies))
        if node.id in self._position:
            raise DuplicateTask(
                f"there is a task {node.id!r} already; give this one another id", task=node.id
            )
        for name in node.dependencies:
            if name not in self._position:
                raise MissingDependency(
                    f"{node.id!r} waits for {name!r}, and there is no such task yet",
                    task=node.id,
                    dependency=name,
                )
        waiting = self._waits()
        before = [self._position[name] for name in node.dependencies]
        at = self._links.append(before)
        self._ids.append(node.id)
        self._position[node.id] = at
        self._durations.append(node.estimated_duration_secs)
        self._state.append(PENDING)
        self._counts[PENDING] += 1
        waiting.append(len(before))
        if node.when is not TriggerRule.ALL_SUCCESS:
            self._rules[at], self._tallies[at] = node.when, Tally()
        self._begin(at)
        return at in self._ready

    # --- how states follow from one another ---------------------------------------------------------------

    def _waits(self) -> array[int]:
        """How many dependencies each task still waits for; counted when it is first asked for."""
        if self._waiting is None:
            self._open(())
            assert self._waiting is not None
        return self._waiting

    def _open(self, ended: Iterable[tuple[int, int]]) -> None:
        """Begin: count what is waited for, take over the ends that are known, see what is ready."""
        start = self._links.start
        self._waiting = array("i", [hi - lo for lo, hi in pairwise(start)])
        for at, code in ended:
            self._move(at, code)
        # Everything a task waits for comes before it here, so its own end is known by now.
        for at in self._links.order():
            self._begin(at)

    def _begin(self, at: int) -> None:
        """Decide on a task that has seen none of its dependencies' ends."""
        before = self._links.before(at)
        if self._state[at] == PENDING and (not before or self._rules.get(at) is TriggerRule.ALWAYS):
            self._move(at, READY)
        for other in before:
            if self._state[other] in ENDS:
                self._waits()[at] -= 1
                if self._state[at] == PENDING:
                    self._follow(at, other)

    def _settle(self, at: int, code: int) -> list[int]:
        """Settle a task and everything that its end decides; give those that became ready."""
        waiting = self._waits()
        self._move(at, code)
        stack, found = [at], []
        while stack:
            settled = stack.pop()
            for other in self._links.after(settled):
                waiting[other] -= 1
                if self._state[other] != PENDING:
                    continue
                self._follow(other, settled)
                if self._state[other] == READY:
                    found.append(other)
                elif self._state[other] == SKIPPED:
                    stack.append(other)
        return found

    def _follow(self, at: int, settled: int) -> None:
        """Let a waiting task see the end of one of its dependencies."""
        code = self._state[settled]
        tally = self._tallies.get(at)
        if tally is None:
            if code == COMPLETED:
                if not self._waits()[at]:
                    self._move(at, READY)
                return
            decision = Decision.SKIP
        else:
            failed = code in FAILURES or settled in self._roots
            tally.succeeded += code == COMPLETED
            tally.failed += failed
            tally.skipped += code == SKIPPED and not failed
            total = self._links.start[at + 1] - self._links.start[at]
            decision = decide(self._rules[at], total, tally.succeeded, tally.failed, tally.skipped)
        if decision is Decision.RUN:
            self._move(at, READY)
        elif decision is Decision.SKIP:
            self._move(at, SKIPPED)
            self._blame(at, settled)

    def _blame(self, at: int, settled: int) -> None:
        """Name the root of a skip. Where success was what made the rule hopeless, there is none."""
        if self._state[settled] == COMPLETED and self._rules.get(at) is TriggerRule.ALL_FAILED:
            return
        for other in (settled, *self._links.before(at)):
            if self._state[other] in FAILURES:
                self._roots[at] = other
                return
            if other in self._roots:
                self._roots[at] = self._roots[other]
                return

    def _move(self, at: int, code: int) -> None:
        self._counts[self._state[at]] -= 1
        self._counts[code] += 1
        self._state[at] = code
        if code == READY:
            self._ready.add(at)
        else:
            self._ready.discard(at)

    def _measure(self, at: int, code: int, now: float | None) -> None:
        if code == RUNNING:
            self._begun[at] = self._clock() if now is None else now
        elif (begun := self._begun.pop(at, None)) is not None and code in ENDS:
            self._measured[at] = max(0.0, (self._clock() if now is None else now) - begun)

    def _cannot(self, at: int, before: int, code: int) -> InvalidTransition:
        task = self._ids[at]
        if before == PENDING:
            others = [self._ids[other] for other in self._links.before(at) if self._state[other] not in ENDS]
            why = f"it still waits for {', '.join(map(repr, others[:5]))}{', ...' if len(others) > 5 else ''}"
        elif before in ENDS:
            why = f"it is {STATES[before].name} already, and that is an end"
        else:
            why = f"it is {STATES[before].name}"
        return InvalidTransition(
            f"{task!r} cannot become {STATES[code].name}: {why}",
            task=task,
            state=STATES[before],
            wanted=STATES[code],
        )

    # --- the rest -----------------------------------------------------------------------------------------

    def check_invariants(self) -> None:
        """Assert what must hold between any two changes."""
        waiting = self._waits()
        for code in range(8):
            assert self._counts[code] == self._state.count(code), f"the count of {STATES[code].name} is true"
        assert self._ready == {at for at, code in enumerate(self._state) if code == READY}, (
            "the ready are ready"
        )
        for at in range(len(self._ids)):
            unsettled = sum(self._state[other] not in ENDS for other in self._links.before(at))
            assert waiting[at] == unsettled, "a task waits for its unsettled dependencies"
            assert self._state[at] == SKIPPED or at not in self._roots, "only what never ran has a root"

    @property
    def _position(self) -> dict[TaskId, int]:
        if self._positions is None:
            self._positions = {task: at for at, task in enumerate(self._ids)}
        return self._positions

    def _at(self, task: TaskId) -> int:
        at = self._position.get(task)
        if at is None:
            raise NoSuchTask(f"there is no task {task!r}", task=task)
        return at

    def __len__(self) -> int:
        return len(self._ids)

    def __contains__(self, task: Any) -> bool:
        return task in self._position

    def __repr__(self) -> str:
        edges = len(self._links.flat)
        return f"<TaskDependencyGraph: {len(self._ids)} tasks, {edges} dependencies, {self.progress().settled} settled>"
