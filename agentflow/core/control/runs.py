"""One execution of a workflow, as the control plane keeps it.

Law: `changes` lists each task when it settles, when it is brought back to be run again, and when its value
is released, in this order; so its length is the version that followers of a run ask from.

Tasks are positions in parallel lists: a run of a hundred thousand tasks is a dozen lists, not as many
objects, and one command's worth of work touches a few cells of each.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import IntEnum
from itertools import accumulate

import msgspec

from agentflow.core.control.commands import (
    AttemptState,
    ErrorReport,
    SubmitRun,
    TaskKind,
    TaskOptions,
)
from agentflow.ids import AttemptId, NodeId, RunId, TaskId


class State(IntEnum):
    """The life of a task; the names are the public `TaskState`'s."""

    PENDING = 0
    READY = 1
    RUNNING = 2
    COMPLETED = 3
    FAILED = 4
    RETRYING = 5
    CANCELLED = 6
    SKIPPED = 7


SETTLED = frozenset({State.COMPLETED, State.FAILED, State.CANCELLED, State.SKIPPED})


class AttemptRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One finished try at a task: a row of the attempts table."""

    attempt: AttemptId
    task: int
    number: int
    worker: NodeId
    state: AttemptState
    assigned: float
    started: float
    finished: float
    cpu: float = 0.0
    bytes: int = 0
    error: ErrorReport | None = None
    stdout: str = ""


class Tally(msgspec.Struct):
    """How a task's settled dependencies ended; kept only where a trigger rule asks."""

    succeeded: int = 0
    failed: int = 0
    skipped: int = 0


class Graft(msgspec.Struct, frozen=True, array_like=True):
    """The workflow that a task returned: where its tasks begin, which attempt returned it, its ends."""

    base: int
    attempt: AttemptId
    ends: tuple[int, ...]


class RunState(msgspec.Struct):
    """The tables of one run.

    Per task, by position: `ids`, `dependencies`, `kinds` (only where not CALL), `option_of`, `waiting`
    (dependencies not yet completed), `state`, `tries` (attempts so far), `value` (the attempt whose result is
    the task's, -1 for none), `ready_at`, `settled_at`.

    The tasks that wait for task `t` are `targets[offsets[t] : offsets[t + 1]]`, and `later[t]` of those that
    were added while the run went on: a list a task would be a burden to the garbage collector.

    `left` counts tasks that have not settled. `held` counts the bytes of values made and not released, and
    `needed`, once there are more of them than `budget`, for each task those that still need its value.
    """

    id: RunId
    key: str
    name: str
    payload: str
    client: NodeId
    submitted_at: float
    ids: list[TaskId]
    dependencies: list[tuple[int, ...]]
    offsets: list[int]
    targets: list[int]
    options: list[TaskOptions]
    option_of: list[int]
    waiting: list[int]
    state: bytearray
    tries: list[int]
    value: list[int]
    ready_at: list[float]
    settled_at: list[float]
    counts: list[int]
    left: int
    later: dict[int, list[int]] = {}
    changes: list[int] = []
    kinds: dict[int, TaskKind] = {}
    gather_of: dict[int, int] = {}
    item_of: dict[int, tuple[int, int]] = {}
    tallies: dict[int, Tally] = {}
    failures: dict[int, int] = {}
    deaths: dict[int, int] = {}
    errors: dict[int, ErrorReport] = {}
    root: dict[int, int] = {}
    history: list[AttemptRow] = []
    finished_at: float = -1.0
    cancelled: bool = False
    lifted: dict[int, int] = {}
    keep: dict[int, None] = {}
    budget: int = -1
    held: int = 0
    spare: int = 0
    sizes: dict[int, int] = {}
    needed: list[int] = []
    idle: dict[int, None] = {}
    released: dict[int, None] = {}
    recomputed: dict[int, int] = {}
    reopened: list[tuple[float, AttemptId, int]] = []
    borrowed: dict[int, tuple[RunId, TaskId]] = {}
    feeds: dict[int, list[tuple[RunId, int]]] = {}
    grafts: dict[int, Graft] = {}
    within: list[tuple[int, int, AttemptId]] = []
    item_options: dict[int, int] = {}

    @property
    def done(self) -> bool:
        """Whether every task has settled."""
        return not self.left

    def priority(self, task: int) -> int:
        """Its own priority, or that of a more urgent task which waits for it."""
        if self.lifted and task in self.lifted:
            return self.lifted[task]
        return self.options[self.option_of[task]].priority

    def option(self, task: int) -> TaskOptions:
        """What the task asks for."""
        return self.options[self.option_of[task]]

    def after(self, task: int) -> list[int]:
        """The tasks that wait for this one."""
        offsets = self.offsets
        found = self.targets[offsets[task] : offsets[task + 1]] if task + 1 < len(offsets) else []
        return found + self.later.get(task, []) if self.later else found

    def kind(self, task: int) -> TaskKind:
        """What a worker does for the task."""
        return self.kinds.get(task, TaskKind.CALL)

    def move(self, task: int, state: State) -> None:
        """Put a task into a state; the counts follow."""
        counts = self.counts
        counts[self.state[task]] -= 1
        counts[state] += 1
        self.state[task] = state

    def check_invariants(self) -> None:
        """Assert what must hold between any two commands."""
        size = len(self.ids)
        assert sum(self.counts) == size, "the counts cover every task once"
        for state in State:
            assert self.counts[state] == self.state.count(state), f"the count of {state.name} is true"
        assert self.left == sum(1 for state in self.state if state not in SETTLED), "what is left is true"
        told = set(self.changes)
        assert all(task in told for task in range(size) if self.state[task] in SETTLED), "an end is told"
        assert all(self.state[task] == State.COMPLETED for task in self.released), "only values are released"
        for task in range(size):
            if self.state[task] == State.COMPLETED:
                assert self.value[task] >= 0, "a completed task has a value"


