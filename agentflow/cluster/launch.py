"""How an order becomes work: on a worker's threads for real, or at its time in a simulation.

Law: every order that was launched comes back as one completion, whatever fails on the way; and a worker's
life ends with its runner, so that what a dead worker's threads still do is kept by nobody.
"""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from agentflow.cluster.calls import GivenBack, InputsLost, Workbench
from agentflow.cluster.current import CurrentTask, InTask, enter
from agentflow.cluster.locking import NO_LOCKS, ClusterLocks, LockedWork
from agentflow.core.control.commands import Completion
from agentflow.core.nodes.messages import Order
from agentflow.errors import InvalidConfig, LockHeld
from agentflow.executors import InlineRunner, Runner, ThreadRunner, perform
from agentflow.executors.base import Call, Outcome
from agentflow.ids import AttemptId, NodeId, RunId
from agentflow.runtime.virtual import VirtualDriver

if TYPE_CHECKING:
    from agentflow.locks import BlockingLock
NUDGE_SECS = 0.002
"""How often runners are looked after while work waits there."""

PATIENCE_NUDGES = 10
"""What was taken ahead is given back when nothing of it was begun in this many looks."""

_log = logging.getLogger("agentflow")


class Life:
    """What runs one life of a worker.

    Parameters
    ----------
    runner : Runner
        Runs the tasks' functions.
    owned : bool
        Whether the runner ends with the life; one that the user made does not.
    bench : Workbench
        Turns orders into calls.
    worker : str
        Whose life.
    locks : ClusterLocks, optional
        Where the locks are that tasks declare.
    """

    def __init__(
        self, runner: Runner, owned: bool, bench: Workbench, *, worker: NodeId, locks: ClusterLocks | None
    ) -> None:
        self.runner = runner
        self.owned = owned
        self.orders: dict[AttemptId, Order] = {}
        self.locked: dict[AttemptId, LockedWork] = {}
        self._worker = worker
        self._locks = locks
        self._unwanted: set[AttemptId] = set()
        self._last: dict[str, Order] = {}
        self._bench = bench
        # A runner that may send calls elsewhere gets them whole, with every argument in its place. What is
        # no call of the user's is then done here, by a thread: it concerns values that are here.
        self._is_here = isinstance(runner, ThreadRunner | InlineRunner)
        self._helper: Runner | None = None
        self._first: int | None = None
        self._waits = 0

    def nudge(self) -> bool:
        """Help work along that waits beside threads at rest, or behind tasks that take long; say if any waits.

        What was taken ahead in the belief that tasks are brief, and has waited for a while, is given back:
        another worker may be free.
        """
        runner = self.runner
        if not isinstance(runner, ThreadRunner):
            return False
        first = runner.nudge()
        self._waits = self._waits + 1 if first is not None and first == self._first else 0
        self._first = first
        if self._waits >= PATIENCE_NUDGES:
            self._waits, now = 0, self._bench.clock()
            for key, done in runner.take_back():
                done(key, Outcome(None, GivenBack(), now, now))
        return first is not None

    def start(self, order: Order, done: Callable[[Completion | LockHeld], None]) -> None:
        """Start an order; its end is told to `done`."""
        attempt, bench, orders = order.attempt, self._bench, self.orders
        orders[attempt] = order
        try:
            if order.locks:
                self._start_locked(order, functools.partial(self._finish, order, done), done)
            else:
                finish = functools.partial(self._finish, order, done)
                self._runner_of(order).start(attempt, self._call_of(order, {}), finish)
        except InputsLost as lost:
            orders.pop(attempt, None)
            now = bench.clock()
            done(bench.complete(order, Outcome(None, lost, now, now)))
        except BaseException:
            orders.pop(attempt, None)
            raise

    def _call_of(self, order: Order, held: Mapping[str, BlockingLock]) -> Call:
        if self._is_here or not self._bench.is_users(order):
            call: Call = functools.partial(self._perform, order)
        else:
            call = self._bench.call_of(order)
        # Wrapped only where it must be: what cannot travel is easier to name in the user's call itself.
        return InTask(CurrentTask(order, self._worker, held), call) if held else call

    def _finish(
        self, order: Order, done: Callable[[Completion | LockHeld], None], key: int, outcome: Outcome
    ) -> None:
        keep = True
        if self._unwanted and key in self._unwanted:
            keep = False
            self._unwanted.discard(key)
        self.orders.pop(key, None)
        done(self._bench.complete(order, outcome, keep=keep))

    def _perform(self, order: Order) -> Any:
        self._last[threading.current_thread().name] = order
        if not order.locks:
            enter(order, self._worker)
        return self._bench.perform(order)

    def _start_locked(
        self,
        order: Order,
        finish: Callable[[int, Outcome], None],
        done: Callable[[Completion | LockHeld], None],
    ) -> None:
        """Take the order's locks first: that may wait, so it is done beside the runner's slots."""
        attempt = order.attempt
        if self._locks is None:
            raise InvalidConfig(f"{order.id!r} declares locks, and {self._worker} knows of no place for them")

        def begin(held: Mapping[str, BlockingLock], ended: Callable[[Outcome], None]) -> None:
            call = self._call_of(order, held)
            self._runner_of(order).start(attempt, call, lambda key, outcome: ended(outcome))

        def stop() -> None:
            left = self._runner_of(order).replace(attempt)
            if left is not None:
                fact = "%r of %s lost its lock and goes on in %s, which cannot be stopped from outside"
                _log.warning(
                    fact, order.id, order.run, left, extra={"node": self._worker, "attempt": attempt}
                )

        def tell(outcome: Outcome | LockHeld) -> None:
            if isinstance(outcome, Outcome):
                finish(attempt, outcome)
            else:
                self.orders.pop(attempt, None)
                done(outcome)

        def gone() -> None:
            self.locked.pop(attempt, None)

        work = LockedWork(
            self._locks,
            self._worker,
            order,
            begin=begin,
            stop=stop,
            done=tell,
            gone=gone,
            clock=self._bench.clock,
        )
        self.locked[attempt] = work
        work.start()

    def _take_back(self, attempt: AttemptId) -> bool:
        """Whether an attempt had not begun, and now will not."""
        runner, locked = self._runner_of(self.orders[attempt]), self.locked.get(attempt)
        if not ((locked is not None and locked.take_back()) or runner.abandon(attempt)):
            return False
        self.orders.pop(attempt, None)
        if locked is not None:
            locked.withdraw()
        return True

    def _runner_of(self, order: Order) -> Runner:
        if self._is_here or self._bench.is_users(order):
            return self.runner
        if self._helper is None:
            name = f"{getattr(self.runner, 'name', 'runner')}/here"
            self._helper = ThreadRunner(name, 1, clock=self._bench.clock, capture=0)
        return self._helper

    def abandon(self, attempt: AttemptId) -> str | None:
        """Want an attempt no more; name what goes on with it all the same.

        The plane gives its slot away at once, so a thread that cannot be stopped gets a substitute.
        """
        runner = self._runner_of(self.orders[attempt])
        if self._take_back(attempt):
            return None
        self._unwanted.add(attempt)
        return runner.replace(attempt)

    def forsake(self) -> None:
        """The worker has died: its locks are neither renewed nor given back."""
        for work in list(self.locked.values()):
            work.forsake()

    def end(self, timeout_secs: float) -> list[str]:
        """Take back what has not begun, end the runner, and name the work that still runs."""
        for attempt in list(self.orders):
            self._unwanted.add(attempt)
            self._take_back(attempt)
        left = self.runner.close(timeout_secs) if self.owned else []
        if self._helper is not None:
            left += self._helper.close(timeout_secs)
        waiting = list(self.locked.values())
        self.forsake()  # what still runs keeps its locks until they run out
        for work in waiting:
            work.join(timeout_secs + 1.0)
        return [self._described(name) for name in left]

    def _described(self, name: str) -> str:
        order = self._last.get(name)
        return name if order is None else f"{order.id!r} of {order.run} (in thread {name})"


