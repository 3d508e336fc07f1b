"""The queue against a list that is sorted at every step, and the laws of the specification."""

import copy
import math
import pickle
import random
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from agentflow.core.scheduling import (
    Backoff,
    PriorityTaskQueue,
    TaskNode,
    TaskPriority,
    TaskState,
    priority_score,
)
from agentflow.errors import DuplicateTask, InvalidConfig, NoSuchTask, QueueFull


class QueueAgainstModel(RuleBasedStateMachine):
    """Random operations; the model is a dict, and sorts whenever it is asked."""

    @initialize(limit=st.one_of(st.none(), st.integers(1, 6)))
    def begin(self, limit):
        self.now = 0.0
        self.queue = PriorityTaskQueue(limit=limit, clock=lambda: self.now)
        self.limit = limit
        self.tasks = {}
        self.waiting = {}
        self.delayed = {}
        self.taken = {}
        self.dead = {}
        self.errors = {}
        self.entered = self.left = self.retries = self.number = 0
        self.waits = []

    def fall_due(self):
        for name, (due, _) in sorted(self.delayed.items(), key=lambda item: item[1]):
            if due <= self.now:
                del self.delayed[name]
                self.enter(name, due)

    def enter(self, name, at):
        self.number += 1
        self.entered += 1
        self.waiting[name] = (at, self.number)

    def score(self, name):
        at, _ = self.waiting[name]
        task = self.known(name)
        return (250, 500, 750, 1000)[task.priority - 1] - 10 * at - 50 * task.retry_count

    def known(self, name):
        return self.tasks[name]

    def line(self):
        return sorted(self.waiting, key=lambda name: (-self.score(name), self.waiting[name][1]))

    @rule(secs=st.integers(0, 200).map(lambda quarters: quarters / 4))
    def wait(self, secs):
        self.now += secs

    @rule(
        priority=st.sampled_from(TaskPriority),
        retries=st.integers(0, 2),
        backoff=st.sampled_from([None, Backoff(base_secs=4, factor=2, max_secs=20)]),
        group=st.sampled_from([None, "gpu"]),
    )
    def enqueue(self, priority, retries, backoff, group):
        name = f"t{len(self.tasks)}"
        task = TaskNode(name, priority=priority, retries=retries, backoff=backoff, group=group)
        if self.limit is not None and len(self.waiting) + len(self.delayed) >= self.limit:
            with pytest.raises(QueueFull) as refused:
                self.queue.enqueue(task)
            assert refused.value.limit == self.limit
            assert name not in self.queue
            return
        self.tasks[name] = task
        self.queue.enqueue(task)
        self.enter(name, self.now)

    @rule()
    def dequeue(self):
        self.fall_due()
        line = self.line()
        assert self.queue.peek() is (self.known(line[0]) if line else None)
        task = self.queue.dequeue()
        if not line:
            assert task is None
            return
        assert task.id == line[0]
        self.waits.append(self.now - self.waiting.pop(line[0])[0])
        self.left += 1
        self.taken[task.id] = task

    @precondition(lambda self: self.waiting or self.delayed)
    @rule(data=st.data(), priority=st.sampled_from(TaskPriority))
    def reprioritize(self, data, priority):
        name = data.draw(st.sampled_from(sorted([*self.waiting, *self.delayed])))
        self.queue.reprioritize(name, priority)
        assert self.known(name).priority is priority

    @precondition(lambda self: self.waiting or self.delayed)
    @rule(data=st.data())
    def remove(self, data):
        name = data.draw(st.sampled_from(sorted([*self.waiting, *self.delayed])))
        assert self.queue.remove(name) is self.known(name)
        self.waiting.pop(name, None)
        self.delayed.pop(name, None)

    @precondition(lambda self: self.taken)
    @rule(data=st.data(), error=st.integers())
    def retry(self, data, error):
        name = data.draw(st.sampled_from(sorted(self.taken)))
        task = self.taken.pop(name)
        before = task.retry_count
        due = self.queue.retry(task, error)
        self.errors.setdefault(name, []).append(error)
        if before == task.retries:
            assert due is None
            assert task.state is TaskState.FAILED
            self.dead[name] = self.errors.pop(name)
            return
        self.retries += 1
        assert task.retry_count == before + 1
        delay = 0.0 if task.backoff is None else min(20.0, 4.0 * 2.0**before)
        assert due == self.now + delay
        if delay:
            self.number += 1
            self.delayed[name] = (due, self.number)
        else:
            self.enter(name, self.now)

    @precondition(lambda self: self.dead)
    @rule(data=st.data())
    def revive(self, data):
        name = data.draw(st.sampled_from(sorted(self.dead)))
        if self.limit is not None and len(self.waiting) + len(self.delayed) >= self.limit:
            with pytest.raises(QueueFull):
                self.queue.revive(name)
            assert self.known(name).retry_count == self.known(name).retries
            return
        self.queue.revive(name)
        del self.dead[name]
        self.enter(name, self.now)

    @invariant()
    def agree(self):
        self.queue.check_invariants()
        assert self.queue.due() == min((due for due, _ in self.delayed.values()), default=math.inf)
        self.fall_due()
        assert [task.id for task in self.queue.tasks()] == self.line()
        stats = self.queue.stats()
        assert stats.depth == len(self.waiting)
        assert stats.delayed == len(self.delayed)
        assert len(self.queue) == len(self.waiting) + len(self.delayed)
        for priority in TaskPriority:
            count = sum(self.known(name).priority is priority for name in self.waiting)
            assert stats.by_priority[priority.name] == count
        groups = [self.known(name).group or "any" for name in self.waiting]
        assert stats.by_group == {group: groups.count(group) for group in set(groups)}
        assert (stats.enqueued, stats.dequeued, stats.retried) == (self.entered, self.left, self.retries)
        assert {letter.task.id: list(letter.errors) for letter in self.queue.dead_letters()} == self.dead
        assert stats.dead_letters == len(self.dead)
        oldest = min((at for at, _ in self.waiting.values()), default=self.now)
        assert stats.oldest_s == self.now - oldest
        if self.waits:
            ordered = sorted(self.waits)
            assert stats.wait_mean_s == pytest.approx(sum(ordered) / len(ordered))
            assert stats.wait_p50_s == ordered[math.ceil(len(ordered) / 2) - 1]
            assert stats.wait_p99_s == ordered[math.ceil(len(ordered) * 0.99) - 1]
        for name, (at, _) in self.waiting.items():
            task = self.known(name)
            shown = priority_score(task.priority, math.floor(self.now - at), task.retry_count)
            assert self.queue.calculate_priority_score(name) == shown


