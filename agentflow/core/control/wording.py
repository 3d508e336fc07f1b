"""A client's command in a few words, for tables and errors."""

from __future__ import annotations

from typing import Any

from agentflow.core.control.commands import ClientCommand, KeyCas, KeyGet, KeySet, SubmitRun


def said(command: ClientCommand) -> str:
    """Say what a command asks.

    Examples
    --------
    >>> said(KeySet("x", 1)), said(KeyGet("x")), said(KeyCas("x", 1, 2))
    ('set x = 1', 'get x', 'cas x: 1 → 2')
    """
    tag = str(command.__struct_config__.tag)
    if isinstance(command, KeyGet):
        return f"{tag} {command.key}"
    if isinstance(command, KeySet):
        return f"{tag} {command.key} = {_brief(command.value)}"
    if isinstance(command, KeyCas):
        return f"{tag} {command.key}: {_brief(command.expected)} → {_brief(command.value)}"
    if isinstance(command, SubmitRun):
        return f"{tag} {_brief(command.name)}"
    return tag


def way_out(command: ClientCommand) -> str:
    """Say what a command without an answer may have done, and how a person finds out."""
    if isinstance(command, KeyGet):
        return "Reading changes nothing, so ask again"
    if isinstance(command, KeySet | KeyCas):
        return f"It may have taken effect; read {command.key!r} to find out"
    if isinstance(command, SubmitRun):
        return "It may have taken effect; submit again with the same idempotency_key to find out"
    return "It may have taken effect; asking again does no harm"


def _brief(value: Any, width: int = 40) -> str:
    text = repr(value)
    return text if len(text) <= width else f"{text[: width - 1]}…"