class RunnerLauncher:
    """Gives each life of a worker a runner of its own.

    Parameters
    ----------
    bench : Workbench
        Turns orders into calls.
    make : callable
        `make(worker id)` gives a runner, and whether it ends with that life of the worker.
    locks : ClusterLocks, optional
        Where the locks are that tasks declare.
    later : callable, optional
        `later(seconds, fn)` calls on the loop; without it nobody is nudged.
    """

    def __init__(
        self,
        bench: Workbench,
        make: Callable[[NodeId], tuple[Runner, bool]],
        locks: ClusterLocks | None = None,
        later: Callable[[float, Callable[[], None]], None] | None = None,
    ) -> None:
        self._later = later
        self._is_nudging = False
        self._bench = bench
        self._make = make
        self._locks = locks
        self._lives: dict[NodeId, tuple[int, Life]] = {}
        self._retired: list[tuple[threading.Thread, Life]] = []
        self._overdue: dict[AttemptId, tuple[NodeId, str]] = {}
        self.is_closing = False
        """Set before everything stops: what is abandoned from then on needs no substitute."""

    @property
    def overdue(self) -> list[str]:
        """Attempts that were given up and still run: a thread cannot be stopped from outside."""
        return [said for _, said in list(self._overdue.values())]

    def overdue_of(self, run: RunId) -> list[str]:
        """Tasks of one run that were given up and still run."""
        return [said for _, said in list(self._overdue.values()) if f" of {run} (" in said]

    @property
    def asking(self) -> dict[AttemptId, tuple[str, ...]]:
        """Attempts that have not begun because their worker asks for their locks, with these."""
        lives = [life for _, life in list(self._lives.values())]
        works = [each for life in lives for each in list(life.locked.values()) if not each.has_begun]
        return {each.order.attempt: each.order.locks for each in works}

    def launch(
        self,
        node_id: NodeId,
        incarnation: int,
        attempt: AttemptId,
        work: Order,
        done: Callable[[Completion | LockHeld], None],
    ) -> None:
        """Start an order on its worker's runner."""
        self._life(node_id, incarnation).start(work, functools.partial(self._ended, attempt, done))
        if self._later is not None and not self._is_nudging:
            self._is_nudging = True
            self._later(NUDGE_SECS, self._nudge)

    def _ended(
        self,
        attempt: AttemptId,
        done: Callable[[Completion | LockHeld], None],
        completion: Completion | LockHeld,
    ) -> None:
        if self._overdue:
            self._overdue.pop(attempt, None)
        done(completion)

    def _nudge(self) -> None:
        self._is_nudging = False
        if self.is_closing or self._later is None:
            return
        waiting = [life for _, life in self._lives.values() if life.nudge()]
        if waiting:
            self._is_nudging = True
            self._later(NUDGE_SECS, self._nudge)

    def abandon(self, node_id: NodeId, incarnation: int, attempt: AttemptId) -> None:
        """Take an attempt out of its runner's queue, or want its result no more."""
        born, life = self._lives.get(node_id, (0, None))
        if self.is_closing or life is None or born != incarnation:
            return
        order = life.orders.get(attempt)
        if order is None:
            return
        # Noted first: the work may end, and take the note away, while this goes on.
        self._overdue[attempt] = (node_id, f"{order.id!r} of {order.run} (attempt {attempt} on {node_id})")
        left = life.abandon(attempt)
        if left is None:
            self._overdue.pop(attempt, None)
        else:
            fact = "%r of %s was given up and goes on in %s; another thread takes its place"
            _log.warning(fact, order.id, order.run, left, extra={"node": node_id, "attempt": attempt})

    def _life(self, node_id: NodeId, incarnation: int) -> Life:
        born, life = self._lives.get(node_id, (0, None))
        if life is None or born != incarnation:
            self.retire(node_id)
            life = Life(*self._make(node_id), self._bench, worker=node_id, locks=self._locks)
            self._lives[node_id] = (incarnation, life)
        return life

    def retire(self, node_id: NodeId) -> None:
        """End the life of a worker that is gone, without waiting for what it still does."""
        _, life = self._lives.pop(node_id, (0, None))
        if life is None:
            return
        for attempt in [each for each, (node, _) in list(self._overdue.items()) if node == node_id]:
            self._overdue.pop(attempt, None)
        life.forsake()
        # Ending processes takes a while, and the caller may be the loop.
        thread = threading.Thread(
            target=life.end, args=(0.0,), name=f"agentflow-retire-{node_id}", daemon=True
        )
        thread.start()
        self._retired.append((thread, life))

    def close(self, timeout_secs: float) -> list[str]:
        """End every runner; give the names of work that still runs."""
        for thread, _ in self._retired:
            thread.join(timeout_secs + 5.0)
        lives = [*(life for _, life in self._retired), *(life for _, life in self._lives.values())]
        self._lives, self._retired = {}, []
        left: list[str] = []

        def end(life: Life) -> None:
            left.extend(life.end(timeout_secs))

        # Side by side, so that all of them together get the time once.
        threads = [threading.Thread(target=end, args=(life,), daemon=True) for life in lives[1:]]
        for thread, life in zip(threads, lives[1:], strict=True):
            try:
                thread.start()
            except RuntimeError:  # the interpreter is ending and takes no new threads
                left += life.end(0.1)
        for life in lives[:1]:
            end(life)
        for thread in threads:
            if thread.ident is not None:
                thread.join()
        return left


class VirtualBench:
    """Performs orders for a virtual driver: at the end of their estimated time, on its own thread.

    Parameters
    ----------
    bench : Workbench
        Turns orders into calls.
    driver : VirtualDriver
        Moves the time.
    """

    def __init__(self, bench: Workbench, driver: VirtualDriver) -> None:
        self._bench = bench
        self._driver = driver
        driver.perform = self.perform

    def perform(self, node_id: NodeId, attempt: AttemptId, order: Order) -> Completion:
        """Do what an order says, now that its time is over."""
        # How long it really took is nothing that a seed fixes, so only what came of it is kept.
        done = perform(functools.partial(self._perform, order), clock=lambda: self._driver.now)
        now = self._driver.now
        outcome = Outcome(value=done.value, error=done.error, started=now - order.duration, finished=now)
        return self._bench.complete(order, outcome)

    def _perform(self, order: Order) -> Any:
        if order.locks:  # of a workflow that a task returned; what is submitted is refused before
            raise InvalidConfig(f"{order.id!r} declares locks, and {NO_LOCKS}", field="locks")
        return self._bench.perform(order)
