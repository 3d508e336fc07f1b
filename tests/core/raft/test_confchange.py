"""The algebra of membership, against sets that are changed by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.core.raft.confchange import (
    Change,
    ChangeKind,
    ConfigChange,
    Objection,
    Outcome,
    Transition,
    apply_change,
    check_conf,
    decode_change,
    encode_change,
    enter_joint,
    leave_joint,
    members,
    simple,
)
from agentflow.core.raft.messages import ConfState
from agentflow.core.raft.quorum import majority
from agentflow.errors import InvalidConfig

NAMES = "abcdef"
change = st.builds(Change, st.sampled_from(ChangeKind), st.sampled_from(NAMES))
changes = st.lists(change, max_size=6)
confs = st.tuples(
    st.sets(st.sampled_from(NAMES), min_size=1), st.sets(st.sampled_from(NAMES), max_size=3)
).map(lambda pair: ConfState(tuple(sorted(pair[0])), tuple(sorted(pair[1] - pair[0]))))


def model(conf: ConfState, made: list[Change]) -> tuple[set[str], set[str]]:
    """Voters and learners after the changes: each member is what was last said of it."""
    voters, learners = set(conf.voters), set(conf.learners)
    for one in made:
        if one.kind is ChangeKind.UPDATE:
            continue
        voters.discard(one.node)
        learners.discard(one.node)
        if one.kind is ChangeKind.VOTER:
            voters.add(one.node)
        elif one.kind is ChangeKind.LEARNER:
            learners.add(one.node)
    return voters, learners


def attempt(make: Callable[[], Outcome]) -> tuple[ConfState | None, Objection | None]:
    """Return the configuration that comes of it, or why none does."""
    try:
        return make().conf, None
    except InvalidConfig as refused:
        return None, refused.objection


@given(confs, changes)
def test_a_simple_change_makes_what_was_said_or_nothing(conf, made):
    voters, learners = model(conf, made)
    after, objection = attempt(lambda: simple(conf, made))
    changed = len(voters ^ set(conf.voters))
    if after is None:
        assert objection in (Objection.REMOVED_ALL, Objection.TOO_MANY)
        assert changed > 1 or not voters
        return
    assert (set(after.voters), set(after.learners)) == (voters, learners)
    assert changed <= 1


@given(confs, changes, st.booleans())
def test_into_a_joint_configuration_and_out_again_makes_what_was_said(conf, made, auto_leave):
    voters, learners = model(conf, made)
    joint, objection = attempt(lambda: enter_joint(conf, made, auto_leave=auto_leave))
    if joint is None:
        assert objection is Objection.REMOVED_ALL
        assert not voters
        return
    assert set(joint.voters) == voters
    assert joint.voters_outgoing == conf.voters
    assert joint.auto_leave == auto_leave
    left = leave_joint(joint).conf
    assert (set(left.voters), set(left.learners)) == (voters, learners)
    assert not left.voters_outgoing
    assert not left.learners_next


@given(confs, changes)
def test_nobody_is_dropped_before_the_joint_configuration_is_left(conf, made):
    joint, _ = attempt(lambda: enter_joint(conf, made))
    if joint is None:
        return
    assert set(conf.voters) <= set(members(joint))


@given(confs, changes)
def test_fresh_members_are_those_nothing_is_known_of(conf, made):
    try:
        outcome = simple(conf, made)
    except InvalidConfig:
        return
    new = set(members(outcome.conf)) - set(members(conf))
    assert new <= outcome.fresh


@given(confs, st.lists(st.tuples(changes, st.sampled_from(Transition)), max_size=8))
def test_any_history_of_changes_keeps_the_law(conf, history):
    for made, transition in history:
        before, wish = conf, ConfigChange(tuple(made), transition)
        after, objection = attempt(lambda one=wish, old=before: apply_change(old, one))
        if after is None:
            assert objection in Objection
            continue
        conf = after
        check_conf(conf)
        assert conf.voters
        if not before.voters_outgoing and not conf.voters_outgoing:
            one, other = set(before.voters), set(conf.voters)
            smallest = majority(one) + majority(other) - len(one | other)
            assert smallest > 0, "the majorities before and after share a voter"


@given(changes, st.sampled_from(Transition), st.binary(max_size=8))
def test_a_change_survives_the_log(made, transition, context):
    one = ConfigChange(tuple(made), transition, context)
    assert decode_change(encode_change(one)) == one


def test_leaving_a_joint_configuration_weighs_nothing():
    assert encode_change(ConfigChange()) == b""


@pytest.mark.parametrize(
    ("conf", "wish", "objection"),
    [
        (ConfState(("a",), voters_outgoing=("b",)), ConfigChange.of(add=["c"]), Objection.SIMPLE_IN_JOINT),
        (
            ConfState(("a",), voters_outgoing=("b",)),
            ConfigChange.of(add=["c", "d"]),
            Objection.ALREADY_JOINT,
        ),
        (ConfState(("a",)), ConfigChange(), Objection.NOT_JOINT),
        (ConfState(("a",)), ConfigChange.of(remove=["a"]), Objection.REMOVED_ALL),
        (ConfState(), ConfigChange.of(add=["a", "b"]), Objection.NO_VOTERS),
    ],
)
def test_what_cannot_be_done_is_refused_with_a_reason(conf, wish, objection):
    with pytest.raises(InvalidConfig) as refused:
        apply_change(conf, wish)
    assert refused.value.objection is objection
