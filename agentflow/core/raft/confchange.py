"""The algebra of membership: from one configuration and a change to the next, or a refusal.

Law: at most one voter changes in a simple change, so that the majorities before and after share a voter
(Raft thesis, 4.1); any other change goes through a joint configuration in which both majorities must
agree (4.3). A configuration is a `ConfState`: a value, valid before and after.

Learners receive the log and do not vote. Who is a voter of the outgoing half cannot be a learner yet; such
a member waits in `learners_next` until the joint configuration is left.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum, StrEnum

import msgspec

from agentflow.core.raft.messages import ConfState
from agentflow.errors import InvalidConfig
from agentflow.ids import NodeId


class ChangeKind(IntEnum):
    """What is to become of one member."""

    VOTER = 0
    REMOVE = 1
    UPDATE = 2
    """Nothing: a way to pass a blob through the log among the membership changes."""
    LEARNER = 3


class Transition(IntEnum):
    """How a change of several members is made."""

    AUTO = 0
    """Simple if one voter changes, else joint and left automatically."""
    IMPLICIT = 1
    """Joint, and left automatically as soon as it is in force."""
    EXPLICIT = 2
    """Joint until somebody proposes to leave it with an empty change."""


class Change(msgspec.Struct, frozen=True, array_like=True):
    """What is to become of one member."""

    kind: ChangeKind
    node: NodeId


class ConfigChange(msgspec.Struct, frozen=True, array_like=True):
    """A proposal to change the membership.

    Parameters
    ----------
    changes : tuple of Change
        Empty to leave a joint configuration.
    transition : Transition
        How to get there.
    context : bytes
        The proposer's own; it travels with the entry.

    Examples
    --------
    >>> ConfigChange.of(add=["master-4"], remove=["master-1"]).enters_joint
    True
    >>> ConfigChange().leaves_joint
    True
    """

    changes: tuple[Change, ...] = ()
    transition: Transition = Transition.AUTO
    context: bytes = b""

    @classmethod
    def of(
        cls,
        *,
        add: Iterable[NodeId] = (),
        learn: Iterable[NodeId] = (),
        remove: Iterable[NodeId] = (),
        transition: Transition = Transition.AUTO,
    ) -> ConfigChange:
        """Return the change that adds voters, adds or demotes to learners, and removes members."""
        changes = [Change(ChangeKind.REMOVE, node) for node in remove]
        changes += [Change(ChangeKind.VOTER, node) for node in add]
        changes += [Change(ChangeKind.LEARNER, node) for node in learn]
        return cls(tuple(changes), transition)

    @property
    def leaves_joint(self) -> bool:
        """Whether this asks to leave a joint configuration."""
        return not self.changes and self.transition is Transition.AUTO

    @property
    def enters_joint(self) -> bool:
        """Whether this goes through a joint configuration."""
        return self.transition is not Transition.AUTO or len(self.changes) > 1

    @property
    def leaves_by_itself(self) -> bool:
        """Whether the leader leaves the joint configuration without being asked."""
        return self.transition is not Transition.EXPLICIT


_LEAVE = ConfigChange()
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(ConfigChange)


def encode_change(change: ConfigChange) -> bytes:
    """Return the data of the entry that proposes `change`; leaving a joint configuration takes none."""
    return b"" if change == _LEAVE else _encoder.encode(change)


def decode_change(data: bytes) -> ConfigChange:
    """Return the change that an entry's data describes.

    Examples
    --------
    >>> change = ConfigChange.of(add=["master-4"])
    >>> decode_change(encode_change(change)) == change
    True
    """
    return _decoder.decode(data) if data else _LEAVE


class Objection(StrEnum):
    """Why a change cannot be made."""

    ALREADY_JOINT = "the configuration is joint already"
    NO_VOTERS = "a configuration without voters cannot become joint"
    NOT_JOINT = "the configuration is not joint"
    SIMPLE_IN_JOINT = "a joint configuration must be left first"
    REMOVED_ALL = "no voter would be left"
    TOO_MANY = "more than one voter would change without a joint configuration"


class Outcome(msgspec.Struct, frozen=True):
    """The configuration after a change, and the members of whose logs nothing is known yet."""

    conf: ConfState
    fresh: frozenset[NodeId] = frozenset()


def apply_change(conf: ConfState, change: ConfigChange) -> Outcome:
    """Return what `change` makes of `conf`.

    Raises
    ------
    InvalidConfig
        With the `Objection` as `objection`; nothing was changed.

    Examples
    --------
    >>> conf = ConfState(voters=("a", "b", "c"))
    >>> apply_change(conf, ConfigChange.of(add=["d"])).conf.voters
    ('a', 'b', 'c', 'd')
    >>> joint = apply_change(conf, ConfigChange.of(add=["d"], remove=["a"])).conf
    >>> joint.voters, joint.voters_outgoing, joint.auto_leave
    (('b', 'c', 'd'), ('a', 'b', 'c'), True)
    >>> apply_change(joint, ConfigChange()).conf.voters
    ('b', 'c', 'd')
    """
    if change.leaves_joint:
        return leave_joint(conf)
    if change.enters_joint:
        return enter_joint(conf, change.changes, auto_leave=change.leaves_by_itself)
    return simple(conf, change.changes)


def simple(conf: ConfState, changes: Iterable[Change]) -> Outcome:
    """Make changes of which at most one concerns a voter."""
    check_conf(conf)
    if conf.voters_outgoing:
        raise _refused(Objection.SIMPLE_IN_JOINT, conf)
    draft = _Draft(conf)
    draft.apply(changes)
    if len(draft.voters.symmetric_difference(conf.voters)) > 1:
        raise _refused(Objection.TOO_MANY, conf)
    return draft.finish()


def enter_joint(conf: ConfState, changes: Iterable[Change], *, auto_leave: bool = False) -> Outcome:
    """Keep today's voters as the outgoing half and make the changes in the incoming one."""
    check_conf(conf)
    if conf.voters_outgoing:
        raise _refused(Objection.ALREADY_JOINT, conf)
    if not conf.voters:
        raise _refused(Objection.NO_VOTERS, conf)
    draft = _Draft(conf)
    draft.outgoing = set(conf.voters)
    draft.apply(changes)
    draft.auto_leave = auto_leave
    return draft.finish()


