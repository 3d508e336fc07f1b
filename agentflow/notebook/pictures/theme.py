"""The one place where colours are chosen.

Law: state is never told by colour alone; each state has a mark or a line of its own beside its colour.

An SVG in an `<img>` cannot see the page around it. So each picture is a card with a background of its
own, light unless the viewer prefers dark; the notebook hands its theme on as the `color-scheme` of the
image (`agentflow.notebook.html.STYLE`). Where that is stripped, as in an untrusted notebook, a light card
on a dark page can still be read.
"""

from __future__ import annotations

from typing import Final

TERMS: Final = (
    ("#345f96", "#ffffff"),
    ("#e09a3d", "#1c1d20"),
    ("#b08fcc", "#1c1d20"),
    ("#2f8f83", "#ffffff"),
    ("#d6cf7e", "#1c1d20"),
)
"""Fill and ink of the five colours that terms cycle through; they stay apart for colour-blind readers."""

TERM_LINES: Final = (
    ("#345f96", "#7aa5dc"),
    ("#b06e14", "#e09a3d"),
    ("#8a5fb0", "#b08fcc"),
    ("#217468", "#4fb8aa"),
    ("#837b1e", "#d6cf7e"),
)
"""The same for thin lines and small heads, which need more contrast: on a light card, on a dark one."""

STATES: Final = (
    "PENDING",
    "READY",
    "RUNNING",
    "COMPLETED",
    "FAILED",
    "RETRYING",
    "CANCELLED",
    "SKIPPED",
)
"""In the order in which a run counts them."""

WORDS: Final = {
    "PENDING": "waiting",
    "READY": "ready",
    "RUNNING": "running",
    "COMPLETED": "done",
    "FAILED": "failed",
    "RETRYING": "retrying",
    "CANCELLED": "cancelled",
    "SKIPPED": "skipped",
    "LOST": "lost",
    "TIMED_OUT": "timed out",
}

MARKS: Final = {
    "PENDING": "",
    "READY": "",
    "RUNNING": "▸",
    "COMPLETED": "✓",
    "FAILED": "✗",
    "RETRYING": "↻",
    "CANCELLED": "⊘",
    "SKIPPED": "⊘",
    "LOST": "✗",
    "TIMED_OUT": "✗",
}

BAR_ORDER: Final = (
    "COMPLETED",
    "RUNNING",
    "RETRYING",
    "FAILED",
    "READY",
    "CANCELLED",
    "SKIPPED",
    "PENDING",
)
"""From the left: what is done, what is at work, what went wrong, what is still to come."""

