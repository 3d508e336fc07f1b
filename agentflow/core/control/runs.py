"""One execution of a workflow, as the control plane keeps it.

Law: a task settles once. `settled` lists tasks in the order in which they settled, so its length is the
version that followers of a run ask from.

Tasks are positions in parallel lists: a run of a hundred thousand tasks is a dozen lists, not as many
objects, and one command's worth of work touches a few cells of each.
"""

from __future__ import annotations

from collections.abc import Sequence
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


class RunState(msgspec.Struct):
    """The tables of one run.

    Per task, by position: `ids`, `dependencies`, `kinds` (only where not CALL), `option_of`, `waiting`
    (dependencies not yet completed), `state`, `tries` (attempts so far), `value` (the attempt whose result is
    the task's, -1 for none), `ready_at`, `settled_at`.

    The tasks that wait for task `t` are `targets[offsets[t] : offsets[t + 1]]`, and `later[t]` of those that
    were added while the run went on: a list a task would be a burden to the garbage collector.
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
    later: dict[int, list[int]] = {}
    settled: list[int] = []
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

    @property
    def done(self) -> bool:
        """Whether every task has settled."""
        return len(self.settled) == len(self.ids)

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
        assert len(set(self.settled)) == len(self.settled), "a task settles once"
        assert all(self.state[task] in SETTLED for task in self.settled), "settled tasks are in a final state"
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
    )
    for expander, gather in command.expands:
        run.kinds[expander] = TaskKind.EXPAND
        run.kinds[gather] = TaskKind.GATHER
        run.gather_of[expander] = gather
    for task in range(size):
        if run.option(task).when != "all_success":
            run.tallies[task] = Tally()
    return run


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


def add_items(run: RunState, expander: int, items: int) -> list[int]:
    """Add one task for each item that an expander found; give their positions.

    The gatherer waits for them too. Called before the expander settles, so the gatherer cannot have run.
    """
    gather = run.gather_of[expander]
    first = len(run.ids)
    stem = run.ids[gather]
    added = list(range(first, first + items))
    run.ids.extend(f"{stem}[{i}]" for i in range(items))
    # The values that the expander itself was given are there for its items too.
    run.dependencies.extend([(expander, *run.dependencies[expander])] * items)
    run.later.setdefault(expander, []).extend(added)
    run.later.update((task, [gather]) for task in added)
    run.option_of.extend([run.option_of[expander]] * items)
    run.waiting.extend([1] * items)
    run.state.extend(bytes(items))
    run.counts[State.PENDING] += items
    run.tries.extend([0] * items)
    run.value.extend([-1] * items)
    run.ready_at.extend([-1.0] * items)
    run.settled_at.extend([-1.0] * items)
    run.dependencies[gather] = (*run.dependencies[gather], *added)
    run.waiting[gather] += items
    for i, task in enumerate(added):
        run.kinds[task] = TaskKind.ITEM
        run.item_of[task] = (expander, i)
    return added
