"""Who wants to know how which run goes on.

Law: a follower is told each change in order, from the position it asked from. What is lost on the
way it asks for again; nothing is remembered for it beyond how far it was told.
"""

from __future__ import annotations

from collections.abc import Iterable

from agentflow.core.control.runs import RunState
from agentflow.core.machine import Effect, Send
from agentflow.core.nodes.messages import Failure, Follow, Gone, Progress
from agentflow.ids import NodeId, RunId


class Followers:
    """A leader's followers, by run."""

    __slots__ = ("_of",)

    def __init__(self) -> None:
        self._of: dict[RunId, dict[NodeId, tuple[int, int]]] = {}

    def follow(self, source: NodeId, run: RunState, asked: Follow, effects: list[Effect]) -> None:
        """Tell a follower everything from where it stands, and go on telling."""
        message = progress_from(run, asked.have, asked.known)
        self._note(source, run, effects, message)

    def unfollow(self, source: NodeId, run: RunId) -> None:
        """Stop telling a follower."""
        self._of.get(run, {}).pop(source, None)

    def gone(self, source: NodeId, run: RunId, effects: list[Effect]) -> None:
        """Say that there is no such run."""
        effects.append(Send(source, Gone(run)))

    def tell(self, runs: Iterable[RunState], effects: list[Effect]) -> None:
        """Tell the followers of these runs what is new."""
        for run in runs:
            followers = self._of.get(run.id)
            if not followers:
                continue
            for source, (have, known) in list(followers.items()):
                if have < len(run.changes) or known < len(run.ids) or run.done:
                    self._note(source, run, effects, progress_from(run, have, known))

    def _note(self, source: NodeId, run: RunState, effects: list[Effect], message: Progress) -> None:
        effects.append(Send(source, message))
        followers = self._of.setdefault(run.id, {})
        if message.done:
            followers.pop(source, None)
            if not followers:
                del self._of[run.id]
        else:
            followers[source] = (len(run.changes), len(run.ids))


def progress_from(run: RunState, have: int, known: int) -> Progress:
    """What changed from position `have` on, and which tasks were added from position `known` on."""
    tasks = tuple(run.changes[have:])
    return Progress(
        run=run.id,
        start=have,
        tasks=tasks,
        states=bytes(run.state[task] for task in tasks),
        values=tuple(run.value[task] for task in tasks),
        errors=failures_of(run, [task for task in tasks if task in run.errors]) if run.errors else {},
        roots={task: run.root[task] for task in tasks if task in run.root} if run.root else {},
        known=known,
        added=tuple(run.ids[known:]),
        done=run.done,
        released=tuple(task for task in tasks if task in run.released) if run.released else (),
    )


def failures_of(run: RunState, tasks: Iterable[int]) -> dict[int, Failure]:
    """Say of each failed task which attempt it failed with, and where."""
    wanted = dict.fromkeys(tasks)
    found: dict[int, Failure] = {}
    # The rows of what failed just now are at the end.
    for row in reversed(run.history):
        if len(found) == len(wanted):
            break
        if row.task in wanted and row.task not in found:
            found[row.task] = Failure(row.attempt, row.worker, run.errors[row.task])
    return {task: found.get(task) or Failure(-1, "", run.errors[task]) for task in wanted}
