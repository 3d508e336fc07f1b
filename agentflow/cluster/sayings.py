"""What a message says, in the few words that fit beside an arrow, and the family it belongs to.

Law: nothing here can fail on a message of somebody's own: what is not known is called by its type.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from agentflow.core.agents.messages import AgentMessage
from agentflow.core.control import commands
from agentflow.core.nodes import messages as talk
from agentflow.core.raft.messages import Message
from agentflow.core.raft.messages import MessageType as Raft
from agentflow.core.record import Record

FAMILIES: Final = ("election", "append", "heartbeat", "client", "work", "agent", "other")
"""What `kinds=` of a diagram may name, beside the types themselves."""

_RAFT: Final = {
    Raft.VOTE: "election",
    Raft.VOTE_RESP: "election",
    Raft.PRE_VOTE: "election",
    Raft.PRE_VOTE_RESP: "election",
    Raft.TIMEOUT_NOW: "election",
    Raft.TRANSFER_LEADER: "election",
    Raft.APP: "append",
    Raft.APP_RESP: "append",
    Raft.SNAP: "append",
    Raft.HEARTBEAT: "heartbeat",
    Raft.HEARTBEAT_RESP: "heartbeat",
}
_CLIENT: Final = (talk.Ask, talk.Tell, talk.Unsure, talk.Follow, talk.Unfollow, talk.Progress, talk.Gone)
_ANSWERS: Final = frozenset({Raft.VOTE_RESP, Raft.PRE_VOTE_RESP, Raft.APP_RESP, Raft.HEARTBEAT_RESP})
_PLAIN: Final = (str, int, float, bool, bytes, tuple, list, set, frozenset, type(None))
WORDS_AT_MOST: Final = 28


class Saying(msgspec.Struct, frozen=True):
    """One message in words.

    `label` is empty where an arrow needs none; `said` is a whole phrase. `weight` tells what may be left out
    first where there is no room for all: the highest.
    """

    family: str
    label: str
    said: str
    term: int = 0
    answer: bool = False
    trial: bool = False
    weight: int = 3


def saying(record: Record) -> Saying:
    """Say what the message of a record of kind `send` is.

    Examples
    --------
    >>> found = saying(Record(0, 0.0, "a", "send", type="ADD", payload={"type": "ADD", "n": 1}))
    >>> found.family, found.label
    ('other', 'ADD')
    """
    message = record.payload
    if isinstance(message, Message):
        return _raft(message)
    if isinstance(message, AgentMessage):
        return _agent(message)
    if isinstance(message, _CLIENT):
        return _client(message)
    if isinstance(message, talk.Redirect):
        words = f"{message.leader} leads" if message.leader else "no leader"
        family, weight = ("client", 2) if message.number >= 0 else ("work", 6)
        return Saying(family, words if family == "client" else "", f"not me: {words}", 0, True, weight=weight)
    known = _work(message)
    return known if known is not None else _other(record.type, message)


def _raft(message: Message) -> Saying:
    family, term = _RAFT.get(message.type, "client"), message.term
    label, said, weight = "", f"{message.type} in term {term}", 0 if family == "election" else 5
    trial = message.type in (Raft.PRE_VOTE, Raft.PRE_VOTE_RESP)
    answer = message.type in _ANSWERS
    if message.type in (Raft.VOTE, Raft.PRE_VOTE):
        label = "pre-vote?" if trial else "vote?"
        said = f"asks for a {'pre-' if trial else ''}vote in term {term}"
    elif message.type in (Raft.VOTE_RESP, Raft.PRE_VOTE_RESP):
        label = "no" if message.reject else "yes"
        said = f"{label} to a {'pre-' if trial else ''}vote in term {term}"
    elif message.type is Raft.APP and message.entries:
        first, last = message.entries[0], message.entries[-1]
        label = f"{first.term}/{first.index}" + (f"…{last.index}" if last is not first else "")
        said, weight = f"appends {label} (term/index), commit {message.commit}", 3
    elif message.type is Raft.APP:
        said = f"appends nothing, commit {message.commit}"
    elif message.type is Raft.APP_RESP:
        label = "no" if message.reject else ""
        said = f"refuses, has up to {message.reject_hint}" if message.reject else f"has up to {message.index}"
    elif message.type is Raft.SNAP and message.snapshot is not None:
        label = f"snapshot {message.snapshot.term}/{message.snapshot.index}"
        said, weight = f"sends a {label}", 1
    elif message.type is Raft.TIMEOUT_NOW:
        label = said = "stand now"
    return Saying(family, label, said, term, answer, trial, weight)


def _agent(message: AgentMessage) -> Saying:
    word = message.type.replace("_", " ")
    family = "heartbeat" if message.type == "heartbeat" else "agent"
    label = brief(message.subject or word)
    answer = message.in_reply_to is not None or message.type.endswith("_response")
    return Saying(family, label, brief(f"{word}: {_short(message.content)}", 90), 0, answer, weight=1)


def _client(message: Any) -> Saying:
    if isinstance(message, talk.Ask):
        words = command_words(message.command)
        return Saying("client", words, f"asks: {words}", weight=2)
    if isinstance(message, talk.Tell):
        if message.denied is not None:
            words = f"denied: {message.denied.error}"
        else:
            words = "done" if message.result is None else f"done: {_short(message.result)}"
        return Saying("client", brief(words), words, 0, True, weight=2)
    if isinstance(message, talk.Progress):
        words = "run done" if message.done else f"{len(message.tasks)} settled" if message.tasks else ""
        return Saying("client", words, f"progress of {message.run}: {words or 'none'}", 0, True, weight=4)
    word = type(message).__name__.lower()
    return Saying("client", "" if word in ("follow", "unfollow") else word, word, weight=4)


def _work(message: Any) -> Saying | None:
    if isinstance(message, talk.Orders):
        if message.start:
            first = message.start[0].id
            label = f"run {first}" if len(message.start) == 1 else f"run {len(message.start)} tasks"
            return Saying("work", brief(label), f"orders: start {', '.join(o.id for o in message.start[:8])}")
        if message.stop:
            return Saying("work", "stop", f"orders: stop {len(message.stop)}")
        if message.acknowledge:
            return Saying("work", "", "acknowledges reports", 0, True, weight=6)
        return Saying("heartbeat", "", "answers a heartbeat", 0, True)
    if isinstance(message, talk.Pulse):
        return Saying("heartbeat", "", "heartbeat of a worker")
    if isinstance(message, commands.Report):
        count = len(message.completions)
        return Saying(
            "work", "done" if count == 1 else f"{count} done", f"reports {count} finished", weight=4
        )
    if isinstance(message, talk.Enrol):
        return Saying("work", "enrol", "asks to be registered", weight=6)
    if isinstance(message, talk.Greet):
        return Saying("work", "", f"leads term {message.term}", message.term, weight=6)
    if isinstance(message, talk.Stranger):
        return Saying("work", "unknown", "you are not registered", message.term, True, weight=4)
    return None


def _other(name: str, message: Any) -> Saying:
    """A message of somebody's own: plain values speak for themselves, others by their type."""
    label = _short(message) if isinstance(message, _PLAIN) else name
    family = "heartbeat" if "heartbeat" in name.lower() else "other"
    return Saying(family, brief(label), brief(f"{name} {_short(message)}", 90))


def command_words(command: Any) -> str:
    """A client's command as one would say it."""
    if isinstance(command, commands.KeySet):
        words = f"set {command.key}={_short(command.value)}"
    elif isinstance(command, commands.KeyGet):
        words = f"get {command.key}"
    elif isinstance(command, commands.KeyCas):
        words = f"cas {command.key}: {_short(command.expected)}→{_short(command.value)}"
    elif isinstance(command, commands.SubmitRun):
        words = f"submit {command.name}"
    else:
        words = type(command).__name__
    return brief(words)


def _short(value: Any) -> str:
    try:
        return brief(value if isinstance(value, str) else repr(value), 60)
    except Exception:  # a repr of somebody's own may do anything
        return type(value).__name__


def brief(words: str, most: int = WORDS_AT_MOST) -> str:
    """The words, or as many letters as are allowed.

    Examples
    --------
    >>> brief("abcdef", 4)
    'abc…'
    """
    return words if len(words) <= most else words[: most - 1] + "…"