# class: (property, light, dark)
_COLOURS: Final[dict[str, tuple[str, str, str]]] = {
    "bg": ("fill", "#ffffff", "#11181f"),
    "edge": ("stroke", "#d5dae0", "#2b3640"),
    "halo": ("stroke", "#ffffff", "#11181f"),
    "soft": ("fill", "#f5f7f9", "#182129"),
    "grid": ("stroke", "#e4e8ec", "#26313b"),
    "wire": ("stroke", "#c3cad2", "#3a4753"),
    "t": ("fill", "#1b2430", "#e9eef3"),
    "m": ("fill", "#566271", "#9fadbb"),
    "ink": ("stroke", "#46525f", "#b3bfca"),
    "inkfill": ("fill", "#46525f", "#b3bfca"),
    "down": ("stroke", "#8a949f", "#74808c"),
    "good": ("fill", "#14794b", "#4fc58d"),
    "bad": ("fill", "#b8321f", "#ff8573"),
    "badline": ("stroke", "#b8321f", "#ff8573"),
    "zone": ("fill", "#fdf1ef", "#291a1b"),
    "blue": ("stroke", "#1d63b3", "#7dbbff"),
    "bluefill": ("fill", "#1d63b3", "#7dbbff"),
    "warn": ("fill", "#9a5b00", "#f0b75a"),
    "p1": ("fill", "#c7d1dd", "#37475a"),
    "p2": ("fill", "#8fb0d8", "#48739f"),
    "p3": ("fill", "#4a78b0", "#74a9e0"),
    "p4": ("fill", "#133a6b", "#d6e8ff"),
    "s-pending": ("fill", "#ffffff", "#11181f"),
    "s-ready": ("fill", "#c5d2e2", "#3d4d5f"),
    "s-running": ("fill", "#2a78d0", "#5aa4f5"),
    "s-completed": ("fill", "#1f8a57", "#45b581"),
    "s-failed": ("fill", "#c53a26", "#f27a66"),
    "s-retrying": ("fill", "#d08a1d", "#eab04f"),
    "s-cancelled": ("fill", "#a8aeb5", "#616b75"),
    "s-skipped": ("fill", "#cfd3d8", "#4a535c"),
    "s-lost": ("fill", "#c53a26", "#f27a66"),
    "s-timed_out": ("fill", "#c53a26", "#f27a66"),
    "l-pending": ("stroke", "#8d97a3", "#75828f"),
    "l-ready": ("stroke", "#5d7fae", "#86a8d6"),
    "l-running": ("stroke", "#1d63b3", "#7dbbff"),
    "l-completed": ("stroke", "#14794b", "#4fc58d"),
    "l-failed": ("stroke", "#b8321f", "#ff8573"),
    "l-retrying": ("stroke", "#a86a00", "#f0b75a"),
    "l-cancelled": ("stroke", "#838b94", "#7b8691"),
    "l-skipped": ("stroke", "#9aa2ab", "#69747e"),
    "n-pending": ("fill", "#ffffff", "#11181f"),
    "n-ready": ("fill", "#edf3fb", "#1d2a3a"),
    "n-running": ("fill", "#d9e9fc", "#15304f"),
    "n-completed": ("fill", "#dcf2e5", "#12352a"),
    "n-failed": ("fill", "#fbe0db", "#45211d"),
    "n-retrying": ("fill", "#fdefd2", "#3d2f14"),
    "n-cancelled": ("fill", "#eceef0", "#20282f"),
    "n-skipped": ("fill", "#f4f5f6", "#1a2229"),
}

_FIXED: Final = (
    "text{font-family:system-ui,-apple-system,'Segoe UI',Helvetica,Arial,sans-serif;"
    "font-variant-numeric:tabular-nums}"
    ".mono{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}"
    ".b{font-weight:600}.cap{font-weight:600;letter-spacing:.06em}.strike{text-decoration:line-through}"
    ".halo{paint-order:stroke;stroke-width:4px;stroke-linejoin:round}.none{fill:none}.edge,.grid,.wire,.ink,.down{fill:none}.dash{stroke-dasharray:4 3}.dot{stroke-dasharray:1.5 3}"
)


def _rules(dark: bool) -> str:
    at = 2 if dark else 1
    rules = [f".{name}{{{entry[0]}:{entry[at]}}}" for name, entry in _COLOURS.items()]
    rules += [
        f".a{i}{{stroke:{pair[dark]};fill:none}}.h{i}{{fill:{pair[dark]}}}"
        for i, pair in enumerate(TERM_LINES)
    ]
    return "".join(rules)


def _term_rules() -> str:
    return "".join(
        f".t{i}{{fill:{fill}}}.k{i}{{fill:{ink}}}.o{i}{{stroke:{fill};fill:none}}"
        for i, (fill, ink) in enumerate(TERMS)
    )


def style(theme: str = "auto") -> str:
    """The style sheet of a picture.

    Parameters
    ----------
    theme : {"auto", "light", "dark"}
        `auto` follows the viewer.
    """
    rules = _FIXED + _rules(theme == "dark") + _term_rules()
    if theme == "auto":
        rules += f"@media (prefers-color-scheme:dark){{{_rules(True)}}}"
    return f"<style>{rules}</style>"


def variables(*, dark: bool) -> str:
    """The colours as variables of a style sheet: `--af-bg`, and `--af-t0` and `--af-k0` for the first term."""
    terms = (f"--af-t{i}:{fill};--af-k{i}:{ink}" for i, (fill, ink) in enumerate(TERMS))
    return ";".join([*(f"--af-{name}:{entry[2 if dark else 1]}" for name, entry in _COLOURS.items()), *terms])


def term_class(term: int) -> int:
    """Which of the five colours a term has.

    Examples
    --------
    >>> [term_class(term) for term in (1, 5, 6)]
    [0, 4, 0]
    """
    return (term - 1) % len(TERMS)
