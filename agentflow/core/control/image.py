"""The whole control plane as bytes: what a snapshot of the log's state is.

Law: a plane made from an image is equal to the one it was taken of, and goes on like it.
"""

from __future__ import annotations

from typing import Any

import msgspec

from agentflow.core.control.gate import HeldUp
from agentflow.core.control.ledger import Live
from agentflow.core.control.placement import WorkerState
from agentflow.core.control.plane import Plane
from agentflow.core.control.runs import RunState, State
from agentflow.core.control.sessions import Session
from agentflow.ids import AttemptId, NodeId, RunId

VERSION = 2


class PlaneImage(msgspec.Struct, frozen=True):
    """A plane as plain data; runs and workers are named where the plane refers to them."""

    version: int
    at: float
    runs: list[RunState]
    keys: dict[str, Any]
    workers: list[WorkerState]
    live: list[tuple[AttemptId, RunId, int, int, NodeId, float, int]]
    queue: list[tuple[float, int, RunId, int, int]]
    entered: int
    sessions: dict[NodeId, Session]
    refused_completions: int
    run_of_key: dict[str, RunId]
    made: tuple[int, int, int]
    delayed: list[tuple[float, int, RunId, int]]
    timeouts: list[tuple[float, AttemptId]]
    held_up: list[tuple[tuple[str, ...], HeldUp]] = []


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(PlaneImage)


def save(plane: Plane) -> bytes:
    """Give the plane as bytes."""
    waiting = sorted(
        (entry.at, entry.order, entry.run.id, entry.task, retries)
        for entry, _, retries in plane.queue.waiting()
    )
    return _encoder.encode(
        PlaneImage(
            version=VERSION,
            at=plane.at,
            runs=list(plane.runs.values()),
            keys=plane.keys,
            workers=list(plane.workers.values()),
            live=[
                (attempt, each.run.id, each.task, each.number, each.worker.id, each.assigned, each.order)
                for attempt, each in plane.live.items()
            ],
            queue=waiting,
            entered=plane.queue.entered,
            sessions=plane.sessions.of,
            refused_completions=plane.refused_completions,
            run_of_key=plane.run_of_key,
            made=plane.made,
            # Heaps may hold what is no longer due in any order they like; images are alike when planes are.
            delayed=sorted(
                (at, order, run.id, task)
                for at, order, run, task in plane.delayed
                if run.state[task] == State.RETRYING
            ),
            timeouts=sorted(each for each in plane.timeouts if each[1] in plane.live),
            held_up=list(plane.gate.held_up.items()),
        )
    )


def load(data: bytes) -> Plane:
    """Make the plane that an image was taken of.

    Examples
    --------
    >>> load(save(Plane())).at
    0.0
    """
    image = _decoder.decode(data)
    assert image.version == VERSION, f"an image of version {image.version}; this is version {VERSION}"
    plane = Plane()
    plane.at = image.at
    plane.runs = {run.id: run for run in image.runs}
    plane.keys = image.keys
    plane.workers = {worker.id: worker for worker in image.workers}
    plane.live = {
        attempt: Live(plane.runs[run], task, number, plane.workers[worker], assigned, order)
        for attempt, run, task, number, worker, assigned, order in image.live
    }
    for at, order, run, task, retries in sorted(image.queue, key=lambda entry: entry[1]):
        plane.queue.restore(plane.runs[run], task, at, order, retries)
    plane.queue.entered = image.entered
    plane.sessions.of = image.sessions
    plane.refused_completions = image.refused_completions
    plane.run_of_key = image.run_of_key
    plane.made = image.made
    plane.delayed = [(at, order, plane.runs[run], task) for at, order, run, task in image.delayed]
    plane.timeouts = image.timeouts
    plane.gate.held_up = dict(image.held_up)
    for attempt, live in plane.live.items():
        plane.gate.enter(live.run.option(live.task).locks, attempt)
    return plane
