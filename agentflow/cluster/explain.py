"""Answers in words to what people ask about leaders, workers and tasks that do not move.

Law: an explanation is read from the same state that decides; it never guesses.
"""

from __future__ import annotations

from collections.abc import Collection

from agentflow.cluster.deployment import Deployment
from agentflow.core.control.placement import WorkerState, demand_of
from agentflow.core.control.plane import Plane
from agentflow.core.control.runs import RunState, State
from agentflow.ids import AttemptId, NodeId, RunId, TaskId


def explain_task(
    plane: Plane,
    now: float,
    run_id: RunId,
    task_id: TaskId,
    trouble: str,
    asking: Collection[AttemptId] = (),
) -> str:
    """Say why a task is where it is, and what would move it.

    `trouble` is what keeps everything still; `asking` are attempts that have not got their locks yet.
    """
    run = plane.runs.get(run_id)
    if run is None or task_id not in run.ids:
        return f"{task_id!r} of {run_id}: the masters that are up do not know it. {trouble}".strip()
    task = run.ids.index(task_id)
    said = _by_state(plane, run, task, now, asking)
    if State(run.state[task]) in (State.COMPLETED, State.FAILED, State.CANCELLED, State.SKIPPED):
        return said
    return f"{said} {trouble}".strip()


def _by_state(plane: Plane, run: RunState, task: int, now: float, asking: Collection[AttemptId]) -> str:
    name = run.ids[task]
    match State(run.state[task]):
        case State.PENDING:
            waits = [
                run.ids[d]
                for d in run.dependencies[task]
                if run.state[d] < State.COMPLETED or run.state[d] == State.RETRYING
            ]
            return (
                f"{name!r} waits for {_some(waits)}, which {'have' if len(waits) > 1 else 'has'} not settled."
            )
        case State.READY:
            return _why_ready(plane, run, task, now)
        case State.RETRYING:
            due = min(
                (entry[0] for entry in plane.delayed if entry[2] is run and entry[3] == task), default=now
            )
            error = run.history[-1].error if run.history else None
            last = next((row.error for row in reversed(run.history) if row.task == task), error)
            said = f" after {last.type}: {last.message}" if last else ""
            return f"{name!r} failed{said}; it is tried again in {max(0.0, due - now):.1f} s (back-off)."
        case State.RUNNING:
            attempt, live = next(
                each for each in plane.live.items() if each[1].run is run and each[1].task == task
            )
            if attempt in asking:
                return f"{name!r} is on {live.worker.id}, and waits {_why_locked(plane, run, task, now)}"
            crowd = len(live.worker.running)
            shared = f"; {crowd} tasks share that worker" if crowd > 1 else ""
            return (
                f"{name!r} runs on {live.worker.id} for {max(0.0, now - live.assigned):.1f} s "
                f"(attempt {live.number}){shared}. Threads of one process share one core for pure Python code."
            )
        case State.COMPLETED:
            row = next(row for row in reversed(run.history) if row.task == task)
            tries = f" at try {row.number}" if row.number > 1 else ""
            return f"{name!r} completed on {row.worker}{tries} in {row.finished - row.started:.3f} s."
        case State.FAILED:
            error = run.errors.get(task)
            count = run.tries[task]
            said = f"{error.type}: {error.message}" if error else "no error was reported"
            return f"{name!r} failed after {count} {'tries' if count > 1 else 'try'}: {said}."
        case State.CANCELLED:
            return f"{name!r} was cancelled."
        case State.SKIPPED:
            root = run.root.get(task)
            if root is None:
                return f"{name!r} was skipped: its trigger rule {run.option(task).when!r} was not met."
            ended = "was cancelled" if run.state[root] == State.CANCELLED else "failed"
            return f"{name!r} never ran: {run.ids[root]!r} before it {ended}."


def _why_ready(plane: Plane, run: RunState, task: int, now: float) -> str:
    """Say what keeps a task that may run from running."""
    name, options = run.ids[task], run.option(task)
    if options.locks and not plane.gate.is_open(options.locks, plane.at):
        waited_s = max(0.0, now - run.ready_at[task])
        return f"{name!r} has waited {waited_s:.1f} s {_why_locked(plane, run, task, now)}"
    waited = f"{name!r} has waited {max(0.0, now - run.ready_at[task]):.1f} s for a worker"
    workers = [worker for worker in plane.workers.values() if worker.alive]
    if not workers:
        return f"{waited}: none is registered and alive. cluster.add_worker() adds one."
    in_group = [worker for worker in workers if options.group in (None, worker.group)]
    if not in_group:
        groups = ", ".join(sorted({worker.group for worker in workers}))
        return f"{waited}: no worker of group {options.group!r} is alive (there are groups: {groups})."
    fitting = [worker for worker in in_group if worker.meets(demand_of(options))]
    if not fitting:
        return f"{waited}: no worker offers what it asks for: {_lacks(in_group, options.resources, options.requires)}."
    if all(worker.draining for worker in fitting):
        return f"{waited}: every worker that could take it is draining."
    ahead = sum(1 for entry, _, _ in plane.queue.waiting() if entry.at <= run.ready_at[task]) - 1
    return f"{waited}: all {len(fitting)} that could take it are full; about {max(0, ahead)} tasks entered before it."


