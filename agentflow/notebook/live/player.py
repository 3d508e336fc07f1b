"""The simulation player: time at hand, forwards and backwards, and every message on its way.

Law: looking at the past changes nothing. Only what is done there does: then the simulation first goes back, and
the line of Python says so. The player moves time only while no cell does.
"""

from __future__ import annotations

import bisect
import math
import time
from collections.abc import Mapping
from typing import Any, ClassVar, Final

from agentflow.cluster.spacetime import SpaceTime, spacetime
from agentflow.core.record import Record
from agentflow.errors import AgentflowError, InvalidConfig, Refused
from agentflow.notebook.live.cluster import ClusterScene
from agentflow.notebook.live.scene import Deed, Frame, number
from agentflow.notebook.live.tail import BROAD, Tail

PENDING: Final = 60
EVENTS: Final = 400
"""Characters of what an event carried."""

CHECK_SHARE: Final = 0.1
"""Of a core, for the judges while time moves."""

PATIENCE_SECS: Final = 0.05
"""How long the player waits for a cell that moves the simulation before it says that one does."""

COMMON: Final = frozenset(
    {"send", "deliver", "timer", "persist", "persisted", "commit", "apply", "ask", "answer"}
)
SPEEDS: Final = (0.01, 100.0)


class PlayerScene(ClusterScene):
    """What the player of a simulation shows."""

    module: ClassVar[str] = "player.js"
    label: ClassVar[str] = "simulation"
    variable: ClassVar[str] = "sim"
    share: ClassVar[float] = 0.35

    def __init__(self, subject: Any) -> None:
        super().__init__(subject)
        self.playing = False
        self.speed = 1.0
        self.cursor: float | None = None
        self.span = 4 * subject._deployment.raft.election_timeout_ms / 1000 if subject.masters else 10.0
        self.beats = False
        self._played_at = 0.0
        self._then: tuple[tuple[float, int], Any, Tail] | None = None
        self._rare: list[Record] = []
        self._rare_of: tuple[Any, int] = (None, 0)
        self._judged = (-1, -1)
        self._judged_due = 0.0
        self._verdicts: list[list[str]] = []
        self._last: dict[str, Any] = {}

    # --- one instant ----------------------------------------------------------------------------------------

    def snapshot(self, frame: Frame) -> dict[str, Any]:
        """One instant of the simulation, or the last known one while a cell moves it."""
        sim = self.subject
        if not sim.turn.acquire(timeout=PATIENCE_SECS):
            return {**self._last, "busy": True}
        try:
            self._move(sim)
            self._last = self._look(sim, frame)
        finally:
            sim.turn.release()
        return self._last

    def _move(self, sim: Any) -> None:
        """Let pass what is due of the time that is played."""
        now = time.monotonic()
        spent, self._played_at = min(0.5, now - self._played_at), now
        if not self.playing:
            return
        ahead = spent * self.speed
        if self.cursor is not None:
            self.cursor += ahead
            if self.cursor >= sim.now:
                self.cursor = None
        elif ahead > 0:
            sim.run_for(ahead)

    def _look(self, sim: Any, frame: Frame) -> dict[str, Any]:
        shown, tail = sim, frame.tail
        tail.look(sim.trace)
        if self.cursor is not None and self.cursor < sim.now:
            shown, tail = self._past(sim, self.cursor)
        at = sim.now if self.cursor is None else self.cursor
        data = super().snapshot(Frame(shown, tail))
        self._judge(sim)
        data |= {
            "title": "simulation",
            "seed": sim.seed,
            "now": round(at, 6),
            "end": round(sim.now, 6),
            "past": self.cursor is not None,
            "playing": self.playing,
            "pace": self.speed,
            "busy": False,
            "span": self.span,
            "beats": self.beats,
            "pending": self._pending(shown),
            "flights": [],
            "verdicts": self._verdicts,
            "event": self._event(sim, at),
            "diagram": self._diagram(sim, at),
            "others": [node for node in shown._deployment.host.nodes if node not in shown.masters],
        }
        return data

    def _past(self, sim: Any, at: float) -> tuple[Any, Tail]:
        """The simulation as it was, made again beside it."""
        key = (at, sim.trace.next)
        if self._then is None or self._then[0] != key:
            then = sim.as_of(at)
            tail = Tail()
            tail.look(then.trace)
            self._then = (key, then, tail)
        return self._then[1], self._then[2]

    def _pending(self, shown: Any) -> list[list[Any]]:
        rows = []
        for arrives, sent in shown._deployment.host.driver.pending()[:PENDING]:
            rows.append(
                [
                    sent.message,
                    sent.source,
                    sent.destination,
                    str(sent.type),
                    BROAD.get(sent.type, "work"),
                    int(getattr(sent.payload, "term", 0) or 0),
                    round(sent.time, 6),
                    None if math.isinf(arrives) else round(arrives, 6),
                ]
            )
        return rows

    def _judge(self, sim: Any) -> None:
        """Ask the judges, no more often than they may cost."""
        now, key = time.monotonic(), (id(sim.trace), sim.trace.next)
        if key == self._judged or now < self._judged_due:
            return
        began = time.perf_counter()
        try:
            verdict = sim.check()
            parts = verdict.parts or (verdict,)
            self._verdicts = [
                [part.promise, str(part.outcome), part.explanation[:300]] for part in _leaves(parts)
            ]
        except AgentflowError as error:
            self._verdicts = [["judges", "unknown", str(error)[:300]]]
        self._judged = key
        self._judged_due = now + (time.perf_counter() - began) / CHECK_SHARE

    def _event(self, sim: Any, at: float) -> dict[str, Any] | None:
        """The last thing that had happened by an instant."""
        records = sim.trace.since(0)
        place = bisect.bisect_right(records, at + 1e-9, key=lambda record: record.time)
        if not place:
            return None
        record = records[place - 1]
        said = "" if record.payload is None else str(record.payload)
        return {
            "seq": record.seq,
            "time": round(record.time, 6),
            "node": record.node,
            "kind": record.kind,
            "type": str(record.type),
            "source": record.source,
            "destination": record.destination,
            "cause": record.cause,
            "lamport": record.lamport,
            "said": said[:EVENTS],
        }

    def _diagram(self, sim: Any, at: float) -> dict[str, Any]:
        """Lines, messages and marks around the cursor."""
        trace = sim.trace
        known, upto = self._rare_of
        if known is not trace or trace.next < upto:
            self._rare, upto = [], 0
        self._rare += [record for record in trace.since(upto) if record.kind not in COMMON]
        self._rare_of = (trace, trace.next)
        end = max(min(sim.now, at + self.span * 0.25), min(sim.now, self.span))
        start = max(0.0, end - self.span)
        records = trace.since(0)
        first = records[bisect.bisect_left(records, start, key=lambda record: record.time) :]
        seq = first[0].seq if first else trace.next
        kept = [*(record for record in self._rare if record.seq < seq), *first]
        if end <= start:
            return {"start": 0.0, "end": max(0.001, self.span), "nodes": list(sim.masters)}
        story = spacetime(kept, sim.now, "", start, end, None, "all" if self.beats else None)
        return drawn_story(story, [*sim.masters], start, max(end, start + self.span))

    # --- commands ---------------------------------------------------------------------------------------------

    def deed(self, name: str, given: Mapping[str, Any]) -> Deed:
        """What a control stands for: of the player, of one message, or of the cluster."""
        sim = self.subject
        variable = self.known_as
        if name == "play":
            return Deed("", lambda: self._play(True))
        if name == "pause_play":
            return Deed(self._moved(sim, variable), lambda: self._play(False))
        if name == "pace":
            pace = number(given, "value", *SPEEDS)
            return Deed("", lambda: setattr(self, "speed", pace))
        if name == "span":
            span = number(given, "value", 0.001, 1e6)
            return Deed("", lambda: setattr(self, "span", span))
        if name == "beats":
            return Deed("", lambda: setattr(self, "beats", bool(given.get("value"))))
        if name == "seek":
            return self._seek(sim, variable, number(given, "value", 0, 1e9))
        if name in ("back", "step"):
            self._play(False)
        if name == "back":
            return self._seek(sim, variable, self._before(sim))
        if name == "script":
            return Deed(f"print({variable}.script())", lambda: {"script": sim.script()})
        if name == "until_leader":
            return self._act(
                sim,
                variable,
                "run_until(lambda s: s.leader)",
                lambda: sim.run_until(lambda s: s.leader, 120.0),
            )
        if name == "step":
            if self.cursor is not None:
                return self._seek(sim, variable, self._after(sim))
            return Deed(f"{variable}.step()", lambda: self._alone(sim, sim.step))
        if name in ("deliver", "drop", "hold", "release"):
            return self._message(sim, variable, name, given)
        if name == "timeout":
            node = given.get("node")
            return self._act(sim, variable, f"timeout({node!r})", lambda: sim.timeout(node))
        if name in ("speed", "add_worker"):
            raise InvalidConfig(f"a simulation's panel has no {name!r}", field="do")
        deed = super().deed(name, given)
        return self._act(sim, variable, deed.line.removeprefix(f"{variable}."), deed.call)

    def _message(self, sim: Any, variable: str, name: str, given: Mapping[str, Any]) -> Deed:
        if name == "release" and "message" not in given:
            return self._act(sim, variable, "release()", sim.release)
        which = given.get("message")
        if not isinstance(which, int) or isinstance(which, bool):
            raise InvalidConfig(f"{which!r} is no number of a message", field="message")
        if name in ("deliver", "drop"):
            call = getattr(sim, name)
            return self._act(sim, variable, f"{name}({which})", lambda: call(which))
        rows = self._last.get("pending", ())
        row = next((each for each in rows if each[0] == which), None)
        if row is None:
            raise Refused(f"no message {which} is under way")
        kind = (row[1], row[2], row[3])
        call = getattr(sim, name)
        return self._act(sim, variable, f"{name}({', '.join(map(repr, kind))})", lambda: call(*kind))

    def _act(self, sim: Any, variable: str, line: str, call: Any) -> Deed:
        """Do something at the cursor: from the past, the simulation goes back first."""
        at = self.cursor
        if at is None:
            return Deed(f"{variable}.{line}", lambda: self._alone(sim, call))

        def go_back() -> Any:
            sim.rewind(to=at)
            self.cursor, self._then = None, None
            return call()

        return Deed(f"{variable}.rewind(to={at!r}).{line}", lambda: self._alone(sim, go_back))

    def _alone(self, sim: Any, call: Any) -> Any:
        with sim.turn:
            result = call()
        return result if isinstance(result, Mapping) else None

    def _play(self, playing: bool) -> None:
        self._played_at = time.monotonic()
        self.playing = playing

    def _moved(self, sim: Any, variable: str) -> str:
        return (
            f"{variable}.run_to({round(sim.now, 4)!r})"
            if self.cursor is None
            else f"{variable}.state_at({self.cursor!r})"
        )

    def _seek(self, sim: Any, variable: str, to: float) -> Deed:
        if to > sim.now:
            to = min(to, sim.now + 600.0)
            return Deed(f"{variable}.run_to({to!r})", lambda: self._alone(sim, lambda: self._go(sim, to)))
        at = None if to == sim.now else to
        return Deed(f"{variable}.state_at({to!r})", lambda: setattr(self, "cursor", at))

    def _go(self, sim: Any, to: float) -> None:
        self.cursor = None
        sim.run_to(max(to, sim.now))

    def _before(self, sim: Any) -> float:
        at = sim.now if self.cursor is None else self.cursor
        records = sim.trace.since(0)
        place = bisect.bisect_left(records, at - 1e-9, key=lambda record: record.time)
        return float(records[place - 1].time) if place else 0.0

    def _after(self, sim: Any) -> float:
        records = sim.trace.since(0)
        place = bisect.bisect_right(records, (self.cursor or 0.0) + 1e-9, key=lambda record: record.time)
        return float(records[place].time if place < len(records) else sim.now)


