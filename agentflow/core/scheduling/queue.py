"""A queue of tasks by priority, in which waiting counts and repeated failure costs.

Law (order): the task with the highest unrounded score is served first, ties in order of enqueueing. All
tasks age at one rate, so the order of two tasks is fixed when they enter, however long they wait.

Law (no starvation): with equal retries a LOW task is overtaken only by URGENT tasks that entered less than
75 s after it; 75 s of waiting are worth the distance from LOW to URGENT.

Tasks that differ only in when they entered wait in one lane, first in, first out; a small heap chooses
among the heads of the lanes. So no operation depends on how many tasks wait, except moving one to another
priority, which takes a heap's logarithm.
"""

from __future__ import annotations

import math
import zlib
from heapq import heappop, heappush, heapreplace
from typing import TYPE_CHECKING, Any, Final

from agentflow.core.scheduling.clock import Clock, default
from agentflow.core.scheduling.lanes import AGEING_PER_SECOND, Lane, Waiting, priority_score
from agentflow.core.scheduling.queue_stats import DeadLetter, Failure, Meter, QueueStats
from agentflow.core.scheduling.tasks import PriorityLike, TaskNode, TaskPriority, TaskState
from agentflow.errors import DuplicateTask, InvalidConfig, NoSuchTask, QueueFull
from agentflow.ids import TaskId
from agentflow.views import Viewable

if TYPE_CHECKING:
    from random import Random

READY: Final = TaskState.READY

ANY_GROUP: Final = "any"
"""What statistics call tasks that may run in any group."""


