"""Tasks that have settled and are to run again: on request, or because a value is gone that others need.

Law: what is brought back takes only values that are there; the tasks that made those that are not come back
with it, as far up as need be. Each task is computed again for the sake of others at most `LINEAGE_LIMIT`
times: a value that will not stay is an error, not a loop.
"""

from __future__ import annotations

from collections.abc import Iterable

from agentflow.core.control.commands import ErrorReport, TaskKind
from agentflow.core.control.retention import note_need
from agentflow.core.control.runs import SETTLED, RunState, State, Tally
from agentflow.core.control.triggers import Decision, decide
from agentflow.ids import AttemptId

LINEAGE_LIMIT = 3
"""How often the value of a task is computed again because it was lost."""

UNMET = frozenset({State.FAILED, State.CANCELLED})


def unfinished(run: RunState, everything: bool) -> list[int]:
    """The tasks that a retry brings back."""
    wanted = SETTLED if everything else SETTLED - {State.COMPLETED}
    return [task for task, state in enumerate(run.state) if state in wanted]


def reopen(
    run: RunState, tasks: Iterable[int], at: float, attempts: AttemptId
) -> tuple[list[int], list[tuple[int, Decision]]]:
    """Bring tasks back, with those whose values they take and that are gone.

    Parameters
    ----------
    run : RunState
        Whose.
    tasks : iterable of int
        Which, by position; none of them is under way.
    at, attempts : float, int
        The time, and how many attempts there have been: when this was, for those who judge.

    Returns
    -------
    tuple
        The tasks that wait in the queue and must leave it, and for each that comes back what its trigger
        rule says now.
    """
    back: dict[int, None] = {}
    stack = list(tasks)
    while stack:
        task = stack.pop()
        if task not in back:
            back[task] = None
            stack += [each for each in run.dependencies[task] if each in run.released]
    order = sorted(back)
    for task in order:
        if run.state[task] in SETTLED:
            run.left += 1
            run.changes.append(task)
            run.reopened.append((at, attempts, task))
            run.held -= run.sizes.get(task, 0)
            note_need(run, task)
        run.move(task, State.PENDING)
        run.value[task] = -1
        run.settled_at[task] = -1.0
        for table in (run.errors, run.root, run.failures, run.released):
            table.pop(task, None)
    withdrawn = []
    for task in order:
        for after in run.after(task):
            if after not in back and run.state[after] == State.READY and run.option(after).when != "always":
                run.move(after, State.PENDING)
                withdrawn.append(after)
    touched = {after for task in order for after in run.after(task)} - back.keys()
    for task in touched:
        if run.state[task] == State.PENDING:
            _recount(run, task)
    run.finished_at = -1.0
    return withdrawn, [(task, _recount(run, task)) for task in order]


def _recount(run: RunState, task: int) -> Decision:
    """Count anew how a task's dependencies ended, and say what follows."""
    joined = run.grafts.get(task)
    needs = run.dependencies[task] if joined is None else joined.ends
    if run.kind(task) is TaskKind.INPUT:
        return Decision.WAIT
    tally = Tally()
    for each in needs:
        state = run.state[each]
        if state == State.COMPLETED:
            tally.succeeded += 1
        elif state in UNMET or (state == State.SKIPPED and each in run.root):
            tally.failed += 1
        elif state == State.SKIPPED:
            tally.skipped += 1
    run.waiting[task] = len(needs) - tally.succeeded - tally.failed - tally.skipped
    rule = "all_success"
    if task in run.tallies:
        run.tallies[task] = tally
        rule = run.option(task).when
    return decide(rule, len(needs), tally.succeeded, tally.failed, tally.skipped)


def beyond_recovery(run: RunState, lost: Iterable[int]) -> ErrorReport | None:
    """Count another loss of these tasks' values; say so if it was one too many."""
    for task in lost:
        name = run.ids[task]
        if task in run.borrowed or not _made_here(run, task):
            return ErrorReport(
                "ObjectLost", f"the value of {name!r} came from another run and is gone; submit the work anew"
            )
        times = run.recomputed[task] = run.recomputed.get(task, 0) + 1
        if times > LINEAGE_LIMIT:
            return ErrorReport(
                "ObjectLost",
                f"the value of {name!r} was lost {times} times; it was computed again {LINEAGE_LIMIT} times",
            )
    return None


def _made_here(run: RunState, task: int) -> bool:
    """Whether an attempt of this run made the value: otherwise it was taken over."""
    return run.tries[task] > 0
