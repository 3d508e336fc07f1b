"""The cluster panel: everything of one cluster at one instant, and the hands that break it.

Law: a control does what one line of Python does, and the panel shows that line; nothing can be done here that
could not be typed.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Final

import msgspec

from agentflow.cluster.status import MasterStatus, RunBrief, WorkerStatus
from agentflow.core.control.runs import SETTLED
from agentflow.errors import InvalidConfig
from agentflow.notebook.live.scene import Deed, Frame, Scene, number, short, word, words

REIGNS: Final = 8
POINTS: Final = 48
WORKERS: Final = 60
RUNS: Final = 3
CUTS: Final = 60
RATE_SECS: Final = 2.0
STALL_SECS: Final = 0.3
"""A loop that stood still for less has harmed nobody."""


class ClusterScene(Scene):
    """What the panel of a live cluster shows."""

    module: ClassVar[str] = "cluster.js"
    label: ClassVar[str] = "cluster"

    def __init__(self, subject: Any) -> None:
        super().__init__(subject)
        self._cut_since: dict[tuple[str, str], float] = {}
        self._done: deque[tuple[float, int]] = deque()

    def snapshot(self, frame: Frame) -> dict[str, Any]:
        """One instant of the cluster."""
        cluster, parts, tail = frame.home, frame.parts, frame.tail
        now = parts["now"]
        masters: Sequence[MasterStatus] = parts["masters"]
        alerts = list(parts["alerts"])
        if tail.stall is not None and tail.stall[1] >= STALL_SECS and now - tail.stall[0] < 5.0:
            alerts.append(
                f"the loop stood still for {tail.stall[1]:.2f} s: something kept the interpreter to itself"
            )
        network = cluster.network
        return {
            "now": round(now, 4),
            "title": short(getattr(cluster, "name", None) or type(cluster).__name__.lower()),
            "closed": cluster.closed,
            "speed": getattr(cluster, "speed", 1.0),
            "live": not cluster.moves_time,
            "leader": parts["leader"],
            "masters": [master_row(each) for each in masters],
            "workers": [worker_row(each) for each in parts["workers"][:WORKERS]],
            "more_workers": max(0, len(parts["workers"]) - WORKERS),
            "cuts": self._cuts(parts["cuts"], now),
            "reigns": [
                [each.term, each.leader, round(each.started, 3), _round(each.ended)]
                for each in tail.reigns[-REIGNS:]
            ],
            "won": len(tail.reigns),
            "lost": sum(1 for stand in tail.stands if stand.outcome == "lost"),
            "queue": [
                [round(point.time, 2), point.low, point.medium, point.high, point.urgent]
                for point in thinned(tail.queue)
            ],
            "waiting": [getattr(parts["waiting"], name) for name in ("low", "medium", "high", "urgent")],
            "oldest": _round(parts["waiting"].oldest_s),
            "rate": self._rate(parts["runs"], now),
            "runs": [run_row(each) for each in parts["runs"][-RUNS:][::-1]],
            "more_runs": max(0, len(parts["runs"]) - RUNS),
            "loss": network.loss,
            "latency": list(network.latency_ms),
            "alerts": [alert.replace("cluster.", f"{self.known_as}.")[:300] for alert in alerts[:5]],
            "flights": flights_of(frame),
        }

    def _cuts(self, cuts: Sequence[tuple[str, str]], now: float) -> list[list[Any]]:
        self._cut_since = {pair: self._cut_since.get(pair, now) for pair in cuts}
        return [[*pair, round(now - since, 1)] for pair, since in list(self._cut_since.items())[:CUTS]]

    def _rate(self, runs: Sequence[RunBrief], now: float) -> float:
        """Tasks a second that settled, over the last moments."""
        total = sum(run.counts[state] for run in runs for state in SETTLED)
        if self._done and (total < self._done[-1][1] or now < self._done[-1][0]):
            self._done.clear()
        self._done.append((now, total))
        while now - self._done[0][0] > RATE_SECS:
            self._done.popleft()
        spent = now - self._done[0][0]
        return round((total - self._done[0][1]) / spent, 1) if spent > 0 else 0.0

    # --- commands -------------------------------------------------------------------------------------------

    def deed(self, name: str, given: Mapping[str, Any]) -> Deed:
        """What a control stands for."""
        make = _DEEDS.get(name)
        if make is None:
            raise InvalidConfig(f"a cluster knows no {name!r}", field="do")
        line, call = make(self.home, given)
        return Deed(f"{self.known_as}.{line}", call)


Made = tuple[str, Callable[[], Any]]


def _on_node(method: str) -> Callable[[Any, Mapping[str, Any]], Made]:
    def make(cluster: Any, given: Mapping[str, Any]) -> Made:
        node = word(given, "node")
        return f"{method}({node!r})", lambda: getattr(cluster, method)(node)

    return make


def _partition(cluster: Any, given: Mapping[str, Any]) -> Made:
    side = set(words(given, "side"))
    rest = [node for node in cluster.masters if node not in side]
    mine = [node for node in cluster.masters if node in side]
    if not mine or not rest:
        raise InvalidConfig("a partition has nodes on both sides", field="side")
    return (
        f"partition({{{', '.join(map(repr, mine))}}}, {{{', '.join(map(repr, rest))}}})",
        lambda: cluster.partition(mine, rest),
    )


def _plain(method: str) -> Callable[[Any, Mapping[str, Any]], Made]:
    return lambda cluster, given: (f"{method}()", getattr(cluster, method))


def _setting(holder: str, name: str, least: float, most: float) -> Callable[[Any, Mapping[str, Any]], Made]:
    def make(cluster: Any, given: Mapping[str, Any]) -> Made:
        value = number(given, "value", least, most)
        target = cluster.network if holder else cluster
        return f"{holder}{name} = {value!r}", lambda: setattr(target, name, value)

    return make


def _latency(cluster: Any, given: Mapping[str, Any]) -> Made:
    most = number(given, "value", 0, 60_000)
    low = most / 2
    return (
        f"network.latency_ms = ({low:g}, {most:g})",
        lambda: setattr(cluster.network, "latency_ms", (low, most)),
    )


_DEEDS: Final[dict[str, Callable[[Any, Mapping[str, Any]], Made]]] = {
    "kill": _on_node("kill"),
    "restart": _on_node("restart"),
    "pause": _on_node("pause"),
    "resume": _on_node("resume"),
    "transfer": _on_node("transfer_leadership"),
    "partition": _partition,
    "heal": _plain("heal"),
    "add_worker": _plain("add_worker"),
    "speed": _setting("", "speed", 0.0, 100.0),
    "loss": _setting("network.", "loss", 0.0, 1.0),
    "latency": _latency,
}


# --- rows ---------------------------------------------------------------------------------------------------


def master_row(master: MasterStatus) -> dict[str, Any]:
    """A master as the panel draws it."""
    return {
        "id": short(master.id),
        "state": master.state,
        "role": master.role,
        "term": master.term,
        "commit": master.commit,
        "last": master.last,
        "tail": [list(entry) for entry in master.tail],
        "votes": list(master.votes),
        "fuse": round(master.fuse, 2),
    }


def worker_row(worker: WorkerStatus) -> list[Any]:
    """A worker as the panel draws it."""
    return [
        short(worker.id),
        short(worker.group),
        worker.status,
        worker.running,
        worker.slots,
        round(worker.load, 2),
    ]


def run_row(run: RunBrief) -> dict[str, Any]:
    """A run in one line."""
    return {
        "id": run.id,
        "name": short(run.name),
        "counts": list(run.counts),
        "began": round(run.submitted, 3),
        "ended": _round(run.finished),
    }


def thinned(points: Sequence[Any]) -> Sequence[Any]:
    """Few points that still show the peaks: of each stretch the deepest."""
    if len(points) <= POINTS:
        return points
    size = math.ceil(len(points) / POINTS)
    return [max(points[i : i + size], key=lambda p: p.depth) for i in range(0, len(points), size)]


def flights_of(frame: Frame) -> list[list[Any]]:
    """Messages on their way, those held in a driver's hands too, and those that arrived since the last look."""
    arrives = {sent.message: at for at, sent in frame.home._deployment.host.driver.pending()[:400]}
    rows = []
    for flight in frame.tail.flights:
        row = list(msgspec.structs.astuple(flight))
        if flight.ended is None:
            due = arrives.get(flight.number)
            row[6] = None if due is None or math.isinf(due) else round(due, 5)
        row[5] = round(row[5], 5)
        rows.append([*row, flight.ended is None])
    return rows[-120:]


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