def leave_joint(conf: ConfState) -> Outcome:
    """Drop the outgoing half; members that waited to become learners become learners."""
    check_conf(conf)
    if not conf.voters_outgoing:
        raise _refused(Objection.NOT_JOINT, conf)
    draft = _Draft(conf)
    draft.learners |= draft.learners_next
    draft.learners_next = set()
    draft.outgoing = set()
    draft.auto_leave = False
    return draft.finish()


def members(conf: ConfState) -> tuple[NodeId, ...]:
    """Return everyone who receives the log, sorted.

    Examples
    --------
    >>> members(ConfState(voters=("b", "a"), learners=("c",), voters_outgoing=("a", "z")))
    ('a', 'b', 'c', 'z')
    """
    return tuple(sorted({*conf.voters, *conf.voters_outgoing, *conf.learners}))


def check_conf(conf: ConfState) -> None:
    """Assert that `conf` is a configuration that the functions above can make."""
    voters, outgoing = set(conf.voters), set(conf.voters_outgoing)
    learners, waiting = set(conf.learners), set(conf.learners_next)
    assert not learners & (voters | outgoing), f"a learner votes: {conf}"
    assert waiting <= outgoing, f"a waiting learner is no outgoing voter: {conf}"
    assert not waiting & voters, f"a waiting learner is an incoming voter: {conf}"
    assert outgoing or not conf.auto_leave, f"auto-leave without a joint configuration: {conf}"


class _Draft:
    """A configuration while it is being changed."""

    __slots__ = ("auto_leave", "fresh", "learners", "learners_next", "outgoing", "source", "voters")

    def __init__(self, conf: ConfState) -> None:
        self.source = conf
        self.voters = set(conf.voters)
        self.outgoing = set(conf.voters_outgoing)
        self.learners = set(conf.learners)
        self.learners_next = set(conf.learners_next)
        self.auto_leave = conf.auto_leave
        self.fresh: set[NodeId] = set()

    def apply(self, changes: Iterable[Change]) -> None:
        for change in changes:
            if not change.node:
                continue
            if change.kind is ChangeKind.VOTER:
                self._make_voter(change.node)
            elif change.kind is ChangeKind.LEARNER:
                self._make_learner(change.node)
            elif change.kind is ChangeKind.REMOVE:
                self._remove(change.node)
        if not self.voters:
            raise _refused(Objection.REMOVED_ALL, self.source)

    def _is_member(self, node: NodeId) -> bool:
        return node in self.voters or node in self.outgoing or node in self.learners

    def _make_voter(self, node: NodeId) -> None:
        if not self._is_member(node):
            self.fresh.add(node)
        self.learners.discard(node)
        self.learners_next.discard(node)
        self.voters.add(node)

    def _make_learner(self, node: NodeId) -> None:
        if node in self.learners:
            return
        if not self._is_member(node):
            self.fresh.add(node)
        self.voters.discard(node)
        if node in self.outgoing:
            self.learners_next.add(node)
        else:
            self.learners.add(node)

    def _remove(self, node: NodeId) -> None:
        self.voters.discard(node)
        self.learners.discard(node)
        self.learners_next.discard(node)

    def finish(self) -> Outcome:
        conf = ConfState(
            voters=tuple(sorted(self.voters)),
            learners=tuple(sorted(self.learners)),
            voters_outgoing=tuple(sorted(self.outgoing)),
            learners_next=tuple(sorted(self.learners_next)),
            auto_leave=self.auto_leave,
        )
        check_conf(conf)
        return Outcome(conf, frozenset(self.fresh))


def _refused(objection: Objection, conf: ConfState) -> InvalidConfig:
    halves = f"{', '.join(conf.voters)}" + (
        f" and {', '.join(conf.voters_outgoing)}" if conf.voters_outgoing else ""
    )
    return InvalidConfig(
        f"the membership ({halves}) cannot change so: {objection}; propose another change",
        objection=objection,
        conf=conf,
    )