def test_the_queue_serves_like_a_list_sorted_at_every_step():
    run_state_machine_as_test(
        QueueAgainstModel, settings=settings(max_examples=80, stateful_step_count=40, deadline=None)
    )


# --- the score --------------------------------------------------------------------------------------------


@given(st.sampled_from(TaskPriority), st.floats(0, 1e6), st.integers(0, 50))
def test_the_score_shown_is_the_formula(priority, waited, retries):
    base = {"LOW": 250, "MEDIUM": 500, "HIGH": 750, "URGENT": 1000}[priority.name]
    score = priority_score(priority, waited, retries)
    assert isinstance(score, int)
    assert score == base + 10 * int(waited) - 50 * retries


def test_the_score_of_a_waiting_task_counts_whole_seconds():
    queue = PriorityTaskQueue()
    task = TaskNode("a", priority="low", retries=9, retry_count=2)
    assert queue.calculate_priority_score(task, now=5.0) == 150
    queue.enqueue(task, now=5.0)
    scores = [queue.calculate_priority_score(task, now=5.0 + waited) for waited in (0, 0.99, 1, 2.5)]
    assert scores == [150, 150, 160, 170]
    assert queue.calculate_priority_score("a", now=15.0) == 250
    with pytest.raises(NoSuchTask):
        queue.calculate_priority_score("nope")


def test_the_order_is_by_the_unrounded_score():
    queue = PriorityTaskQueue()
    queue.enqueue(TaskNode("low", priority="low"), now=0.0)
    queue.enqueue(TaskNode("medium", priority="medium"), now=25.2)
    # Whole seconds would show 510 and 500 at 26.1, 520 and 510 at 27.1, but 510 and 510 at 26.3.
    assert [queue.calculate_priority_score(name, now=26.3) for name in ("low", "medium")] == [510, 510]
    assert queue.dequeue(now=26.3).id == "low"
    assert queue.dequeue(now=26.3).id == "medium"


