"""Messages as bytes: one versioned format for every transport, and a mode that checks it in memory.

A message is three parts: a byte for the version, a byte for its type, and MessagePack. Types are numbered
by their place in `TYPES`, so new ones go to the end. What is malformed is refused before it is acted on.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from agentflow.core.agents.messages import AgentMessage
from agentflow.core.control.commands import Report
from agentflow.core.nodes import messages
from agentflow.core.raft.messages import Message
from agentflow.errors import Refused

VERSION: Final = 1

PLAIN: Final = 0
"""The type byte of plain data: dictionaries, lists, numbers, strings."""

TYPES: Final = (
    Message,
    messages.Ask,
    messages.Tell,
    messages.Redirect,
    messages.Unsure,
    messages.Follow,
    messages.Unfollow,
    messages.Progress,
    messages.Gone,
    messages.Enrol,
    messages.Pulse,
    Report,
    messages.Orders,
    messages.Greet,
    messages.Stranger,
    AgentMessage,
)


class Undecodable(Refused):
    """Bytes that are no message of this version; nothing was done with them."""


class MessageCodec:
    r"""Turns messages into bytes and back.

    Examples
    --------
    >>> codec = MessageCodec()
    >>> codec.decode(codec.encode(messages.Greet(3)))
    Greet(term=3)
    >>> codec.decode(b"\xff")
    Traceback (most recent call last):
        ...
    agentflow.transport.codec.Undecodable: a message of 1 bytes is too short to have a version and a type
    """

    def __init__(self) -> None:
        self._encoder = msgspec.msgpack.Encoder()
        kinds: tuple[Any, ...] = (Any, *TYPES)
        self._number: dict[type, int] = {kind: i for i, kind in enumerate(kinds) if i}
        self._decoders: list[msgspec.msgpack.Decoder[Any]] = [msgspec.msgpack.Decoder(kind) for kind in kinds]

    def encode(self, message: Any) -> bytes:
        """Turn a message into bytes."""
        number = self._number.get(type(message), PLAIN)
        return bytes((VERSION, number)) + self._encoder.encode(message)

    def decode(self, data: bytes) -> Any:
        """Turn bytes into a message.

        Raises
        ------
        Undecodable
            If they are none.
        """
        if len(data) < 3:
            raise Undecodable(f"a message of {len(data)} bytes is too short to have a version and a type")
        if data[0] != VERSION:
            raise Undecodable(
                f"a message of version {data[0]}; this is version {VERSION}: update one of the two"
            )
        if data[1] >= len(self._decoders):
            raise Undecodable(
                f"a message of unknown type {data[1]}; version {VERSION} has {len(TYPES)} types"
            )
        try:
            return self._decoders[data[1]].decode(memoryview(data)[2:])
        except (msgspec.DecodeError, ValueError, TypeError, RecursionError) as error:
            raise Undecodable(f"a damaged message of type {data[1]}: {error}") from None
