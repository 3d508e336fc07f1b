"""Any `concurrent.futures.Executor` as a runner: process pools, Dask, Ray, ipyparallel, MPI.

========================  ======================  =====================  ===================================
What a task may ask for   threads                 processes              a foreign Executor
========================  ======================  =====================  ===================================
cancelled while queued    never runs              never runs             never runs here; `Future.cancel`
                                                                         where it was handed on
cancelled while it runs   cannot: its end is      killed                 `Future.cancel` if the engine
                          ignored                                        honours it, else as threads
time-out                  slot is replaced, the   killed                 the slot is given back here, the
                          thread named                                   engine goes on
resources, group          counted by the plane    counted by the plane   counted by the plane; the engine's
                                                                         own go to `submit=`
stdout, stderr            kept with the attempt   kept                   kept where agentflow is installed
processor time            of the thread           of the process         of the thread
unpicklable values        allowed                 `Unpicklable`          as the engine needs
========================  ======================  =====================  ===================================

Law: at most `slots` calls are with the executor at a time; the rest wait here, where they can be taken
back for certain.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, Executor, Future
from functools import partial
from typing import Any

from agentflow.errors import Closed, PeerDown, TaskCancelled, Unpicklable
from agentflow.executors import streams
from agentflow.executors.base import Call, Clock, Done, Outcome
from agentflow.executors.engines import engine_of
from agentflow.executors.remote import Receipt, Shipment
from agentflow.executors.threads import check_slots

log = logging.getLogger("agentflow.executors")


class ExecutorRunner:
    """Runs calls on an executor.

    Parameters
    ----------
    name : str
        What messages call it.
    executor : concurrent.futures.Executor
        Anything with `submit` that returns a future with `add_done_callback`.
    slots : int
        How many calls it is given at a time.
    owns : bool
        Whether `close` shuts the executor down.
    submit : dict, optional
        Keywords for each `executor.submit`, for engines that take some (`resources`, `workers`, ...).
    clock : callable
        Gives the seconds that outcomes are stamped with.
    capture : int
        How many characters of a task's output are kept.

    Examples
    --------
    >>> from concurrent.futures import ThreadPoolExecutor
    >>> from queue import Queue
    >>> ends = Queue()
    >>> runner = ExecutorRunner("pool", ThreadPoolExecutor(2), slots=2, owns=True)
    >>> runner.start(1, lambda: 2 + 2, lambda key, outcome: ends.put(outcome.value))
    >>> ends.get()
    4
    >>> runner.close(1.0)
    []
    """

    def __init__(
        self,
        name: str,
        executor: Executor,
        slots: int,
        *,
        owns: bool = False,
        submit: dict[str, Any] | None = None,
        clock: Clock = time.monotonic,
        capture: int = streams.LIMIT,
    ) -> None:
        check_slots(name, slots)
        self.name = name
        self.slots = slots
        self._executor = executor
        self._owns = owns
        self._engine = engine_of(executor)
        self._keywords = {**self._engine.submit, **(submit or {})}
        self._clock = clock
        self._capture = capture
        self._lock = threading.Lock()
        self._ended = threading.Condition(self._lock)
        self._queued: dict[int, tuple[Call, Done]] = {}
        self._futures: dict[int, Future[Receipt] | None] = {}
        self._leaked: set[int] = set()
        self._is_handing_on = False
        self._is_closed = False
        self._is_silent = False

    def __repr__(self) -> str:
        return (
            f"<ExecutorRunner {self.name} on {type(self._executor).__name__}: {len(self._futures)} running>"
        )

    def start(self, key: int, call: Call, done: Done) -> None:
        """Hand the call on when a slot is free; `done` is called from the executor's thread."""
        with self._lock:
            if self._is_closed:
                raise Closed(f"{self.name} is closed")
            self._queued[key] = (call, done)
        self._hand_on()

    def abandon(self, key: int) -> bool:
        """Take back work that the executor has not begun, as far as it says so."""
        with self._lock:
            if self._queued.pop(key, None) is not None:
                return True
            future = self._futures.get(key)
        # Executors of other engines answer True for work that runs and is then stopped; only the standard
        # ones promise that a cancelled future never ran. So `done` reports it instead.
        if future is not None:
            future.cancel()
        return False

    def replace(self, key: int) -> str | None:
        """Give the slot to other work; the engine is asked to cancel, but may go on."""
        with self._lock:
            if key not in self._futures or key in self._leaked:
                return None
            self._leaked.add(key)
            future = self._futures[key]
        is_stopped = future is not None and future.cancel()
        self._hand_on()
        return None if is_stopped else f"{self.name}, call {key}"

    def close(self, timeout_secs: float = 1.0) -> list[str]:
        """Forget what waits here, wait for what runs, name what still does."""
        with self._lock:
            self._is_closed = True
            self._queued.clear()
            futures = [future for future in self._futures.values() if future is not None]
        for future in futures:
            future.cancel()
        with self._ended:
            self._ended.wait_for(lambda: not self._futures, timeout_secs)
            left = list(self._futures)
            self._is_silent = True
        if self._owns:
            self._executor.shutdown(wait=not left)
        return [f"{self.name}, call {key}" for key in left]

    # --- how --------------------------------------------------------------------------------------------

    def _hand_on(self) -> None:
        """Give the executor what it has slots for.

        One caller at a time, and without recursion: work may end, and call this, while it is handed on.
        """
        with self._lock:
            if self._is_handing_on:
                return
            self._is_handing_on = True
        while True:
            with self._lock:
                if not self._queued or len(self._futures) - len(self._leaked) >= self.slots:
                    self._is_handing_on = False
                    return
                key = next(iter(self._queued))
                call, done = self._queued.pop(key)
                self._futures[key] = None
            try:
                shipment = Shipment(call, self._capture)
                if self._engine.always_pickles:
                    shipment = shipment.packed()
                future = self._executor.submit(shipment, **self._keywords)
            except BaseException as error:
                self._finish(key, done, self._failed(error))
                continue
            with self._lock:
                self._futures[key] = future
            future.add_done_callback(partial(self._ended_with, key, done))

    def _ended_with(self, key: int, done: Done, future: Future[Receipt]) -> None:
        try:
            outcome = future.result().outcome(self._clock)
        except BaseException as error:
            outcome = self._failed(error)
        self._finish(key, done, outcome)
        self._hand_on()

    def _failed(self, error: BaseException) -> Outcome:
        """Say in our words what the executor did not even bring to a receipt."""
        unfit = next((each for each in _chain(error) if isinstance(each, Unpicklable)), None)
        if unfit is not None:
            error = unfit
        elif type(error).__name__ in self._engine.cancellations:
            error = TaskCancelled(f"{self.name} cancelled the call")
        elif isinstance(error, BrokenExecutor) or type(error).__name__ in self._engine.deaths:
            down = PeerDown(f"the process of {self.name} that ran this died: {error}", node=self.name)
            down.__cause__, error = error, down
        now = self._clock()
        return Outcome(None, error, now, now)

    def _finish(self, key: int, done: Done, outcome: Outcome) -> None:
        try:
            if not self._is_silent:
                done(key, outcome)
        except BaseException:
            log.exception("%s could not report the end of %s", self.name, key)
        with self._ended:
            self._futures.pop(key, None)
            self._leaked.discard(key)
            self._ended.notify_all()


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