def test_of_equals_the_first_to_enter_is_served_first():
    queue = PriorityTaskQueue()
    for i in range(100):
        queue.enqueue(TaskNode(f"t{i}"), now=1.0)
    assert [queue.dequeue(now=9.0).id for _ in range(100)] == [f"t{i}" for i in range(100)]


def test_ties_between_priorities_go_to_the_first_to_enter():
    queue = PriorityTaskQueue()
    queue.enqueue(TaskNode("low", priority="low"), now=0.0)
    queue.enqueue(TaskNode("urgent", priority="urgent"), now=75.0)
    assert queue.dequeue(now=75.0).id == "low"


@given(st.data())
def test_a_low_task_is_overtaken_only_by_urgent_ones_of_the_next_75_seconds(data):
    steps = data.draw(st.lists(st.floats(0.01, 30), min_size=1, max_size=60))
    queue = PriorityTaskQueue()
    queue.enqueue(TaskNode("low", priority="low"), now=0.0)
    now, at = 0.0, {}
    for i, step in enumerate(steps):
        now += step
        queue.enqueue(TaskNode(f"u{i}", priority="urgent"), now=now)
        at[f"u{i}"] = now
    served = [queue.dequeue(now=now).id for _ in range(len(steps) + 1)]
    before = served[: served.index("low")]
    assert all(at[name] < 75.0 for name in before)
    assert set(before) == {name for name, entered in at.items() if entered < 75.0}


def test_a_low_task_under_a_constant_urgent_stream_is_served_within_75_seconds_of_entries():
    queue, now = PriorityTaskQueue(), 0.0
    queue.enqueue(TaskNode("low", priority="low"), now=now)
    for i in range(1000):
        now += 1.0
        queue.enqueue(TaskNode(f"u{i}", priority="urgent"), now=now)
        if queue.dequeue(now=now).id == "low":
            break
    assert now == 75.0


def test_a_retry_costs_five_seconds_and_no_task_starves_of_it():
    queue = PriorityTaskQueue()
    queue.enqueue(TaskNode("tried", retries=100, retry_count=10), now=0.0)
    for i in range(200):
        queue.enqueue(TaskNode(f"t{i}"), now=float(i))
    served = [queue.dequeue(now=200.0).id for _ in range(201)]
    assert served.index("tried") == 50


def test_reprioritizing_keeps_the_time_waited():
    queue = PriorityTaskQueue()
    queue.enqueue(TaskNode("a", priority="low"), now=0.0)
    queue.enqueue(TaskNode("b", priority="urgent"), now=10.0)
    queue.reprioritize("a", "urgent")
    assert queue.calculate_priority_score("a", now=20.0) == 1200
    assert queue.dequeue(now=20.0).id == "a"
    with pytest.raises(NoSuchTask):
        queue.reprioritize("a", "low")
    with pytest.raises(InvalidConfig):
        queue.reprioritize("b", "soon")


def test_a_clock_that_goes_back_only_makes_a_task_older():
    queue = PriorityTaskQueue()
    queue.enqueue(TaskNode("first"), now=10.0)
    queue.enqueue(TaskNode("second"), now=5.0)
    assert queue.calculate_priority_score("first", now=9.0) == 500
    assert queue.dequeue(now=10.0).id == "second"
    assert queue.stats(now=10.0).wait_mean_s == 5.0


# --- limits, retries, dead letters ------------------------------------------------------------------------


def test_a_full_queue_refuses_and_takes_again_when_one_has_left():
    queue = PriorityTaskQueue(limit=2)
    queue.enqueue(TaskNode("a"), now=0.0)
    queue.enqueue(TaskNode("b"), now=0.0)
    with pytest.raises(QueueFull) as refused:
        queue.enqueue(TaskNode("c"), now=0.0)
    assert refused.value.limit == 2
    queue.dequeue(now=0.0)
    queue.enqueue(TaskNode("c"), now=0.0)
    assert len(queue) == 2


def test_tasks_that_back_off_count_towards_the_limit():
    queue = PriorityTaskQueue(limit=1)
    queue.retry(TaskNode("a", retries=1, backoff=Backoff(base_secs=5)), "error", now=0.0)
    with pytest.raises(QueueFull):
        queue.enqueue(TaskNode("b"), now=1.0)