def _why_locked(plane: Plane, run: RunState, task: int, now: float) -> str:
    """Say who has the lock that a task waits for."""
    locks = run.option(task).locks
    waits = f"for {'its locks' if len(locks) > 1 else 'the lock'} {_some(list(locks))}"
    for key in locks:
        live = plane.live.get(plane.gate.wanted.get(key, -1))
        if live is not None and (live.run is not run or live.task != task):
            other = live.run.ids[live.task]
            whose = "" if live.run is run else f" of {live.run.id}"
            return f"{waits}: lock held by {other!r}{whose} on {live.worker.id}."
    held = plane.gate.held_up.get(locks)
    if held is None:
        return f"{waits}: its worker is asking for it."
    return f"{waits}: {held.reason}, for {max(0.0, now - held.since):.1f} s now."


def _lacks(
    workers: list[WorkerState],
    resources: tuple[tuple[str, float], ...],
    requires: tuple[tuple[str, str | float | bool], ...],
) -> str:
    wants = []
    for resource, amount in resources:
        most = max(worker.total.get(resource, 0.0) for worker in workers)
        if most < amount:
            wants.append(f"{resource}={amount:g} (the most any has is {most:g})")
    for attribute, value in requires:
        if not any(worker.attributes.get(attribute) == value for worker in workers):
            wants.append(f"{attribute}={value!r}")
    return ", ".join(wants) or "the combination of its demands"


def masters_trouble(deployment: Deployment) -> str:
    """Say why nothing is decided at the moment; empty if a leader serves."""
    if deployment.leader() is not None:
        return ""
    masters = deployment.master_ids
    up = [node_id for node_id in masters if deployment.host.state(node_id) == "up"]
    need = len(masters) // 2 + 1
    if len(up) < need:
        down = [node_id for node_id in masters if node_id not in up]
        return (
            f"There is no leader: {len(up)} of {len(masters)} masters are up and {need} make a majority. "
            f"Down or paused: {_some(down)}; cluster.restart() or resume() brings them back."
        )
    reach = max(_reach(deployment, node_id, up) for node_id in up)
    if reach < need:
        return f"There is no leader: the network is cut so that no {need} masters hear one another. cluster.heal() mends it."
    return "There is no leader yet: an election is under way."


def _reach(deployment: Deployment, node_id: NodeId, others: list[NodeId]) -> int:
    blocked = deployment.host.network.blocked
    return sum(
        1 for other in others if other == node_id or not (blocked(node_id, other) or blocked(other, node_id))
    )


def diagnose(deployment: Deployment, now: float) -> str:
    """Say in words what is wrong, or that nothing is."""
    findings = []
    trouble = masters_trouble(deployment)
    findings += [trouble] if trouble else _masters_missed(deployment)
    plane = deployment.plane()
    for worker_id in deployment.worker_specs:
        state = deployment.host.state(worker_id)
        worker = plane.workers.get(worker_id)
        if state != "up":
            findings.append(
                f"{worker_id} is {state}; cluster.{'resume' if state == 'paused' else 'restart'}({worker_id!r}) brings it back."
            )
        elif worker is None:
            findings.append(f"{worker_id} has not registered: {trouble or 'its enrolment is under way.'}")
        elif not worker.alive:
            findings.append(f"{worker_id} was declared dead ({worker.reason}) and has not registered again.")
    waiting = sum(plane.queue.depth)
    if waiting and plane.queue.oldest() < now - 5:
        oldest = min((entry for entry, _, _ in plane.queue.waiting()), key=lambda entry: entry.at)
        findings.append(_why_ready(plane, oldest.run, oldest.task, now))
    if not findings:
        return f"All is well: {deployment.leader()} leads, {len(plane.workers)} workers are registered, {waiting} tasks wait."
    return "\n".join(findings)


def _masters_missed(deployment: Deployment) -> list[str]:
    """Name the masters that are down or paused beside a leader, and how many more may go."""
    states = {node_id: deployment.host.state(node_id) for node_id in deployment.master_ids}
    up = sum(state == "up" for state in states.values())
    spare = up - (len(states) // 2 + 1)
    left = f"{spare} more may go" if spare > 0 else "without one more there is no majority"
    return [
        f"{node_id} is {state}: {up} of {len(states)} masters are up, {left}; "
        f"cluster.{'resume' if state == 'paused' else 'restart'}({node_id!r}) brings it back."
        for node_id, state in states.items()
        if state != "up"
    ]


def _some(names: list[str], limit: int = 5) -> str:
    shown = ", ".join(repr(name) for name in names[:limit])
    return f"{shown} and {len(names) - limit} more" if len(names) > limit else shown or "nothing"
