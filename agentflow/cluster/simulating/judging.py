"""What the judges say of a simulation, and how to see it again.

Law: everything is judged from the trace, from what clients saw and from the masters' tables; a verdict knows
its seed, the line that makes the run again, and how the run goes under fewer faults.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, cast

from agentflow.check import (
    History,
    LivesAfterHealing,
    Operation,
    Panel,
    RaftView,
    Reproduction,
    SchedulingJudge,
    TaskFact,
    Verdict,
    check_linearizable,
    judge_messaging,
    raft_panel,
)
from agentflow.check.verdict import violated
from agentflow.cluster.agents.facts import mail_facts
from agentflow.cluster.simulating.base import Base, alone
from agentflow.cluster.simulating.journal import Act
from agentflow.cluster.simulating.recipe import Recipe, payloads_of
from agentflow.core.control.commands import AttemptState
from agentflow.core.control.image import save
from agentflow.core.control.plane import Plane
from agentflow.core.control.runs import RunState, State
from agentflow.core.record import Record
from agentflow.errors import InvariantViolated
from agentflow.ids import RunId
from agentflow.runtime.nemesis import Fault
from agentflow.runtime.trace import canonical

if TYPE_CHECKING:
    from agentflow.cluster.simulating.past import Past

SHORT = 400
"""Characters of a script that still make a line."""

BREAKING = frozenset(
    {"crash", "pause", "skew", "slow_disk", "fail_disk", "inject", "nemesis", "restore", "hold"}
)
"""Acts after which a cluster need not be well."""

FAULTS_BY_HAND = frozenset(
    {"crash", "restart", "pause", "resume", "skew", "slow_disk", "fail_disk", "restore"}
)
"""Acts that `shrink` tries to do without."""


class Judged(Base):
    """A simulation that is judged."""

    _panel: Panel
    _fed: int
    origin: str = ""
    """What to run to see this run again, if that is not its script."""

    def _changed_past(self) -> None:
        self._panel = raft_panel(voters=self._deployment.master_ids)
        self._fed = 0

    def judge_on(self) -> None:
        """Judge what happened since the last time, and raise if a promise is broken."""
        first = self._panel.feed_all(self.trace.since(self._fed))
        self._fed = self.trace.next
        if first is not None:
            first.reproducible(self._reproduction(first.promise)).raise_if_violated()

    @alone
    def check(self, *, steps: int = 300_000, within: float | None = None) -> Verdict:
        """Judge the whole run so far.

        Judged are: the safety of Raft and its liveness after a nemesis has mended everything; whether what
        clients of the keys saw is linearizable; whether tasks are completed once, each after what it waits
        for; whether masters that have applied the same entries hold the same tables; and whether agents
        handled each message at most once, in order, and were answered what they had asked.

        Parameters
        ----------
        steps : int
            How long to look for an order that explains what clients saw.
        within : float, optional
            Seconds after everything was mended by which the cluster must work again; by default six times
            the election time-out, and at least five.

        Returns
        -------
        Verdict
            If it is violated: `raise_if_violated()` raises with the seed and the line that reproduces it,
            `shrink()` finds fewer faults that still break the promise, `first_bad` is where to look:
            `sim.rewind(to=verdict.first_bad)`.

        Examples
        --------
        >>> from agentflow import Simulation
        >>> Simulation(masters=3, seed=7).run_for(10).check()
        <Verdict ok: simulation>
        """
        self._journal.look()
        verdicts = [self._judge_raft(within), self._judge_keys(steps)]
        if self._world.deployment.master_ids:
            verdicts += [self._judge_replicas(), self._judge_tasks()]
        if self._world.bus is not None:
            verdicts.append(judge_messaging(mail_facts(self.trace)))
        whole = Verdict.combine(verdicts, "simulation")
        if not whole.is_violated:
            return whole
        promises = sorted({part.promise for part in whole.violations()})
        return whole.reproducible(self._reproduction(*promises))

    # --- the judges ---------------------------------------------------------------------------------------

    def _judge_raft(self, within: float | None) -> Verdict:
        healed, lives = self._healed(), list[Verdict]()
        if within is None:
            within = max(5.0, 6 * self._deployment.raft.election_timeout_ms / 1000)
        if healed is not None and self.now >= healed + within and self._deployment.master_ids:
            view = RaftView(self._deployment.master_ids)
            alive = Panel([LivesAfterHealing(view, healed=[healed], within=within)], view)
            alive.feed_all(self.trace)
            lives = [alive.finish(self.now)]
        self._panel.feed_all(self.trace.since(self._fed))
        self._fed = self.trace.next
        return Verdict.combine([self._panel.finish(self.now), *lives], "raft")

    def _healed(self) -> float | None:
        """Return since when nothing is broken, if a nemesis has ended and nobody broke anything since."""
        if not self._world.healed:
            return None
        last = self._world.healed[-1]
        acts = self._journal.acts
        if any(act.name in BREAKING and act.now > last for act in acts) or self._world.injector.active:
            return None
        begun = [
            record.time for record in self.trace if record.kind == "nemesis" and record.payload[1] == "begin"
        ]
        return None if begun and begun[-1] > last else last

    def _judge_keys(self, steps: int) -> Verdict:
        history = History.from_records(self.trace)
        return check_linearizable(map(_hashable, history), "kv", steps=steps)

    def _judge_replicas(self) -> Verdict:
        """Compare the tables of masters that have applied the same entries."""
        promise = "replicas agree"
        images: dict[int, tuple[str, bytes]] = {}
        for node_id, master in self.masters_up().items():
            if master is None or self._deployment.host.state(node_id) != "up":
                continue
            image = save(master.plane)
            other, theirs = images.setdefault(master.raft.applied, (node_id, image))
            if image != theirs:
                words = (
                    f"{other} and {node_id} have applied the same {master.raft.applied} entries and differ"
                )
                return violated(promise, words, self.trace.last, nodes=(other, node_id))
        return Verdict(promise)

    def _judge_tasks(self) -> Verdict:
        plane = self.plane()
        judge = SchedulingJudge()
        for fact in task_facts(plane):
            judge.feed(fact)
        settled = bool(plane.runs) and all(run.done for run in plane.runs.values())
        return Verdict.combine([judge.finish(settled=settled), self._judge_executions(plane)], "tasks")

    def _judge_executions(self, plane: Plane) -> Verdict:
        """Compare what workers did with what the masters say was done."""
        promise = "attempts fenced"
        done: dict[str, Record] = {}
        for record in self.trace:
            if record.kind == "execute":
                other = done.setdefault(record.type, record)
                if other is not record:
                    words = f"attempt {record.type} was begun by {other.node} and again by {record.node}"
                    return violated(promise, words, record, (other,))
        for run in plane.runs.values():
            for row in run.history:
                begun = done.get(str(row.attempt))
                if row.state is AttemptState.COMPLETED and (begun is None or begun.node != row.worker):
                    words = f"attempt {row.attempt} is completed by {row.worker}, which never began it"
                    return violated(promise, words, begun or self.trace.last)
        return Verdict(promise)

    # --- seeing it again ----------------------------------------------------------------------------------

    def _reproduction(self, *promises: str) -> Reproduction:
        recipe = self.recipe()
        faults: list[Fault | Act] = list(self._world.faults)
        faults += [act for act in recipe.acts if act.name in FAULTS_BY_HAND]
        return Reproduction(
            seed=self.seed,
            line=self.origin or _line(self.script()),
            faults=faults,
            fails=_Again(recipe, faults, frozenset(promises)),
        )

    def recipe(self) -> Recipe:
        """Give the run as a value that can be played again, elsewhere too."""
        self._journal.look()
        driver, acts = self._world.driver, self._journal.acts
        payloads = payloads_of(acts, self._bench.objects)
        return Recipe(
            cast("type[Past]", type(self)), self._world.spec, tuple(acts), payloads, driver.steps, driver.now
        )


class _Again:
    """Says whether a run breaks one of some promises under fewer faults too."""

    def __init__(self, recipe: Recipe, faults: Sequence[Fault | Act], promises: frozenset[str]) -> None:
        self._recipe = recipe
        self._faults = faults
        self._promises = promises

    def __call__(self, kept: Sequence[Any]) -> bool:
        left = {id(each) for each in kept}
        planned = [number for number, fault in enumerate(self._faults) if isinstance(fault, Fault)]
        only = frozenset(number for number in planned if id(self._faults[number]) in left)
        by_hand = [each for each in self._faults if isinstance(each, Act) and id(each) not in left]
        without = {id(act) for act in by_hand}
        acts = tuple(act for act in self._recipe.acts if id(act) not in without)
        gone = [_when(each) for each in self._faults if id(each) not in left]
        try:
            sim: Any = self._recipe.play(
                only_faults=only, acts=acts, changed_at=min(gone, default=math.inf), judged=True
            )
        except InvariantViolated as error:
            return getattr(error, "promise", None) in self._promises
        return any(part.promise in self._promises for part in sim.check().violations())


def _when(fault: Fault | Act) -> float:
    return fault.at if isinstance(fault, Fault) else fault.now


def _line(script: str) -> str:
    """Put a script on one line, if it is short enough to be one."""
    lines = [line for line in script.splitlines() if line]
    line = "; ".join(lines)
    return (
        line
        if len(line) <= SHORT and "#" not in line
        else f"{'; '.join(lines[:2])}; ...  # sim.script() has it all"
    )


def _hashable(operation: Operation) -> Operation:
    """Let values be compared by what they hold: a model's states are values, and lists are not."""
    import msgspec

    try:
        hash((operation.argument, operation.result))
    except TypeError:
        argument, result = operation.argument, operation.result
        if operation.function == "cas":
            argument = tuple(canonical(each) for each in argument)
        elif argument is not None:
            argument = canonical(argument)
        if operation.function == "get" and result is not None:
            result = canonical(result)
        return msgspec.structs.replace(operation, argument=argument, result=result)
    return operation