def test_a_retry_finds_room_in_a_full_queue():
    queue = PriorityTaskQueue(limit=1)
    task = TaskNode("a", retries=1)
    queue.enqueue(task, now=0.0)
    queue.dequeue(now=0.0)
    queue.enqueue(TaskNode("b"), now=0.0)
    assert queue.retry(task, "error", now=1.0) == 1.0
    assert len(queue) == 2


@pytest.mark.parametrize("limit", [0, -1, 1.5, True, "many"])
def test_a_limit_is_a_whole_number_from_one(limit):
    with pytest.raises(InvalidConfig):
        PriorityTaskQueue(limit=limit)


def test_a_task_waits_once():
    queue = PriorityTaskQueue()
    task = TaskNode("a", retries=3, backoff=Backoff(base_secs=5))
    queue.enqueue(task, now=0.0)
    with pytest.raises(DuplicateTask):
        queue.enqueue(TaskNode("a"), now=0.0)
    with pytest.raises(DuplicateTask):
        queue.retry(task, "error", now=0.0)
    queue.dequeue(now=0.0)
    queue.retry(task, "error", now=0.0)
    with pytest.raises(DuplicateTask):
        queue.enqueue(task, now=0.0)
    with pytest.raises(InvalidConfig):
        queue.enqueue("a", now=0.0)


def test_exhausted_retries_keep_every_attempts_error():
    queue = PriorityTaskQueue()
    task = TaskNode("a", retries=2)
    errors = [ValueError(i) for i in range(3)]
    for at, error in enumerate(errors):
        queue.enqueue(task, now=float(at)) if at == 0 else None
        assert queue.dequeue(now=float(at)) is task
        queue.retry(task, error, now=at + 0.5)
    (letter,) = queue.dead_letters()
    assert list(letter.errors) == errors
    assert [(failure.attempt, failure.at) for failure in letter.failures] == [(1, 0.5), (2, 1.5), (3, 2.5)]
    assert queue.failures("a") == letter.failures
    assert queue.dequeue(now=99.0) is None
    queue.revive("a", now=100.0)
    assert queue.dequeue(now=100.0).retry_count == 0
    assert queue.dead_letters() == []
    with pytest.raises(NoSuchTask):
        queue.revive("a")


def test_a_dead_letter_that_finds_no_room_stays_one():
    queue = PriorityTaskQueue(limit=1)
    task = TaskNode("a", retries=1, retry_count=1)
    queue.retry(task, "error", now=0.0)
    queue.enqueue(TaskNode("b"), now=0.0)
    with pytest.raises(QueueFull):
        queue.revive("a", now=1.0)
    assert task.retry_count == 1
    assert [letter.task for letter in queue.dead_letters()] == [task]


def test_errors_are_forgotten_when_the_task_is_done():
    queue = PriorityTaskQueue()
    task = TaskNode("a", retries=2)
    queue.retry(task, "once", now=0.0)
    assert [failure.error for failure in queue.failures("a")] == ["once"]
    queue.done("a")
    assert queue.failures("a") == ()


def test_backoff_is_exact_under_a_fake_clock():
    queue = PriorityTaskQueue()
    task = TaskNode("a", retries=5, backoff=Backoff(base_secs=1, factor=2, max_secs=5))
    now, dues = 0.0, []
    for _ in range(5):
        dues.append(queue.retry(task, "error", now=now) - now)
        now += dues[-1]
        assert queue.dequeue(now=math.nextafter(now, 0)) is None
        assert queue.dequeue(now=now) is task
    assert dues == [1, 2, 4, 5, 5]


def test_waiting_counts_from_the_end_of_the_backoff():
    queue = PriorityTaskQueue()
    task = TaskNode("a", retries=1, backoff=Backoff(base_secs=10))
    queue.retry(task, "error", now=0.0)
    queue.dequeue(now=5.0)
    assert queue.peek(now=30.0) is task
    assert queue.calculate_priority_score(task, now=30.0) == 500 + 10 * 20 - 50


@given(st.integers(), st.floats(0.01, 1))
def test_jitter_stays_in_its_bounds_and_repeats_with_its_seed(seed, jitter):
    backoff = Backoff(base_secs=8, factor=2, max_secs=100, jitter=jitter)

    def delays(rng):
        queue = PriorityTaskQueue(rng=rng)
        task = TaskNode("a", retries=4, backoff=backoff)
        for retry in range(1, 5):
            due = queue.retry(task, "error", now=0.0)
            yield retry, due
            queue.remove("a")

    for make in (lambda: random.Random(seed), lambda: None):
        found = list(delays(make()))
        assert found == list(delays(make()))
        for retry, due in found:
            plain = min(100, 8 * 2 ** (retry - 1))
            assert plain * (1 - jitter) - 1e-9 <= due <= plain


