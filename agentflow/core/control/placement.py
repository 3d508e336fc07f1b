"""Which ready task goes to which worker.

Law (tasks): of the tasks that some worker can take, the one with the highest score goes first, ties in
order of entry. All tasks age at one rate, so the order of two tasks is fixed when they enter: one FIFO a
(demand, priority, retries) and a choice among the heads serves any depth.

Law (workers): of the workers that can take it, the least loaded one gets it, ties to the one with the
fewest running, then by id.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator
from typing import TypeAlias

import msgspec

from agentflow.core.control.commands import RegisterWorker, TaskOptions
from agentflow.core.control.runs import RunState, State
from agentflow.ids import AttemptId, NodeId

BASE_SCORE = {1: 250.0, 2: 500.0, 3: 750.0, 4: 1000.0}
"""Base scores of LOW, MEDIUM, HIGH and URGENT."""

READY = int(State.READY)

AGEING_PER_SECOND = 10.0
RETRY_PENALTY = 50.0

BRIEF_SECS = 0.002
"""A worker whose tasks take less waits longer for orders than it works."""

BRISK, BRISKEST = 16, 64
"""After how many brief tasks a worker is given some ahead, and how many are remembered."""

Demand: TypeAlias = tuple[
    str | None, tuple[tuple[str, float], ...], tuple[tuple[str, str | float | bool], ...], tuple[str, ...]
]
"""What a worker must offer: its group, free resources, and attributes; and the locks that the task wants."""

NO_DEMAND: Demand = (None, (), (), ())


def demand_of(options: TaskOptions) -> Demand:
    """What these options ask of a worker."""
    return (options.group, options.resources, options.requires, options.locks)


class WorkerState(msgspec.Struct):
    """A registered worker, as the plane sees it."""

    id: NodeId
    epoch: int
    group: str
    slots: int
    cpu_cores: float
    memory_load: float
    free: dict[str, float]
    total: dict[str, float]
    attributes: dict[str, str | float | bool]
    registered_at: float
    running: dict[AttemptId, None] = {}
    draining: bool = False
    alive: bool = True
    lost_at: float = -1.0
    reason: str = ""
    ahead: int = 0
    pace: int = 0

    @property
    def load(self) -> float:
        """The load score: lower is better."""
        return 0.6 * self.memory_load + 0.4 * len(self.running) / self.cpu_cores

    @property
    def limit(self) -> int:
        """How many attempts it is given: more than it runs at once while its tasks are brief."""
        return self.slots + self.ahead if self.pace >= BRISK else self.slots

    @property
    def open_slots(self) -> int:
        """How many more attempts it takes now."""
        return self.limit - len(self.running) if self.alive and not self.draining else 0

    def note_pace(self, took: float) -> None:
        """Count an attempt that took so many seconds."""
        if took < BRIEF_SECS:
            self.pace = min(self.pace + 1, BRISKEST)
        else:
            self.pace >>= 1

    def meets(self, demand: Demand) -> bool:
        """Whether it could ever run such a task, were it idle."""
        group, resources, requires, _ = demand
        return (
            (group is None or group == self.group)
            and all(self.total.get(name, 0.0) >= amount for name, amount in resources)
            and all(self.attributes.get(name) == value for name, value in requires)
        )

    def has_room(self, demand: Demand) -> bool:
        """Whether the resources that a task asks for are free now."""
        return all(self.free.get(name, 0.0) >= amount for name, amount in demand[1])


def enlist(command: RegisterWorker, at: float) -> WorkerState:
    """A worker as it registers."""
    total = {"cpu": command.cpu_cores, **dict(command.resources)}
    return WorkerState(
        id=command.worker,
        epoch=command.epoch,
        group=command.group,
        slots=command.slots,
        cpu_cores=max(command.cpu_cores, 1e-9),
        memory_load=command.memory_load,
        free=dict(total),
        total=total,
        attributes=dict(command.attributes),
        registered_at=at,
        ahead=command.ahead,
    )


class Waiting(msgspec.Struct, frozen=True, gc=False):
    """A task in the queue."""

    at: float
    order: int
    run: RunState
    task: int


class Lane(msgspec.Struct):
    """A FIFO of tasks that differ only in when they entered."""

    handicap: float
    tasks: deque[Waiting]

    def head(self) -> Waiting | None:
        """The first task."""
        return self.tasks[0] if self.tasks else None


class ReadyQueue:
    """Tasks that may run, by what they ask of a worker.

    Attributes
    ----------
    depth : list of int
        Waiting tasks by priority; position 0 is unused.
    entered : int
        Tasks that ever entered.
    """

    __slots__ = ("_lanes", "depth", "entered")

    def __init__(self) -> None:
        self._lanes: dict[Demand, dict[tuple[int, int], Lane]] = {}
        self.depth = [0] * 5
        self.entered = 0

    def enter(self, run: RunState, task: int, at: float) -> None:
        """Add a task. Its score counts the waiting from `at`."""
        self.entered += 1
        retries = run.failures.get(task, 0) if run.failures else 0
        self.restore(run, task, at, self.entered, retries)

    def restore(self, run: RunState, task: int, at: float, order: int, retries: int) -> None:
        """Put a task in as the one that entered `order`-th; later ones must follow in order."""
        self._lane(run, task, retries).tasks.append(Waiting(at, order, run, task))

    def put_back(self, run: RunState, task: int, at: float, order: int) -> None:
        """Put a task that did not begin where it was: before those that entered after it."""
        retries = run.failures.get(task, 0) if run.failures else 0
        self._lane(run, task, retries).tasks.appendleft(Waiting(at, order, run, task))

    def _lane(self, run: RunState, task: int, retries: int) -> Lane:
        """The FIFO that a task enters; it is counted as waiting."""
        options = run.options[run.option_of[task]]
        priority = run.priority(task) if run.lifted else options.priority
        lanes = self._lanes.get(demand := demand_of(options))
        if lanes is None:
            lanes = self._lanes[demand] = {}
        lane = lanes.get(kind := (priority, retries))
        if lane is None:
            handicap = BASE_SCORE[priority] - RETRY_PENALTY * retries
            lane = lanes[kind] = Lane(handicap, deque())
        self.depth[priority] += 1
        return lane

    def serve(self, waiting: Waiting, lane: Lane) -> None:
        """Take the head of a lane out: it goes to a worker."""
        first = lane.tasks.popleft()
        assert first is waiting, "a lane is served from its head"
        self.depth[waiting.run.priority(waiting.task)] -= 1

    def purge(self) -> None:
        """Drop the tasks that are not to run any more: cancelled, or waiting for others again."""
        for lanes in self._lanes.values():
            for (priority, _), lane in lanes.items():
                kept = deque(each for each in lane.tasks if each.run.state[each.task] == READY)
                self.depth[priority] -= len(lane.tasks) - len(kept)
                lane.tasks = kept

    def oldest(self) -> float:
        """When the task entered that waits longest; `inf` if none waits."""
        heads = (lane.head() for lanes in self._lanes.values() for lane in lanes.values())
        return min((head.at for head in heads if head is not None), default=math.inf)

    def demands(self) -> list[Demand]:
        """Every kind of demand that some waiting task makes."""
        found, empty = [], []
        for demand, lanes in self._lanes.items():
            if any(lane.tasks for lane in lanes.values()):
                found.append(demand)
            elif demand[3]:
                empty.append(demand)  # of locks there may be as many as tasks
        for demand in empty:
            del self._lanes[demand]
        return found

    def best(self, demands: Iterable[Demand]) -> tuple[Waiting, Demand, Lane] | None:
        """The task that should go first among those with one of these demands."""
        found: tuple[Waiting, Demand, Lane] | None = None
        top: tuple[float, int] = (0.0, 0)
        for demand in demands:
            for lane in self._lanes[demand].values():
                head = lane.head()
                if head is None:
                    continue
                # Higher score first; of equals the one that entered first.
                rank = (lane.handicap - AGEING_PER_SECOND * head.at, -head.order)
                if found is None or rank > top:
                    found, top = (head, demand, lane), rank
        return found

    def waiting(self) -> Iterator[tuple[Waiting, int, int]]:
        """Every waiting task with its priority and retries, in no particular order."""
        for lanes in self._lanes.values():
            for (priority, retries), lane in lanes.items():
                for entry in lane.tasks:
                    yield entry, priority, retries


def least_loaded(workers: Iterable[WorkerState], demand: Demand) -> WorkerState | None:
    """The worker to give a task with this demand, or None if none has room."""
    chosen: WorkerState | None = None
    rank: tuple[float, int, str] = (0.0, 0, "")
    simple = demand == NO_DEMAND
    for worker in workers:
        running = len(worker.running)
        if running >= worker.slots or worker.draining or not worker.alive:
            continue
        if not simple and not (worker.meets(demand) and worker.has_room(demand)):
            continue
        key = (0.6 * worker.memory_load + 0.4 * running / worker.cpu_cores, running, worker.id)
        if chosen is None or key < rank:
            chosen, rank = worker, key
    return chosen