def task_facts(plane: Plane) -> Iterable[TaskFact]:
    """Say what the masters' tables tell of every task, in order."""
    started: dict[RunId, list[TaskFact]] = {run: [] for run in plane.runs}
    for attempt, live in plane.live.items():
        fact = TaskFact(live.assigned, "started", live.run.id, live.run.ids[live.task], attempt)
        started[live.run.id].append(fact)
    for run in plane.runs.values():
        for task, name in enumerate(run.ids):
            strict = run.option(task).when == "all_success"
            ends = run.grafts[task].ends if task in run.grafts else ()
            first = [each for each in run.dependencies[task] if each not in ends]
            needs = tuple(run.ids[each] for each in first) if strict else ()
            yield TaskFact(run.submitted_at, "submitted", run.id, name, deps=needs)
        yield from _facts_of(run, started[run.id])


_END = {State.FAILED: "failed", State.CANCELLED: "cancelled", State.SKIPPED: "skipped"}


def _facts_of(run: RunState, started: list[TaskFact]) -> Iterable[TaskFact]:
    """Put the beginnings and ends of a run's attempts into the order in which the masters decided them.

    Ends are kept in their order, and beginnings by their numbers. Between the two only the masters' time
    tells, which may stand still; then an end comes as early as it can, for it may be what let others begin.
    """
    ends: list[TaskFact] = []
    at = run.submitted_at
    for row in run.history:
        name = run.ids[row.task]
        started.append(TaskFact(row.assigned, "started", run.id, name, row.attempt))
        # What returned a workflow is not completed by that, but by the attempt that joins its ends.
        grew = row.task in run.grafts and run.grafts[row.task].attempt == row.attempt
        done = row.state is AttemptState.COMPLETED and not grew
        mine = done and run.value[row.task] == row.attempt
        at = max(at, row.assigned, run.settled_at[row.task] if mine else 0.0)
        ends.append(TaskFact(at, "completed" if done else "lost", run.id, name, row.attempt))
    for time, attempt, task in run.reopened:
        started.append(TaskFact(time, "reopened", run.id, run.ids[task], attempt))
    # What is brought back is begun again by the attempts that follow.
    started.sort(key=lambda fact: (fact.attempt, fact.kind != "started"))
    over = [
        TaskFact(run.settled_at[task], _END[State(run.state[task])], run.id, name)
        for task, name in enumerate(run.ids)
        if State(run.state[task]) in _END
    ]
    over.sort(key=lambda fact: fact.time)
    taken = [
        TaskFact(run.settled_at[task], "taken", run.id, name)
        for task, name in enumerate(run.ids)
        if run.value[task] >= 0 and not run.tries[task]
    ]
    taken.sort(key=lambda fact: fact.time)
    return heapq.merge(taken, _merged(started, ends), over, key=lambda fact: fact.time)


def _merged(started: list[TaskFact], ends: list[TaskFact]) -> Iterable[TaskFact]:
    begun: set[int] = set()
    at = 0
    for end in ends:
        while at < len(started) and (started[at].time < end.time or end.attempt not in begun):
            yield started[at]
            if started[at].kind == "started":
                begun.add(started[at].attempt)
            at += 1
        yield end
    yield from started[at:]
