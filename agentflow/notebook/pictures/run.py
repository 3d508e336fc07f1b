"""The view of a run: how far it is, its graph, and who worked on it when."""

from __future__ import annotations

from typing import Final

from agentflow.cluster.status import RunStatus
from agentflow.notebook.pictures import svg
from agentflow.notebook.pictures.flow import graph_part
from agentflow.notebook.pictures.gantt import gantt, utilisation
from agentflow.notebook.pictures.progress import bar
from agentflow.notebook.pictures.theme import MARKS, STATES, WORDS

WIDE: Final = 960.0
PAD: Final = 16.0
ERRORS_AT_MOST: Final = 5


def describe(run: RunStatus) -> str:
    """The run in a sentence, for those who cannot see it."""
    counts = dict(zip(STATES, run.counts, strict=True))
    said = ", ".join(f"{count:,} {WORDS[name]}" for name, count in counts.items() if count) or "no tasks"
    return f"run {run.id} of {run.name}: {said}, {svg.seconds(run.elapsed)}"


def run_svg(run: RunStatus, width: float = WIDE, theme: str = "auto") -> str:
    """Draw a run: bar, graph, Gantt, errors.

    Examples
    --------
    >>> "no tasks" in run_svg(RunStatus("run-1", "empty", now=0.0))
    True
    """
    room = width - 2 * PAD
    parts = [_header(run, width)]
    drawn, height = bar(run.counts, room)
    parts.append(svg.group(PAD, 46, drawn))
    y = 46 + height + 10
    parts.append(svg.line(0, y, width, y, "edge"))
    chain = critical_sum(run)
    parts.append(svg.caption(PAD, y + 22, "graph", chain, room))
    drawn, height = graph_part(run.ids, run.needs, run.states, run.critical, room, tries_of(run))
    parts.append(svg.group(PAD, y + 36, drawn))
    y += 36 + height + 14
    parts.append(svg.line(0, y, width, y, "edge"))
    drawn, height = gantt(run, room)
    parts.append(svg.group(PAD, y + 12, drawn))
    y += 12 + height + 8
    if run.errors:
        parts.append(svg.line(0, y, width, y, "edge"))
        parts.append(svg.caption(PAD, y + 22, "errors", f"{svg.count(len(run.errors), 'task')} failed", room))
        y += 30
        for task, kind, message in run.errors[:ERRORS_AT_MOST]:
            parts.append(svg.text(PAD, y + 12, f"✗ {task}", "bad", 11.5, width=room * 0.3))
            parts.append(
                svg.text(PAD + room * 0.32, y + 12, f"{kind}: {message}", "t", 11.5, width=room * 0.68)
            )
            y += 18
        if len(run.errors) > ERRORS_AT_MOST:
            parts.append(svg.text(PAD, y + 12, f"and {len(run.errors) - ERRORS_AT_MOST:,} more", "m", 11.5))
            y += 18
        y += 6
    return svg.document(width, y, "".join(parts), describe(run), theme)


def _header(run: RunStatus, width: float) -> str:
    end = "done in" if run.done else "running for"
    if run.done and any(run.states.count(state) for state in (4, 6, 7)):
        end = "ended after"
    took = svg.text(
        width - PAD,
        28,
        f"{end} {svg.seconds(run.elapsed)}" if not run.note else run.note,
        "m",
        12,
        "end",
        260,
    )
    room = width - 2 * PAD - 200
    name = svg.text(PAD, 28, run.name, "t b", 15, width=room * 0.7)
    x = PAD + svg.measure(svg.fit(run.name, room * 0.7, 15), 16) + 14
    return name + svg.text(x, 28, f"{run.id}, {svg.count(len(run.ids), 'task')}", "m", 12) + took


def tries_of(run: RunStatus) -> dict[int, int]:
    """How many attempts each task has had."""
    found: dict[int, int] = {}
    for each in run.tries:
        found[each.task] = max(found.get(each.task, 0), each.number)
    return found


def critical_sum(run: RunStatus) -> str:
    """The critical path in words."""
    if not run.critical:
        return ""
    took: dict[int, float] = {}
    for each in run.tries:
        took[each.task] = max(0.0, (run.now if each.finished is None else each.finished) - each.started)
    length = sum(took.get(task, 0.0) for task in run.critical)
    return f"heavier line: the critical path, {svg.count(len(run.critical), 'task')}, {svg.seconds(length)}"


def graph_svg(run: RunStatus, width: float = WIDE, theme: str = "auto") -> str:
    """The graph alone."""
    drawn, height = graph_part(run.ids, run.needs, run.states, run.critical, width - 2 * PAD, tries_of(run))
    head = svg.caption(PAD, 24, f"graph of {run.id}", critical_sum(run), width - 2 * PAD)
    return svg.document(width, height + 54, head + svg.group(PAD, 38, drawn), describe(run), theme)


def gantt_svg(run: RunStatus, width: float = WIDE, theme: str = "auto") -> str:
    """The attempts alone."""
    drawn, height = gantt(run, width - 2 * PAD)
    return svg.document(width, height + 24, svg.group(PAD, 12, drawn), describe(run), theme)


def utilisation_svg(run: RunStatus, width: float = WIDE, theme: str = "auto") -> str:
    """How many attempts ran at once."""
    drawn, height = utilisation(run, width - 2 * PAD)
    return svg.document(width, height + 24, svg.group(PAD, 12, drawn), describe(run), theme)


def task_svg(run: RunStatus, task: int, width: float = 480, theme: str = "auto") -> str:
    """One task: its state, what it waits for, and its attempts."""
    state = STATES[run.states[task]] if task < len(run.states) else "PENDING"
    head = svg.text(PAD, 30, f"{MARKS[state]} {run.ids[task]}".strip(), "t b", 14, width=width - 140)
    word = svg.text(width - PAD, 30, WORDS[state], "bad" if state == "FAILED" else "m", 12, "end")
    needs = ", ".join(run.ids[need] for need in run.needs[task][:20]) or "nothing"
    parts = [head, word, svg.text(PAD, 50, f"after {needs}", "m", 11.5, width=width - 2 * PAD)]
    y = 70.0
    mine = [each for each in run.tries if each.task == task]
    for each in mine[-8:]:
        took = "running" if each.finished is None else svg.seconds(each.finished - each.started)
        parts.append(svg.rect(PAD, y - 8, 9, 9, f"s-{each.state.lower()}", 2))
        said = f"try {each.number} on {each.worker}: {WORDS[each.state]}, {took}" + (
            f" – {each.error}" if each.error else ""
        )
        parts.append(svg.text(PAD + 15, y, said, "t", 11.5, width=width - 2 * PAD - 15))
        y += 18
    if not mine:
        parts.append(svg.text(PAD, y, "no attempt yet", "m", 11.5))
        y += 18
    return svg.document(width, y, "".join(parts), f"task {run.ids[task]}: {WORDS[state]}", theme)
