from __future__ import annotations

import contextlib

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentflow.core.raft.messages import Entry, Message, MessageType, Snapshot
from agentflow.transport.codec import TYPES, VERSION, MessageCodec, Undecodable

plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)
raft = st.builds(
    Message,
    type=st.sampled_from(MessageType),
    to=st.text(),
    source=st.text(),
    term=st.integers(0, 2**40),
    entries=st.lists(
        st.builds(Entry, index=st.integers(1, 99), term=st.integers(1, 9), data=st.binary())
    ).map(tuple),
    snapshot=st.none() | st.builds(Snapshot, index=st.integers(0, 9), data=st.binary()),
    reject=st.booleans(),
)


@given(plain | raft)
@settings(max_examples=200, deadline=None)
def test_what_goes_in_comes_out(message):
    codec = MessageCodec()
    assert codec.decode(codec.encode(message)) == message


@given(st.binary(max_size=60) | st.binary(max_size=60).map(lambda rest: bytes((VERSION, 1)) + rest))
@settings(max_examples=300, deadline=None)
def test_garbage_is_refused_and_nothing_else_is_raised(data):
    codec = MessageCodec()
    with contextlib.suppress(Undecodable):
        codec.decode(data)


def test_a_key_that_cannot_be_one_is_refused():
    with pytest.raises(Undecodable):
        MessageCodec().decode(bytes((VERSION, 0, 0x81, 0x80, 0x01)))


@given(raft, st.data())
@settings(max_examples=200, deadline=None)
def test_a_damaged_message_is_refused_or_is_another_message(message, data):
    codec = MessageCodec()
    encoded = bytearray(codec.encode(message))
    place = data.draw(st.integers(0, len(encoded) - 1))
    encoded[place] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(Undecodable):
        codec.decode(bytes(encoded))


def test_another_version_and_an_unknown_type_are_named():
    codec = MessageCodec()
    with pytest.raises(Undecodable, match="version 9"):
        codec.decode(bytes((9, 0, 0xC0)))
    with pytest.raises(Undecodable, match=f"{len(TYPES)} types"):
        codec.decode(bytes((VERSION, len(TYPES) + 1, 0xC0)))


def test_values_of_the_wrong_type_are_refused_where_they_stand():
    codec = MessageCodec()
    for kind in TYPES:
        number = TYPES.index(kind) + 1
        for wrong in ({"no": "array"}, "text", 5, [["x"]] * 12, [None] * 12):
            with pytest.raises(Undecodable, match=f"type {number}"):
                codec.decode(bytes((VERSION, number)) + msgspec.msgpack.encode(wrong))


def test_nesting_without_end_is_refused():
    with pytest.raises(Undecodable):
        MessageCodec().decode(bytes((VERSION, 0)) + b"\x91" * 100_000)
