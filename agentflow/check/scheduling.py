"""Promises about runs of tasks, judged from plain facts.

Law: a task is completed by exactly one attempt, its newest; it starts only when what it waits for is done;
and once a run is over, every task has an end.

The facts come from wherever attempts are counted: the trace, the plane's tables, or a worker's own notes.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from agentflow.check.verdict import Verdict, violated
from agentflow.errors import InvalidConfig
from agentflow.ids import AttemptId, RunId, TaskId

ENDS = frozenset({"completed", "failed", "cancelled", "skipped"})
KINDS = ENDS | {"submitted", "started", "lost", "refused", "taken", "reopened"}


class TaskFact(msgspec.Struct, frozen=True):
    """One thing that happened to a task.

    Parameters
    ----------
    time : float
        When; facts are given in order.
    kind : str
        `submitted`; `started`; `completed` (applied) or `refused` (not applied), for an attempt that
        reported success; `lost` for one given up; `failed`, `cancelled` and `skipped` for the task itself.
        `taken`: it has the value of a task of another run; `reopened`: it is to run again, after its end.
    run, task : str
        Which task.
    attempt : int
        Which try, for those kinds that have one; -1 for none.
    deps : tuple of str
        With `submitted`: the tasks whose values it takes, which must be completed before it starts.
    """

    time: float
    kind: str
    run: RunId
    task: TaskId
    attempt: AttemptId = -1
    deps: tuple[TaskId, ...] = ()


class _Task:
    def __init__(self, fact: TaskFact) -> None:
        self.submitted = fact
        self.attempts: dict[AttemptId, TaskFact] = {}
        self.newest: AttemptId = -1
        self.over: set[AttemptId] = set()
        self.end: TaskFact | None = None


class SchedulingJudge:
    """Judges runs while facts come in.

    Examples
    --------
    >>> judge = SchedulingJudge()
    >>> judge.feed(TaskFact(0, "submitted", "run-1", "a"))
    >>> judge.feed(TaskFact(1, "started", "run-1", "a", attempt=1))
    >>> judge.finish()
    <Verdict violated: no task lost: run-1/a was submitted and never ended; its newest attempt is 1>
    """

    def __init__(self) -> None:
        self._tasks: dict[tuple[RunId, TaskId], _Task] = {}
        self._attempts: dict[AttemptId, TaskFact] = {}
        self.bad: dict[str, Verdict] = {}

    def feed(self, fact: TaskFact) -> Verdict | None:
        """Take the next fact; return the violation if it makes one."""
        if fact.kind not in KINDS:
            kinds = ", ".join(sorted(KINDS))
            raise InvalidConfig(
                f"there is no fact {fact.kind!r} about tasks; take one of {kinds}", field="kind"
            )
        task = self._tasks.get((fact.run, fact.task))
        known = len(self.bad)
        if fact.kind == "submitted":
            # What failed or was cancelled may be submitted anew.
            if task is not None and (task.end is None or task.end.kind == "completed"):
                self._blame("submitted once", fact, "was submitted twice", task.submitted)
            else:
                self._tasks[fact.run, fact.task] = _Task(fact)
        elif task is None:
            self._blame("submitted once", fact, f"is {fact.kind} and was never submitted")
        elif fact.kind == "started":
            self._start(task, fact)
        elif fact.kind in ("completed", "refused", "lost"):
            self._report(task, fact)
        elif fact.kind == "reopened":
            task.end = None
        elif fact.kind == "taken":
            task.end = msgspec.structs.replace(fact, kind="completed")
        elif task.end is not None and task.end.kind == "completed":
            self._blame("completed once", fact, f"is {fact.kind} after it was completed", task.end)
        else:
            task.end = fact
        return list(self.bad.values())[-1] if len(self.bad) > known else None

    def finish(self, *, settled: bool = True) -> Verdict:
        """Say the last word; `settled` says that every run is over, so that every task must have an end."""
        if settled:
            for (run, name), task in self._tasks.items():
                if task.end is None:
                    newest = f"; its newest attempt is {task.newest}" if task.attempts else ""
                    words = f"{run}/{name} was submitted and never ended{newest}"
                    evidence = (task.submitted, *task.attempts.values())
                    self.bad.setdefault(
                        "no task lost", violated("no task lost", words, task.submitted, evidence)
                    )
        parts = [self.bad.get(promise, Verdict(promise)) for promise in PROMISES]
        bad = [part for part in parts if part.is_violated]
        return Verdict.combine(parts, bad[0].promise if len(bad) == 1 else "tasks")

    def _start(self, task: _Task, fact: TaskFact) -> None:
        other = self._attempts.setdefault(fact.attempt, fact)
        if other is not fact:
            words = f"started as attempt {fact.attempt}, which is one of {other.run}/{other.task} already"
            self._blame("attempts fenced", fact, words, other)
        if task.end is not None:
            self._blame("completed once", fact, f"was started after it was {task.end.kind}", task.end)
        for each in task.submitted.deps:
            dependency = self._tasks.get((fact.run, each))
            if dependency is None or dependency.end is None or dependency.end.kind != "completed":
                self._blame("inputs first", fact, f"was started before {each} was completed", task.submitted)
                break
        task.attempts[fact.attempt] = fact
        task.newest = fact.attempt

    def _report(self, task: _Task, fact: TaskFact) -> None:
        started = task.attempts.get(fact.attempt)
        if started is None:
            words = f"has a report of attempt {fact.attempt}, which was never started for it"
            self._blame("attempts fenced", fact, words)
        elif fact.kind != "completed":
            task.over.add(fact.attempt)
        elif task.end is not None:
            words = f"was completed by attempt {fact.attempt} after it was {task.end.kind}"
            self._blame("completed once", fact, words, task.end)
        elif fact.attempt != task.newest or fact.attempt in task.over:
            why = "given up" if fact.attempt in task.over else f"followed by attempt {task.newest}"
            words = f"was completed by attempt {fact.attempt}, which had been {why}"
            self._blame("attempts fenced", fact, words, started)
        else:
            task.end = fact

    def _blame(self, promise: str, fact: TaskFact, words: str, *evidence: TaskFact) -> None:
        text = f"{fact.run}/{fact.task} {words} (t={fact.time:g} s)"
        self.bad.setdefault(promise, violated(promise, text, fact, evidence))


PROMISES = ("submitted once", "inputs first", "attempts fenced", "completed once", "no task lost")


def judge_scheduling(facts: Iterable[TaskFact], *, settled: bool = True) -> Verdict:
    """Judge all facts of some runs.

    Parameters
    ----------
    facts : iterable of TaskFact
        In order.
    settled : bool
        Whether the runs are over.

    Examples
    --------
    >>> judge_scheduling([
    ...     TaskFact(0, "submitted", "run-1", "a"),
    ...     TaskFact(0, "submitted", "run-1", "b", deps=("a",)),
    ...     TaskFact(1, "started", "run-1", "a", attempt=1),
    ...     TaskFact(2, "started", "run-1", "b", attempt=2),
    ... ], settled=False)
    <Verdict violated: inputs first: run-1/b was started before a was completed (t=2 s)>
    """
    judge = SchedulingJudge()
    for fact in facts:
        judge.feed(fact)
    return judge.finish(settled=settled)