def start_run(run_id: RunId, command: SubmitRun, client: NodeId, at: float) -> RunState:
    """Make the tables of a new run; no task is ready yet."""
    size = len(command.ids)
    offsets, targets = _dependents(command.dependencies)
    counts = [0] * len(State)
    counts[State.PENDING] = size
    run = RunState(
        id=run_id,
        key=command.key,
        name=command.name,
        payload=command.payload,
        client=client,
        submitted_at=at,
        ids=list(command.ids),
        dependencies=list(command.dependencies),
        offsets=offsets,
        targets=targets,
        options=list(command.options),
        option_of=list(command.option_of) or [0] * size,
        waiting=[len(each) for each in command.dependencies],
        state=bytearray(size),
        tries=[0] * size,
        value=[-1] * size,
        ready_at=[-1.0] * size,
        settled_at=[-1.0] * size,
        counts=counts,
        left=size,
        keep=dict.fromkeys(command.keep),
        budget=command.budget,
        borrowed={task: (source, name) for task, source, name in command.sources},
    )
    run.kinds.update(dict.fromkeys(run.borrowed, TaskKind.INPUT))
    for expander, gather in command.expands:
        expand(run, expander, gather)
    for task in range(size):
        if run.option(task).when != "all_success":
            run.tallies[task] = Tally()
    if len(command.options) > 1:
        _lift(run, range(size))
    return run


def expand(run: RunState, expander: int, gather: int) -> None:
    """Let one task list items and another gather what comes of them; the locks they were given are the items'."""
    run.kinds[expander] = TaskKind.EXPAND
    run.kinds[gather] = TaskKind.GATHER
    run.gather_of[expander] = gather
    run.item_options[expander] = run.option_of[expander]
    for task in (expander, gather):
        drop_locks(run, task)


def drop_locks(run: RunState, task: int) -> None:
    """Let a task want no locks: it only puts together what others made."""
    if run.option(task).locks:
        run.options.append(msgspec.structs.replace(run.option(task), locks=()))
        run.option_of[task] = len(run.options) - 1


def _lift(run: RunState, tasks: Iterable[int]) -> None:
    """Let a task inherit the priority of the most urgent one that waits for it, however far behind it."""
    urgent = sorted(tasks, key=lambda task: -run.option(task).priority)
    least = run.option(urgent[-1]).priority
    for task in urgent:
        priority = run.priority(task)
        if priority == least:
            break
        waiting = list(run.dependencies[task])
        while waiting:
            before = waiting.pop()
            if run.priority(before) < priority:
                run.lifted[before] = priority
                waiting += run.dependencies[before]


def _dependents(dependencies: Sequence[Sequence[int]]) -> tuple[list[int], list[int]]:
    """Turn the arrows round, by counting: offsets into one list of targets, in order of the tasks."""
    offsets = [0] * (len(dependencies) + 1)
    for each in dependencies:
        for dependency in each:
            offsets[dependency + 1] += 1
    offsets = list(accumulate(offsets))
    free, targets = offsets[:-1], [0] * offsets[-1]
    for task, each in enumerate(dependencies):
        for dependency in each:
            targets[free[dependency]] = task
            free[dependency] += 1
    return offsets, targets
