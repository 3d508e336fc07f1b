"""What we must know of other people's engines to be a polite and correct guest.

Law: a task runs as often as it was asked for. Dask takes equal calls for one (`pure=True`) unless told
otherwise; for a function with effects that would be wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Executor, Future
from typing import Any

import msgspec

from agentflow.errors import InvalidConfig, MissingExtra


class Engine(msgspec.Struct, frozen=True):
    """The habits of one engine.

    Parameters
    ----------
    submit : mapping
        Keywords that each of its `submit` calls needs.
    always_pickles : bool
        Whether calls travel even to a worker in this process.
    deaths : frozenset of str
        Names of its exceptions that mean: the process died, not the task failed.
    cancellations : frozenset of str
        Names of its exceptions that mean: it was cancelled.
    """

    submit: Mapping[str, Any] = {}
    always_pickles: bool = False
    deaths: frozenset[str] = frozenset()
    cancellations: frozenset[str] = frozenset({"CancelledError"})


_ENGINES = {
    "distributed": Engine({"pure": False}, True, frozenset({"KilledWorker"})),
    "ray": Engine(
        always_pickles=True,
        deaths=frozenset({"WorkerCrashedError", "OutOfMemoryError", "NodeDiedError"}),
        cancellations=frozenset({"CancelledError", "TaskCancelledError"}),
    ),
}
_UNKNOWN = Engine()


def engine_of(executor: Executor) -> Engine:
    """Return what is known of the engine behind an executor.

    Examples
    --------
    >>> from concurrent.futures import ThreadPoolExecutor
    >>> engine_of(ThreadPoolExecutor(1)).always_pickles
    False
    """
    if isinstance(executor, RayExecutor):
        return _ENGINES["ray"]
    return _ENGINES.get(type(executor).__module__.partition(".")[0], _UNKNOWN)


class RayExecutor(Executor):
    """An executor over Ray tasks. Ray is asked for as it is: `ray.init` is the caller's to call.

    Parameters
    ----------
    **options
        What `ray.remote(...).options` takes: `num_cpus`, `num_gpus`, `resources`, `max_retries`, ...
        Ray's own retries are off unless asked for: attempts are counted and fenced by the control plane.

    Raises
    ------
    MissingExtra
        Ray is not installed.
    """

    def __init__(self, **options: Any) -> None:
        try:
            import ray
        except ImportError as error:
            raise MissingExtra.of("ray", "ray", "RayExecutor") from error
        if not ray.is_initialized():
            raise InvalidConfig("Ray is not running; call ray.init() first", field="executor")
        self._ray: Any = ray
        self._remote = ray.remote(_call).options(**{"max_retries": 0, **options})
        self._is_down = False

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run `fn(*args, **kwargs)` as a Ray task."""
        if self._is_down:
            raise RuntimeError("cannot schedule new futures after shutdown")
        return _RayFuture(self._ray, self._remote.remote(fn, args, kwargs))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more. Ray itself goes on."""
        self._is_down = True


class _RayFuture(Future[Any]):
    """A Ray reference as a future; cancelling it asks Ray to interrupt the task."""

    def __init__(self, ray: Any, reference: Any) -> None:
        super().__init__()
        self._ray = ray
        self._reference = reference
        reference.future().add_done_callback(self._take_over)

    def cancel(self) -> bool:
        is_cancelled = super().cancel()
        if is_cancelled:
            self._ray.cancel(self._reference)
        return is_cancelled

    def _take_over(self, inner: Future[Any]) -> None:
        if not self.set_running_or_notify_cancel():
            return
        error = inner.exception()
        if error is not None:
            self.set_exception(error)
        else:
            self.set_result(inner.result())


def _call(fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return fn(*args, **kwargs)
