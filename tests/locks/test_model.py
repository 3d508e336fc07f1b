"""The statements against an obvious model, step by step, with the clock in the test's hand.

SQLite's `julianday('now')` is replaced by a value of the test's, so that time passes only when the test says so.
"""

import random

import sqlalchemy as sa
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from sqlalchemy.pool import StaticPool

from agentflow.locks.dialects import sqlite
from agentflow.locks.dialects.sqlite import Sqlite
from agentflow.locks.link import Link

START_MS = 1_800_000_000_000
KEYS = st.sampled_from(["a", "A", "a "])
PEOPLE = st.sampled_from(["w1", "w2", "w3"])
SPANS_S = st.sampled_from([1.0, 2.0, 5.0])


class Clock:
    """A dialect whose NOW is a number in this object."""

    def __init__(self):
        self.ms = START_MS
        self.dialect = Sqlite()
        self.dialect.statements = Sqlite.statements._make(
            sa.text(str(statement).replace(sqlite.NOW, "test_now()")) for statement in Sqlite.statements
        )
        self.engine = sa.create_engine("sqlite://", poolclass=StaticPool, isolation_level="AUTOCOMMIT")
        self.conn = Link(self.engine, {})
        self.conn.raw.create_function("test_now", 0, lambda: self.ms)
        self.dialect.create(self.conn)

    def close(self):
        self.conn.close()
        self.engine.dispose()


class Lease:
    """The model: what a person would write on a card for each key."""

    def __init__(self):
        self.token = 0
        self.holder = None
        self.expires = 0
        self.metadata = None

    def is_held(self, now):
        return self.holder is not None and self.expires > now