class PriorityTaskQueue(Viewable):
    """Tasks that wait for a worker, the most urgent first.

    The score people see is `base + 10 * whole seconds waited - 50 * retry_count`, with base 250, 500, 750
    or 1000 from LOW to URGENT. The queue serves by the same score unrounded.

    Parameters
    ----------
    limit : int, optional
        How many tasks may wait. Retries always find room: what was once admitted is not refused later.
    clock : callable, optional
        Gives the time; agentflow's monotonic clock by default.
    rng : random.Random, optional
        Where the jitter of back-off comes from; by default from the task's id and retry, so that the same
        queue always behaves the same.

    Notes
    -----
    The queue is plain data: it can be copied and pickled, and back-off is kept as the instants at which
    tasks fall due, so that a copy goes on where the original stood.

    Examples
    --------
    >>> now = 0.0
    >>> queue = PriorityTaskQueue(clock=lambda: now)
    >>> queue.enqueue(TaskNode("report", priority="low"))
    >>> now = 80.0
    >>> queue.enqueue(TaskNode("page", priority="urgent"))
    >>> queue.calculate_priority_score(queue.peek()), queue.peek().id
    (1050, 'report')
    >>> queue.dequeue().id, queue.dequeue().id, queue.dequeue()
    ('report', 'page', None)
    """

    def __init__(
        self, *, limit: int | None = None, clock: Clock | None = None, rng: Random | None = None
    ) -> None:
        size: Any = limit
        if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 1):
            raise InvalidConfig(f"limit={limit!r}: a queue holds at least one task", field="limit")
        self.limit = limit
        self._clock = default if clock is None else clock
        self._rng = rng
        self._order = self._places = 0
        self._entries: dict[TaskId, Waiting] = {}
        self._lanes: dict[tuple[TaskPriority, int], Lane] = {}
        # One entry for each lane's head, and stale ones that are dropped when they come up: higher score
        # first, of equals the one that entered first.
        self._heads: list[tuple[float, int, int, Waiting, Lane]] = []
        self._delayed: dict[TaskId, tuple[float, TaskNode]] = {}
        self._due: list[tuple[float, int, TaskId]] = []
        self._failures: dict[TaskId, list[Failure]] = {}
        self._dead: dict[TaskId, DeadLetter] = {}
        self._by_priority = [0] * 5
        self._by_group: dict[str, int] = {}
        self._meter = Meter()

    # --- in and out ---------------------------------------------------------------------------------------

    def enqueue(self, task: TaskNode, *, now: float | None = None) -> None:
        """Add a task; it begins to wait now.

        Parameters
        ----------
        task : TaskNode
            What has to wait.
        now : float, optional
            The instant, in seconds; by default the clock's.

        Raises
        ------
        QueueFull
            If `limit` tasks wait already.
        DuplicateTask
            If a task of this id waits already.

        Examples
        --------
        >>> queue = PriorityTaskQueue(limit=1)
        >>> queue.enqueue(TaskNode("a"))
        >>> queue.enqueue(TaskNode("b"))
        Traceback (most recent call last):
            ...
        agentflow.errors.QueueFull: 1 task waits already, and that is the limit; 'b' was not added, try again
        when one has been taken
        """
        if not isinstance(task, TaskNode):
            raise InvalidConfig(f"a queue holds TaskNodes, not {task!r}", field="task")
        name = task.id
        if name in self._entries or name in self._delayed:
            raise DuplicateTask(f"{name!r} is in the queue already", task=name)
        limit = self.limit
        if limit is not None and len(self._entries) + len(self._delayed) >= limit:
            raise QueueFull(
                f"{limit} task{'s wait' if limit > 1 else ' waits'} already, and that is the limit; {name!r} "
                f"was not added, try again when one has been taken",
                limit=limit,
                task=name,
            )
        at = self._clock() if now is None else now
        meter = self._meter
        if at >= meter.next:
            meter.mark(at)
        meter.enqueued += 1
        task.state = READY
        self._order += 1
        self._place(task, at, self._order, task.priority, task.retry_count)

    def dequeue(self, *, now: float | None = None) -> TaskNode | None:
        """Take the task with the highest score; None if none waits.

        Tasks that are still backing off are not there yet.

        Parameters
        ----------
        now : float, optional
            The instant, in seconds; by default the clock's.

        Returns
        -------
        TaskNode or None
            The task, which has left the queue.
        """
        at = self._clock() if now is None else now
        if self._due:
            self._fall_due(at)
        lane = self._best()
        if lane is None:
            return None
        entry = lane.first
        assert entry is not None, "the best lane has a first"
        task = entry.task
        assert task is not None, "the first of a lane waits"
        del self._entries[task.id]
        self._by_priority[entry.priority] -= 1
        self._by_group[entry.group] -= 1
        head = lane.take()
        if head is None:
            heappop(self._heads)
        else:
            key = AGEING_PER_SECOND * head.at - lane.handicap
            heapreplace(self._heads, (key, head.order, head.place, head, lane))
        meter = self._meter
        if at >= meter.next:
            meter.mark(at)
        meter.leave(at - entry.at)
        return task

    def peek(self, *, now: float | None = None) -> TaskNode | None:
        """Look at the task that `dequeue` would take now."""
        if self._due:
            self._fall_due(self._clock() if now is None else now)
        lane = self._best()
        return None if lane is None or lane.first is None else lane.first.task

    def remove(self, task_id: TaskId) -> TaskNode:
        """Take a task out wherever it stands: waiting, or backing off.

        Parameters
        ----------
        task_id : str
            Which task.

        Returns
        -------
        TaskNode
            The task, which has left the queue.

        Raises
        ------
        NoSuchTask
            If it is not in the queue.
        """
        if (delayed := self._delayed.pop(task_id, None)) is not None:
            return delayed[1]
        return self._take(task_id)

    # --- order --------------------------------------------------------------------------------------------

    def calculate_priority_score(self, task: TaskNode | TaskId, *, now: float | None = None) -> int:
        """The score people see: base + 10 for each whole second waited - 50 for each retry.

        A task that is not in the queue has waited for nothing.

        Parameters
        ----------
        task : TaskNode or str
            The task, or its id.
        now : float, optional
            The instant, in seconds; by default the clock's.

        Returns
        -------
        int
            The score.

        Examples
        --------
        >>> queue = PriorityTaskQueue()
        >>> task = TaskNode("a", priority="high", retries=3, retry_count=1)
        >>> queue.enqueue(task, now=0.0)
        >>> queue.calculate_priority_score(task, now=12.9)
        820
        """
        name = task if isinstance(task, str) else task.id
        entry = self._entries.get(name)
        if entry is not None:
            at = self._clock() if now is None else now
            return priority_score(entry.priority, max(0.0, at - entry.at), entry.retries)
        if isinstance(task, str):
            if task not in self._delayed:
                raise self._unknown(task)
            task = self._delayed[task][1]
        return priority_score(task.priority, 0.0, task.retry_count)

    def reprioritize(self, task_id: TaskId, priority: PriorityLike) -> None:
        """Give a task another priority; it keeps the time it has waited.

        Parameters
        ----------
        task_id : str
            Which task.
        priority : TaskPriority, int or str
            Its new priority.

        Raises
        ------
        NoSuchTask
            If it is not in the queue.
        """
        priority = TaskPriority.of(priority)
        if (delayed := self._delayed.get(task_id)) is not None:
            delayed[1].priority = priority
            return
        entry = self._entries.get(task_id)
        if entry is None:
            raise self._unknown(task_id)
        task = entry.task
        assert task is not None, "an entry that is listed waits"
        if priority is entry.priority:
            return
        self._take(task_id)
        task.priority = priority
        self._place(task, entry.at, entry.order, priority, entry.retries)

    # --- failures -----------------------------------------------------------------------------------------

    def retry(self, task: TaskNode, error: Any = None, *, now: float | None = None) -> float | None:
        """Say that an attempt at a task failed: it waits out its back-off and comes back, or is dead.

        Parameters
        ----------
        task : TaskNode
            The task, as it was dequeued. Its `retry_count` goes up by one.
        error : Any
            What the attempt failed with; it is kept until the task is `done`.
        now : float, optional
            When.

        Returns
        -------
        float or None
            The instant at which it enters the queue again; None if it has no retries left and is now
            among the dead letters.

        Examples
        --------
        >>> from agentflow.core.scheduling import Backoff
        >>> queue = PriorityTaskQueue()
        >>> task = TaskNode("flaky", retries=1, backoff=Backoff(base_secs=5))
        >>> queue.retry(task, "refused", now=10.0)
        15.0
        >>> queue.dequeue(now=14.9), queue.dequeue(now=15.0).id
        (None, 'flaky')
        >>> queue.retry(task, "refused again", now=16.0)
        >>> queue.dead_letters()[0].errors
        ('refused', 'refused again')
        """
        name = task.id
        if name in self._entries or name in self._delayed:
            raise DuplicateTask(
                f"{name!r} waits in the queue; only a task that was taken can fail", task=name
            )
        at = self._clock() if now is None else now
        failures = self._failures.setdefault(name, [])
        failures.append(Failure(len(failures) + 1, error, at))
        if task.retry_count >= task.retries:
            task.state = TaskState.FAILED
            self._dead[name] = DeadLetter(task, tuple(self._failures.pop(name)), at)
            return None
        task.retry_count += 1
        self._meter.retried += 1
        due = at + self._delay(task)
        if due <= at:
            self._meter.enter(at)
            self._enter(task, at)
            return at
        task.state = TaskState.RETRYING
        self._order += 1
        self._delayed[name] = (due, task)
        heappush(self._due, (due, self._order, name))
        return due

    def done(self, task_id: TaskId) -> None:
        """Forget the errors of a task that made it in the end."""
        self._failures.pop(task_id, None)

    def failures(self, task_id: TaskId) -> tuple[Failure, ...]:
        """What a task's attempts have failed with so far."""
        if (letter := self._dead.get(task_id)) is not None:
            return letter.failures
        return tuple(self._failures.get(task_id, ()))

    def dead_letters(self) -> list[DeadLetter]:
        """Tasks that used up their retries, the first to die first."""
        return list(self._dead.values())

    def revive(self, task_id: TaskId, *, now: float | None = None) -> None:
        """Put a dead letter back into the queue, with all its retries before it.

        Parameters
        ----------
        task_id : str
            Which dead letter.
        now : float, optional
            The instant, in seconds; by default the clock's.

        Raises
        ------
        NoSuchTask
            If it is not among the dead letters.
        QueueFull, DuplicateTask
            As `enqueue`; then it stays where it is.
        """
        letter = self._dead.get(task_id)
        if letter is None:
            raise NoSuchTask(f"{task_id!r} is not among the dead letters", task=task_id)
        used, letter.task.retry_count = letter.task.retry_count, 0
        try:
            self.enqueue(letter.task, now=now)
        except (QueueFull, DuplicateTask):
            letter.task.retry_count = used
            raise
        del self._dead[task_id]

    def due(self) -> float:
        """The instant at which the next task that backs off enters the queue; `inf` if none does."""
        due = self._due
        while due:
            at, _, name = due[0]
            if self._delayed.get(name, (None,))[0] == at:
                return at
            heappop(due)
        return math.inf

    # --- looking ------------------------------------------------------------------------------------------

    def stats(self, *, now: float | None = None) -> QueueStats:
        """Count what waits, what came and went, and how long it waited.

        Parameters
        ----------
        now : float, optional
            The instant, in seconds; by default the clock's.

        Returns
        -------
        QueueStats
            Depths, counts, waits and rates.

        Examples
        --------
        >>> queue = PriorityTaskQueue()
        >>> queue.enqueue(TaskNode("a", group="gpu"), now=0.0)
        >>> stats = queue.stats(now=3.0)
        >>> stats.depth, stats.by_group, stats.oldest_s
        (1, {'gpu': 1}, 3.0)
        """
        at = self._clock() if now is None else now
        self._fall_due(at)
        heads = [lane.first for lane in self._lanes.values() if lane.first is not None]
        oldest = min((head.at for head in heads), default=at)
        return self._meter.stats(
            at,
            depth=len(self._entries),
            by_priority={each.name: self._by_priority[each] for each in TaskPriority},
            by_group={group: count for group, count in self._by_group.items() if count},
            dead_letters=len(self._dead),
            delayed=len(self._delayed),
            oldest_s=max(0.0, at - oldest),
        )

    def tasks(self, *, now: float | None = None) -> list[TaskNode]:
        """Every task that waits, in the order in which they would be served."""
        self._fall_due(self._clock() if now is None else now)
        entries = [
            (lane.handicap - AGEING_PER_SECOND * e.at, e) for lane in self._lanes.values() for e in lane
        ]
        entries.sort(key=lambda pair: (-pair[0], pair[1].order))
        return [entry.task for _, entry in entries if entry.task is not None]

    def __len__(self) -> int:
        return len(self._entries) + len(self._delayed)

    def __bool__(self) -> bool:
        return True

    def __contains__(self, task: object) -> bool:
        name = task.id if isinstance(task, TaskNode) else task
        return name in self._entries or name in self._delayed

    def __repr__(self) -> str:
        delayed = f", {len(self._delayed)} backing off" if self._delayed else ""
        dead = f", {len(self._dead)} dead" if self._dead else ""
        return f"<PriorityTaskQueue: {len(self._entries)} waiting{delayed}{dead}>"

    # --- lanes --------------------------------------------------------------------------------------------

    def _enter(self, task: TaskNode, at: float) -> None:
        task.state = READY
        self._order += 1
        self._place(task, at, self._order, task.priority, task.retry_count)

    def _place(self, task: TaskNode, at: float, order: int, priority: TaskPriority, retries: int) -> None:
        lane = self._lanes.get((priority, retries))
        if lane is None:
            lane = self._lanes[priority, retries] = Lane(priority, retries)
        group = task.group or ANY_GROUP
        self._places += 1
        entry = self._entries[task.id] = Waiting(at, order, self._places, task, priority, retries, group)
        self._by_priority[priority] += 1
        self._by_group[group] = self._by_group.get(group, 0) + 1
        if lane.put(entry):
            self._lead(lane)

    def _lead(self, lane: Lane) -> None:
        """Put the head of a lane among the heads."""
        head = lane.first
        if head is not None:
            key = AGEING_PER_SECOND * head.at - lane.handicap
            heappush(self._heads, (key, head.order, head.place, head, lane))
            if len(self._heads) > 64 + 4 * len(self._lanes):
                self._heads = []
                for each in self._lanes.values():
                    self._lead(each)

    def _best(self) -> Lane | None:
        """The lane whose first goes first. Heads that are none any more are dropped on the way."""
        heads = self._heads
        while heads:
            head = heads[0]
            lane = head[4]
            if lane.first is head[3]:
                return lane
            heappop(heads)
        return None

    def _take(self, task_id: TaskId) -> TaskNode:
        """Take a waiting task out of the middle; its place stays until it comes up."""
        entry = self._entries.pop(task_id, None)
        if entry is None:
            raise self._unknown(task_id)
        task = entry.task
        assert task is not None, "an entry that is listed waits"
        lane = self._lanes[entry.priority, entry.retries]
        led = lane.first is entry
        self._by_priority[entry.priority] -= 1
        self._by_group[entry.group] -= 1
        lane.vacate(entry)
        if led:
            self._lead(lane)
        return task

    def _delay(self, task: TaskNode) -> float:
        if task.backoff is None:
            return 0.0
        if self._rng is not None:
            return task.backoff.delay(task.retry_count, self._rng)
        drawn = zlib.crc32(f"{task.id}\0{task.retry_count}".encode()) / 2**32
        return task.backoff.delay(task.retry_count) * (1.0 - task.backoff.jitter * drawn)

    def _fall_due(self, now: float) -> None:
        """Let tasks whose back-off is over enter the queue; their waiting counts from then."""
        while self.due() <= now:
            at, _, name = heappop(self._due)
            _, task = self._delayed.pop(name)
            self._meter.enter(now)
            self._enter(task, at)

    def _unknown(self, task_id: TaskId) -> NoSuchTask:
        return NoSuchTask(f"{task_id!r} is not in the queue", task=task_id)

    def check_invariants(self) -> None:
        """Assert what must hold between any two operations."""
        standing = {
            entry.task.id for lane in self._lanes.values() for entry in lane if entry.task is not None
        }
        assert standing == set(self._entries), "every waiting task stands in a lane"
        assert sum(self._by_priority) == len(self._entries), "the depth by priority is true"
        assert sum(self._by_group.values()) == len(self._entries), "the depth by group is true"
        assert not self._entries.keys() & self._delayed.keys(), "a task waits once"
        assert not self._dead.keys() & self._failures.keys(), "a dead task's errors are in its letter"
        listed = {id(entry) for _, _, _, entry, _ in self._heads}
        for lane in self._lanes.values():
            in_order = sorted(lane, key=lambda entry: (entry.at, entry.order))
            assert lane.first is (in_order[0] if in_order else None), "the first of a lane is known"
            assert lane.first is None or id(lane.first) in listed, "the first of a lane is among the heads"