def _leaves(parts: Any) -> list[Any]:
    """The single promises, of those that sum up others."""
    found = []
    for part in parts:
        found += _leaves(part.parts) if part.parts else [part]
    return found


def drawn_story(story: SpaceTime, masters: list[str], start: float, end: float) -> dict[str, Any]:
    """A stretch of a run as the player draws it."""
    nodes = [*masters, *(node for node in story.nodes if node not in masters)][:14]
    place = {node: i for i, node in enumerate(nodes)}
    return {
        "start": round(start, 6),
        "end": round(end, 6),
        "nodes": nodes,
        "stretches": [
            [
                place[each.node],
                round(max(start, each.start), 6),
                round(each.end, 6),
                each.state,
                each.role,
                each.term,
            ]
            for each in story.stretches
            if each.node in place
        ],
        "hops": [
            [
                hop.number,
                place[hop.source],
                place[hop.destination],
                round(hop.sent, 6),
                None if hop.ended is None else round(hop.ended, 6),
                bool(hop.lost),
                hop.saying.family,
                hop.saying.term,
                hop.saying.label,
            ]
            for hop in story.hops
            if hop.source in place and hop.destination in place
        ],
        "marks": [
            [place.get(mark.node, -1), round(mark.time, 6), mark.kind, mark.said[:80]] for mark in story.marks
        ],
        "hidden": sum(count for _, count in story.hidden),
    }
