import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.core.agents.directory import Directory
from agentflow.core.agents.messages import MessageType
from agentflow.core.agents.subjects import EMPTY, as_pattern, as_subject, matches
from agentflow.errors import InvalidConfig

WORDS = st.sampled_from(["a", "b", "room", "*x", ">y", "ü"])
SUBJECTS = st.lists(WORDS, min_size=1, max_size=4).map(".".join)


@st.composite
def patterns(draw):
    tokens = draw(st.lists(st.one_of(WORDS, st.just("*")), min_size=0, max_size=4))
    if not tokens or draw(st.booleans()):
        tokens = [*tokens, draw(st.sampled_from([">", "a", "*"]))]
    return ".".join(tokens)


def slow_match(pattern, subject):
    """The definition, word for word, as a regular expression."""
    tokens = pattern.split(".")
    rest = tokens[-1] == ">"
    words = [r"[^.]+" if token == "*" else re.escape(token) for token in (tokens[:-1] if rest else tokens)]
    if rest:
        words.append(r"[^.]+(\.[^.]+)*")
    return re.fullmatch(r"\.".join(words), subject) is not None


@given(patterns(), SUBJECTS)
def test_a_pattern_matches_what_its_definition_says(pattern, subject):
    assert matches(as_pattern(pattern), as_subject(subject)) == slow_match(pattern, subject)


CHANGES = st.lists(st.tuples(st.booleans(), patterns(), st.sampled_from("pqr")), max_size=30)


@given(CHANGES, st.lists(SUBJECTS, min_size=1, max_size=5))
def test_the_tree_finds_whoever_has_a_matching_subscription_and_each_once(changes, subjects):
    tree, known = EMPTY, set()
    for add, pattern, who in changes:
        tree = tree.add(pattern, who) if add else tree.remove(pattern, who)
        (known.add if add else known.discard)((pattern, who))
        for subject in subjects:
            assert tree.find(subject) == {who for pattern, who in known if slow_match(pattern, subject)}


@given(CHANGES, SUBJECTS)
def test_a_tree_that_somebody_reads_never_changes(changes, subject):
    tree = EMPTY.add("a.*", "p").add(">", "q")
    before = tree.find(subject)
    grown = tree
    for add, pattern, who in changes:
        grown = grown.add(pattern, who) if add else grown.remove(pattern, who)
    assert tree.find(subject) == before


@given(CHANGES)
def test_a_tree_from_which_all_is_removed_is_empty_again(changes):
    tree = EMPTY
    for _, pattern, who in changes:
        tree = tree.add(pattern, who)
    for _, pattern, who in changes:
        tree = tree.remove(pattern, who)
    assert tree == EMPTY


@pytest.mark.parametrize("bad", ["", ".a", "a.", "a..b", "a b", "a\tb", "a\n", 7, None, b"a"])
def test_what_is_no_subject_is_refused(bad):
    with pytest.raises(InvalidConfig):
        as_subject(bad)
    with pytest.raises(InvalidConfig):
        as_pattern(bad)


def test_wildcards_are_for_patterns_and_the_rest_comes_last():
    for subject in ("a.*", ">", "*"):
        with pytest.raises(InvalidConfig, match="wildcard"):
            as_subject(subject)
    with pytest.raises(InvalidConfig, match="comes last"):
        as_pattern("a.>.b")
    assert as_subject("a.b*") == "a.b*"


def test_who_is_subscribed_to_the_type_and_the_subject_gets_one_copy():
    directory = Directory()
    for name in ("a", "b", "c", "d"):
        directory.join(name)
    directory.subscribe("a", ("status_update", "jobs.>", "jobs.*"))
    directory.subscribe("b", ("jobs.1",))
    directory.subscribe("c", ("heartbeat",))
    assert directory.route("jobs.1", MessageType.STATUS_UPDATE) == ("a", "b")
    assert directory.route("jobs.1", MessageType.HEARTBEAT) == ("a", "b", "c")
    assert directory.route("other", MessageType.NOTIFICATION) == ()


def test_a_wildcard_stands_for_words_of_the_subject_and_not_for_types():
    directory = Directory()
    directory.join("a")
    directory.subscribe("a", ("*",))
    assert directory.route("jobs.1", MessageType.HEARTBEAT) == ()
    assert directory.route("jobs", MessageType.HEARTBEAT) == ("a",)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["join", "leave", "sub", "unsub", "all"]), st.sampled_from("ab"), patterns()
        )
    )
)
def test_the_directory_is_the_sum_of_what_was_done_to_it(steps):
    directory, members, wanted = Directory(), [], {"a": [], "b": []}
    for kind, who, pattern in steps:
        if kind == "join":
            directory.join(who)
            if who not in members:
                members.append(who)
        elif kind == "leave":
            directory.leave(who)
            members = [name for name in members if name != who]
            wanted[who] = []
        elif kind == "sub":
            directory.subscribe(who, (pattern,))
            if pattern not in wanted[who]:
                wanted[who].append(pattern)
        else:
            gone = None if kind == "all" else (pattern,)
            directory.unsubscribe(who, gone)
            wanted[who] = [] if gone is None else [p for p in wanted[who] if p != pattern]
        assert directory.agents == tuple(members)
        assert directory.present == frozenset(members)
        for name in "ab":
            assert directory.subscriptions(name) == tuple(wanted[name])
        for subject in ("a", "a.b", "room.a.b"):
            expected = sorted(n for n in "ab" if any(slow_match(p, subject) for p in wanted[n]))
            assert directory.route(subject, MessageType.ERROR) == tuple(expected)


def test_lives_of_a_name_are_counted_beyond_its_leaving():
    directory = Directory()
    assert directory.join("a") == 1
    directory.leave("a")
    assert directory.join("a") == 2
    assert directory.others("a") == ()
