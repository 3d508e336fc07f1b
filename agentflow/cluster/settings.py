"""What a person may ask of a cluster, checked before anything starts."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any

import msgspec

from agentflow.cluster.deployment import WorkerSpec
from agentflow.core.control.commands import Batch, ClientCommand, ClientOp, RegisterWorker, decode, encode
from agentflow.core.nodes.messages import sendable
from agentflow.errors import InvalidConfig
from agentflow.executors.choose import ENGINES


class EvenMasters(UserWarning):
    """An even number of masters: it works, and tolerates no more failures than one master less."""


def checked_masters(masters: Any, stacklevel: int = 3) -> int:
    """Refuse a number of masters that cannot work; warn of one that is even.

    Examples
    --------
    >>> checked_masters(3)
    3
    """
    if not isinstance(masters, int) or isinstance(masters, bool):
        raise InvalidConfig(f"masters={masters!r}: give a whole number, 3 or 5 as a rule", field="masters")
    if masters < 1:
        raise InvalidConfig(
            f"masters={masters}: a cluster needs at least one master to decide anything; 3 survive the loss of one",
            field="masters",
        )
    if masters % 2 == 0:
        warnings.warn(
            f"masters={masters} is even: a majority is {masters // 2 + 1}, so it survives the loss of "
            f"{(masters - 1) // 2}, as {masters - 1} masters do with less traffic. Take an odd number",
            EvenMasters,
            stacklevel=stacklevel,
        )
    return masters


def checked_seed(seed: Any) -> int:
    """Refuse what is no seed."""
    if not isinstance(seed, int) or isinstance(seed, bool):
        raise InvalidConfig(f"seed={seed!r}: a seed is a whole number", field="seed")
    return seed


def checked_bytes(field: str, value: Any) -> int | None:
    """Refuse what is no number of bytes; None is no limit."""
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
        raise InvalidConfig(f"{field}={value!r}: give a number of bytes, or None for no limit", field=field)
    return value


def checked_speed(speed: Any) -> float:
    """Refuse what time cannot pass at."""
    if isinstance(speed, bool) or not isinstance(speed, int | float) or not 0.0 <= speed < math.inf:
        raise InvalidConfig(
            f"speed={speed!r}: cluster seconds in one of the wall's, from 0 up", field="speed"
        )
    return float(speed)


def checked_timeout(timeout: Any) -> float | None:
    """Refuse what is no time to wait for; None is as long as it takes."""
    if timeout is None:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not timeout >= 0:
        raise InvalidConfig(f"timeout={timeout!r} is not a number of seconds", field="timeout")
    return float(timeout)


def check_readable(command: ClientCommand | RegisterWorker) -> None:
    """Refuse, before anything is sent, what no master could keep in its log and read again."""
    op = command if isinstance(command, RegisterWorker) else ClientOp("client", 1, 1, command)
    try:
        decode(encode(Batch(0.0, (op,))))
    except (msgspec.MsgspecError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InvalidConfig(
            f"{type(command).__name__} cannot be kept in a log ({sendable(str(error))}); names are text, and "
            "settings are text, numbers and truth values",
            field="work",
        ) from None


def checked_type(field: str, value: Any, kind: type, example: str) -> None:
    """Refuse a setting that is something else."""
    if value is not None and not isinstance(value, kind):
        raise InvalidConfig(f"{field}={value!r} is no {kind.__name__}; try {example}", field=field)


def worker_specs(workers: Any, cpu_cores: float = 4.0, *, engines: bool = False) -> list[WorkerSpec]:
    """Turn `workers=4` or `workers={"default": 4, "gpu": 1}` into one specification a worker.

    Where there may be `engines`, a group may name an executor of its own: it is one worker, of as many tasks at
    once as the executor says it has places.

    Examples
    --------
    >>> [spec.group for spec in worker_specs({"default": 1, "gpu": 2})]
    ['default', 'gpu', 'gpu']
    """
    groups = workers if isinstance(workers, Mapping) else {"default": workers}
    specs = []
    for group, count in groups.items():
        if engines and _is_engine(count):
            specs.append(checked_spec(WorkerSpec(group, _places(count), cpu_cores, executor=count)))
            continue
        if not isinstance(count, int) or isinstance(count, bool):
            engine = ", or an executor for a group" if engines else ""
            raise InvalidConfig(
                f"workers={workers!r}: give a number, or a number a group{engine}", field="workers"
            )
        if count < 0:
            raise InvalidConfig(f"workers={workers!r}: there cannot be fewer than none", field="workers")
        specs += [checked_spec(WorkerSpec(group=group, cpu_cores=cpu_cores))] * count
    return specs


def _is_engine(value: Any) -> bool:
    return value in ENGINES if isinstance(value, str) else not isinstance(value, int | float | None)


def _places(executor: Any) -> int:
    """How many calls an executor runs at once, as far as it says."""
    places = getattr(executor, "_max_workers", None)
    return places if isinstance(places, int) and places > 0 else 4


def checked_spec(spec: WorkerSpec) -> WorkerSpec:
    """Refuse a worker that could not register."""
    try:
        registration = spec.registration("worker", 0)
    except (TypeError, ValueError) as error:
        raise InvalidConfig(f"{spec} cannot register: {error}", field="attributes") from None
    check_readable(registration)
    return spec