class Locks(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.clock = Clock()
        self.cards = {}
        self.grants = []
        self.count = 0

    def teardown(self):
        self.clock.close()

    def card(self, key):
        return self.cards.setdefault(key, Lease())

    @property
    def now(self):
        return self.clock.ms

    @rule(span=st.sampled_from([1, 500, 999, 1000, 1001, 3000]))
    def time_passes(self, span):
        self.clock.ms += span

    @rule(key=KEYS, who=PEOPLE, ttl=SPANS_S, retries=st.integers(0, 2), pick=st.integers(0, 5))
    def acquire(self, key, who, ttl, retries, pick):
        """A new acquisition, or the repetition of an old one; each sent again as after a lost reply."""
        old = [holder for holder, k, _ in self.grants if k == key]
        if pick == 0 and old:
            holder = random.Random(self.count).choice(old)
        else:
            self.count += 1
            holder = f"{who}/{self.count}"
        card = self.card(key)
        for _ in range(retries + 1):
            got = self.clock.dialect.acquire(self.clock.conn, key, holder, ttl, f'{{"by": "{holder}"}}')
            if card.is_held(self.now) and card.holder != holder:
                assert got is None
                continue
            if card.holder != holder:
                card.token += 1
            card.holder, card.expires = holder, self.now + int(ttl * 1000)
            card.metadata = {"by": holder}
            assert (got.token, got.holder, got.metadata) == (card.token, holder, card.metadata)
            assert got.remaining_s == ttl
            self.grants.append((holder, key, card.token))

    @precondition(lambda self: self.grants)
    @rule(ago=st.integers(0, 5), span=SPANS_S, astray=st.sampled_from([None, None, None, "a", "A"]))
    def renew(self, ago, span, astray):
        """Any grant ever given tries to renew, the long dead too, and now and then somebody else's key."""
        holder, key, token = self.grants[-1 - ago % len(self.grants)]
        key = astray or key
        card = self.card(key)
        left = self.clock.dialect.renew(self.clock.conn, key, holder, token, span)
        if card.is_held(self.now) and (card.holder, card.token) == (holder, token):
            card.expires = max(card.expires, self.now + int(span * 1000))
            assert left == (card.expires - self.now) / 1000
        else:
            assert left is None

    @precondition(lambda self: self.grants)
    @rule(ago=st.integers(0, 5), astray=st.sampled_from([None, None, None, "a", "A"]))
    def release(self, ago, astray):
        holder, key, token = self.grants[-1 - ago % len(self.grants)]
        key = astray or key
        card = self.card(key)
        mine = (card.holder, card.token) == (holder, token)
        assert self.clock.dialect.release(self.clock.conn, key, holder, token) == mine
        if mine:
            card.holder, card.expires = None, 0
            assert self.clock.dialect.was_released(self.clock.conn, key, token)
            assert not self.clock.dialect.release(self.clock.conn, key, holder, token)

    @rule()
    def cleanup(self):
        expired = [c for c in self.cards.values() if c.holder is not None and c.expires <= self.now]
        assert self.clock.dialect.cleanup(self.clock.conn) == len(expired)
        for card in expired:
            card.holder = None

    @rule(key=KEYS)
    def force(self, key):
        card = self.card(key)
        was_held = card.holder is not None
        assert self.clock.dialect.force(self.clock.conn, key, "{}") == was_held
        if was_held:
            card.holder, card.expires, card.token = None, 0, card.token + 1

    @invariant()
    def everybody_sees_what_the_cards_say(self):
        held = {key: card for key, card in self.cards.items() if card.is_held(self.now)}
        shown = self.clock.dialect.rows(self.clock.conn)
        assert [info.key for info in shown] == sorted(held)
        for info in shown:
            card = held[info.key]
            assert (info.holder, info.token, info.metadata) == (card.holder, card.token, card.metadata)
            assert info.remaining_s == (card.expires - self.now) / 1000
            assert self.clock.dialect.look(self.clock.conn, info.key) == info
        for key in self.cards:
            if key not in held:
                assert self.clock.dialect.look(self.clock.conn, key) is None

    @invariant()
    def no_two_acquisitions_share_a_token(self):
        holders = {}
        for holder, key, token in self.grants:
            assert holders.setdefault((key, token), holder) == holder

    @invariant()
    def no_row_is_ever_deleted(self):
        found = self.clock.conn.run("SELECT lock_key, fencing_token FROM distributed_locks")
        assert dict(map(tuple, found)) == {key: c.token for key, c in self.cards.items() if c.token}


class Line(RuleBasedStateMachine):
    """The line of a fair lock: first come, first served, among those who still come."""

    def __init__(self):
        super().__init__()
        self.clock = Clock()
        self.line = []

    def teardown(self):
        self.clock.close()

    def living(self, key):
        return [(k, who, until) for k, who, until in self.line if until > self.clock.ms and k == key]

    @rule(span=st.sampled_from([1, 700, 1500, 4000]))
    def time_passes(self, span):
        self.clock.ms += span

    @rule(key=KEYS, who=PEOPLE)
    def stand(self, key, who):
        name = f"{key}/{who}"
        self.clock.dialect.stand(self.clock.conn, key, name, 2.0)
        until = self.clock.ms + 2000
        for n, (k, w, old) in enumerate(self.line):
            if w == name and old > self.clock.ms:
                self.line[n] = (k, w, until)
                return
        self.line.append((key, name, until))

    @rule(key=KEYS, who=PEOPLE)
    def leave(self, key, who):
        name = f"{key}/{who}"
        self.clock.dialect.leave(self.clock.conn, name)
        self.line = [entry for entry in self.line if entry[1] != name]

    @rule()
    def sweep(self):
        self.clock.dialect.cleanup(self.clock.conn)

    @invariant()
    def the_head_is_who_came_first_and_still_comes(self):
        for key in ("a", "A", "a "):
            living = self.living(key)
            assert self.clock.dialect.head(self.clock.conn, key) == (living[0][1] if living else None)


quick = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
TestLocks = Locks.TestCase
TestLocks.settings = quick
TestLine = Line.TestCase
TestLine.settings = quick
