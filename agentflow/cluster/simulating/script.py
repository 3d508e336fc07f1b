"""What was done to a simulation by hand, as Python that does it again.

Law: the script moves time exactly as far as it was moved: to an instant where everything due was done, and by
single steps where somebody stopped within one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, NamedTuple

import msgspec

from agentflow.transport.memory import Network


class Position(NamedTuple):
    """Where a run is: so many acts and steps, and the last instant that was lived through as a whole."""

    acts: int
    step: int
    whole_step: int
    whole_now: float


class Line(msgspec.Struct, frozen=True):
    """One thing done by hand, and where the run was before and after it."""

    begin: Position
    end: Position
    text: str
    unfinished: str = ""
    """What to write instead if the run goes back to before its end."""


class Script:
    """The lines so far."""

    def __init__(self, lines: list[Line] | None = None) -> None:
        self.lines: list[Line] = lines or []

    def add(self, begin: Position, end: Position, text: str, unfinished: str = "") -> None:
        """Take down one thing."""
        self.lines.append(Line(begin, end, text, unfinished))

    def until(self, acts: int, step: int) -> Script:
        """Return the lines of a run that goes back to where there were so many acts and steps."""
        kept = []
        for line in self.lines:
            if line.end.acts <= acts and line.end.step <= step:
                kept.append(line)
            elif line.begin.acts < acts and line.begin.step <= step and line.unfinished:
                kept.append(Line(line.begin, line.begin, line.unfinished))
        return Script(kept)

    def text(self, head: list[str], here: Position) -> str:
        """Return the whole as Python."""
        lines = list(head)
        at = Position(0, 0, 0, 0.0)
        for line in self.lines:
            lines += _moves(at, line.begin)
            lines += line.text.splitlines()
            at = line.end
        return "\n".join([*lines, *_moves(at, here)]) + "\n"


def _moves(at: Position, to: Position) -> list[str]:
    """Write what brings the run from one place to another."""
    lines = []
    step = at.step
    if to.whole_now > at.whole_now or to.whole_step > at.step:
        lines.append(f"sim.run_to({to.whole_now!r})")
        step = to.whole_step
    if to.step > step:
        lines.append(f"sim.step({to.step - step})" if to.step > step + 1 else "sim.step()")
    return lines


# --- values -----------------------------------------------------------------------------------------------

_SHORT = 200


def source_of(value: Any) -> str:
    """Write a value as the Python that makes it, as far as that can be done.

    Examples
    --------
    >>> source_of({"b", "a"}), source_of(Network(loss=0.25))
    ("{'a', 'b'}", 'af.Network(loss=0.25)')
    """
    if isinstance(value, Network):
        return _network(value)
    if isinstance(value, StrEnum):
        return repr(str(value))
    if isinstance(value, set | frozenset):
        return "{" + ", ".join(sorted(source_of(item) for item in value)) + "}" if value else "set()"
    if isinstance(value, list):
        return "[" + ", ".join(source_of(item) for item in value) + "]"
    if isinstance(value, tuple):
        inner = ", ".join(source_of(item) for item in value)
        return f"({inner},)" if len(value) == 1 else f"({inner})"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{source_of(k)}: {source_of(v)}" for k, v in value.items()) + "}"
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        given = {field.name: getattr(value, field.name) for field in dataclasses.fields(value) if field.init}
        default = {field.name: _default_of(field) for field in dataclasses.fields(value)}
        return _call(type(value).__name__, given, default)
    if isinstance(value, msgspec.Struct):
        names = value.__struct_fields__
        defaults = dict(
            zip(names[len(names) - len(value.__struct_defaults__) :], value.__struct_defaults__, strict=True)
        )
        return _call(type(value).__name__, {name: getattr(value, name) for name in names}, defaults)
    if isinstance(value, type) or (callable(value) and hasattr(value, "__qualname__")):
        return _named(value)
    text = repr(value)
    return text if len(text) <= _SHORT and not text.startswith("<") else f"...  # a {type(value).__name__}"


def _default_of(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def _call(name: str, given: Mapping[str, Any], default: Mapping[str, Any]) -> str:
    parts = [
        f"{field}={source_of(value)}"
        for field, value in given.items()
        if not (field in default and default[field] == value)
    ]
    return f"af.{name}({', '.join(parts)})"


def _named(value: Any) -> str:
    name = str(getattr(value, "__qualname__", value))
    if "<lambda>" in name or "<locals>" in name:
        return name.rsplit(".", 1)[-1].replace("<lambda>", "fn")
    return name


def call_of(name: str, *args: Any, **kwargs: Any) -> str:
    """Write a call of a simulation's method.

    Examples
    --------
    >>> call_of("kill", "master-1"), call_of("skew", "master-1", rate=2.0)
    ("sim.kill('master-1')", "sim.skew('master-1', rate=2.0)")
    """
    parts = [source_of(arg) for arg in args]
    parts += [f"{key}={source_of(value)}" for key, value in kwargs.items() if value is not None]
    return f"sim.{name}({', '.join(parts)})"


# --- wires ------------------------------------------------------------------------------------------------

_SCALARS = ("latency_ms", "loss", "duplicate", "reorder", "reorder_ms")


def _network(network: Network) -> str:
    plain = Network()
    parts = [
        f"{name}={getattr(network, name)!r}"
        for name in _SCALARS
        if getattr(network, name) != getattr(plain, name)
    ]
    return f"af.Network({', '.join(parts)})"


def wires_lines(before: Network, after: Network) -> list[str]:
    """Write what was done to the wires directly."""
    lines = [
        f"sim.network.{name} = {getattr(after, name)!r}"
        for name in _SCALARS
        if getattr(before, name) != getattr(after, name)
    ]
    old, new = before.describe(), after.describe()
    slow = {**dict.fromkeys(old.get("slow", {}), 0.0), **new.get("slow", {})}
    lines += [
        f"sim.network.slow({node!r}, {ms!r})"
        for node, ms in slow.items()
        if old.get("slow", {}).get(node, 0.0) != ms
    ]
    cuts = ("partition", "cut", "isolated")
    if any(old.get(name) != new.get(name) for name in cuts):
        if any(name in old for name in cuts):
            lines.append("sim.network.heal()")
        if "partition" in new:
            groups = ", ".join(source_of(set(group)) for group in new["partition"])
            lines.append(f"sim.network.partition({groups})")
        lines += [f"sim.network.cut({a!r}, {b!r})" for a, b in new.get("cut", [])]
        lines += [f"sim.network.isolate({node!r})" for node in new.get("isolated", [])]
    return lines