def test_the_same_jitter_without_a_seed_differs_from_task_to_task():
    queue = PriorityTaskQueue()
    backoff = Backoff(base_secs=60, jitter=1.0)
    dues = {queue.retry(TaskNode(f"t{i}", retries=1, backoff=backoff), now=0.0) for i in range(50)}
    assert len(dues) == 50


@pytest.mark.parametrize("copy_of", [copy.deepcopy, lambda queue: pickle.loads(pickle.dumps(queue))])
def test_a_copy_goes_on_where_the_original_stood(copy_of):
    queue = PriorityTaskQueue(limit=50, rng=random.Random(3))
    rng = random.Random(5)
    for i in range(30):
        queue.enqueue(TaskNode(f"t{i}", priority=rng.randint(1, 4), retries=3), now=float(i))
    for i in range(6):
        task = queue.dequeue(now=30.0)
        task.backoff = Backoff(base_secs=7, jitter=0.5)
        queue.retry(task, f"error {i}", now=30.0)
    twin = copy_of(queue)
    assert twin.due() == queue.due() > 30.0
    for now in (30.0, 35.0, 100.0):
        assert twin.stats(now=now) == queue.stats(now=now)
        for _ in range(12):
            one, two = twin.dequeue(now=now), queue.dequeue(now=now)
            assert (one and one.id) == (two and two.id)


# --- size -------------------------------------------------------------------------------------------------


def test_places_of_tasks_that_left_do_not_pile_up():
    queue = PriorityTaskQueue()
    for i in range(300):
        queue.enqueue(TaskNode(f"keep{i}", priority="low"), now=0.0)
    for _ in range(20_000):
        queue.enqueue(TaskNode("x", priority="low"), now=1.0)
        queue.reprioritize("x", "high")
        queue.reprioritize("x", "low")
        queue.remove("x")
    places = sum(map(len, queue._lanes.values()))
    assert places < 1500
    assert len(queue._heads) < 200
    queue.check_invariants()


def count_calls(action):
    """How many Python calls it takes: a measure of work that no busy machine can change."""
    calls = 0

    def trace(frame, event, arg):
        nonlocal calls
        calls += event in ("call", "c_call")

    old = sys.getprofile()
    sys.setprofile(trace)
    try:
        action()
    finally:
        sys.setprofile(old)
    return calls


def test_the_work_of_an_operation_does_not_depend_on_the_depth():
    def work(depth):
        queue = PriorityTaskQueue()
        for i in range(depth):
            queue.enqueue(TaskNode(f"t{i}", priority=1 + i % 4), now=float(i))
        extra = TaskNode("extra")

        def some():
            queue.enqueue(extra, now=float(depth))
            queue.reprioritize(f"t{depth // 2}", "urgent")
            queue.dequeue(now=float(depth))
            queue.peek(now=float(depth))

        return count_calls(some)

    assert work(20_000) <= work(100) + 5


def test_rates_are_over_the_last_ten_seconds():
    queue = PriorityTaskQueue()
    for i in range(1000):
        queue.enqueue(TaskNode(f"t{i}"), now=i * 0.1)
        if i % 2:
            queue.dequeue(now=i * 0.1)
    stats = queue.stats(now=100.0)
    assert stats.rate_in == pytest.approx(10, rel=0.15)
    assert stats.rate_out == pytest.approx(5, rel=0.15)
    assert queue.stats(now=1000.0).rate_in < 0.2


def test_an_empty_queue_has_empty_numbers():
    stats = PriorityTaskQueue().stats(now=5.0)
    assert (stats.depth, stats.oldest_s, stats.wait_p99_s, stats.rate_in) == (0, 0.0, 0.0, 0.0)
    assert stats.by_priority == {"LOW": 0, "MEDIUM": 0, "HIGH": 0, "URGENT": 0}
    assert PriorityTaskQueue()
    assert repr(PriorityTaskQueue()) == "<PriorityTaskQueue: 0 waiting>"
