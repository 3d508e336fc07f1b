"""The settings of a Raft node, refused where they cannot work."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from agentflow.errors import InvalidConfig
from agentflow.ids import NodeId

_FLAGS = (
    "pre_vote",
    "check_quorum",
    "lease_reads",
    "disable_proposal_forwarding",
    "disable_config_validation",
    "step_down_on_removal",
    "apply_before_durable",
    "join",
)
_LIMITS = ("max_inflight_bytes", "max_uncommitted_bytes", "max_committed_bytes_per_ready")


@dataclass(frozen=True, init=True)
class RaftConfig:
    """How a node elects, replicates and limits itself.

    Parameters
    ----------
    election_timeout_ms : float
        T: a follower that hears nothing campaigns after a time drawn anew from [T/2, T). A leader that
        hears from no quorum for T steps down, and gives up a transfer after T.
    heartbeat_interval_ms : float
        How often a leader speaks when it has nothing to say. Below T/2, or followers would campaign
        between two heartbeats.
    replication_timeout_ms : float
        How long a proposer waits before it calls the outcome unknown.
    peers : iterable of str
        The founding members, the same list on every node; one's own id among them is welcome. What a
        stored snapshot says of the membership goes before.
    pre_vote : bool
        Ask whether a vote could be won before raising the term (thesis 9.6).
    check_quorum : bool
        A leader without a quorum steps down, and who has heard a leader lately ignores other candidates
        (thesis 4.2.3, 6.2).
    lease_reads : bool
        Serve linearizable reads without a round trip while a lease holds (thesis 6.4.1). Needs
        `check_quorum`, and clocks whose speeds differ by no more than `max_clock_drift`.
    max_clock_drift : float
        The largest relative difference in speed between two members' clocks.
    max_size_per_message : int
        Bytes of entries in one append; one entry may exceed it.
    max_inflight_messages, max_inflight_bytes
        The window of unacknowledged appends to one follower.
    max_uncommitted_bytes : int or None
        Users' data a leader appends beyond the commit index before it refuses proposals.
    max_committed_bytes_per_ready : int or None
        Entries handed out to be applied and not yet reported applied.
    snapshot_timeout_ms : float or None
        How long a leader waits for word of a snapshot it sent before it takes it for lost; by default ten
        election time-outs.
    disable_proposal_forwarding : bool
        A follower refuses proposals instead of passing them to its leader.
    disable_config_validation : bool
        Do not check membership changes against the configuration in force when they are proposed.
    step_down_on_removal : bool
        A leader that leaves the voters becomes a follower (thesis 4.2.2).
    apply_before_durable : bool
        Hand out committed entries before they are on this node's own disk; they are on a quorum's.
    join : bool
        This node is no founding member: it is in nobody's configuration until a leader adds it.
    election_spread : tuple of float
        The bounds of the draw in units of T.

    Raises
    ------
    InvalidConfig
        With the offending `field`.

    Examples
    --------
    >>> RaftConfig(peers=["a", "b", "c"]).peers
    ('a', 'b', 'c')
    >>> RaftConfig(election_timeout_ms=100, heartbeat_interval_ms=100)
    Traceback (most recent call last):
    ...
    agentflow.errors.InvalidConfig: heartbeat_interval_ms=100 is not below the shortest election time-out,
    50.0 ms; lower it or raise election_timeout_ms=100
    """

    election_timeout_ms: float = 5000
    heartbeat_interval_ms: float = 2000
    replication_timeout_ms: float = 3000
    peers: tuple[NodeId, ...] = ()
    pre_vote: bool = True
    check_quorum: bool = True
    lease_reads: bool = False
    max_clock_drift: float = 0.1
    max_size_per_message: int = 1 << 20
    max_inflight_messages: int = 256
    max_inflight_bytes: int | None = None
    max_uncommitted_bytes: int | None = None
    max_committed_bytes_per_ready: int | None = None
    snapshot_timeout_ms: float | None = None
    disable_proposal_forwarding: bool = False
    disable_config_validation: bool = False
    step_down_on_removal: bool = True
    apply_before_durable: bool = False
    join: bool = False
    election_spread: tuple[float, float] = (0.5, 1.0)

    def __post_init__(self) -> None:
        object.__setattr__(self, "peers", _check_peers(self.peers))
        for field in ("election_timeout_ms", "heartbeat_interval_ms", "replication_timeout_ms"):
            _check_duration(field, getattr(self, field))
        if self.snapshot_timeout_ms is not None:
            _check_duration("snapshot_timeout_ms", self.snapshot_timeout_ms)
        for field in _FLAGS:
            if not isinstance(getattr(self, field), bool):
                raise _invalid(field, getattr(self, field), "is neither True nor False", "use one of them")
        for field in ("max_size_per_message", "max_inflight_messages"):
            _check_limit(field, getattr(self, field))
        for field in _LIMITS:
            if getattr(self, field) is not None:
                _check_limit(field, getattr(self, field))
        self._check_spread()
        self._check_heartbeat()
        self._check_lease()
        inflight = self.max_inflight_bytes
        if inflight is not None and inflight < self.max_size_per_message:
            raise _invalid(
                "max_inflight_bytes",
                inflight,
                f"holds no message of max_size_per_message={self.max_size_per_message}",
                "raise it",
            )

    @classmethod
    def fast(cls, **overrides: Any) -> RaftConfig:
        """Return settings for members that are a memory copy apart: 300 ms and 50 ms.

        Parameters
        ----------
        **overrides
            Any field of `RaftConfig`.

        Examples
        --------
        >>> RaftConfig.fast(pre_vote=False).election_timeout_ms
        300
        """
        return cls(**{"election_timeout_ms": 300, "heartbeat_interval_ms": 50, **overrides})

    def replace(self, **changes: Any) -> RaftConfig:
        """Return these settings with some fields changed.

        Examples
        --------
        >>> RaftConfig.fast().replace(peers=["a"]).peers
        ('a',)
        """
        return dataclasses.replace(self, **changes)

    @property
    def election_timeout(self) -> float:
        """T in seconds."""
        return self.election_timeout_ms / 1000

    @property
    def shortest_election_timeout(self) -> float:
        """The least time without a leader after which a follower campaigns, in seconds."""
        return self.election_timeout * self.election_spread[0]

    @property
    def heartbeat_interval(self) -> float:
        """Seconds between two heartbeats."""
        return self.heartbeat_interval_ms / 1000

    @property
    def snapshot_timeout(self) -> float:
        """Seconds after which a snapshot without an answer is taken for lost."""
        given = self.snapshot_timeout_ms
        return 10 * self.election_timeout if given is None else given / 1000

    @property
    def lease(self) -> float:
        """For how many seconds after its sending an acknowledged heartbeat protects reads."""
        return self.shortest_election_timeout * (1 - self.max_clock_drift)

    def _check_spread(self) -> None:
        spread: object = self.election_spread
        if not (isinstance(spread, tuple) and len(spread) == 2 and 0 < spread[0] < spread[1] < math.inf):
            raise _invalid(
                "election_spread", spread, "is no interval", "give (low, high) with 0 < low < high"
            )

    def _check_heartbeat(self) -> None:
        shortest = self.election_timeout_ms * self.election_spread[0]
        if self.heartbeat_interval_ms >= shortest:
            raise _invalid(
                "heartbeat_interval_ms",
                self.heartbeat_interval_ms,
                f"is not below the shortest election time-out, {shortest} ms",
                f"lower it or raise election_timeout_ms={self.election_timeout_ms}",
            )

    def _check_lease(self) -> None:
        drift: object = self.max_clock_drift
        if isinstance(drift, bool) or not isinstance(drift, int | float) or not 0 <= drift < 1:
            raise _invalid("max_clock_drift", drift, "is no share of a clock's speed", "use 0 <= drift < 1")
        if self.lease_reads and not self.check_quorum:
            raise _invalid(
                "lease_reads", True, "needs members that ignore candidates", "set check_quorum=True too"
            )


def _check_peers(peers: object) -> tuple[NodeId, ...]:
    if isinstance(peers, str) or not isinstance(peers, Iterable):
        raise _invalid("peers", peers, "is no list of names", "pass a list of node ids")
    names = tuple(peers)
    for name in names:
        if not isinstance(name, str) or not name:
            raise _invalid("peers", names, f"contains {name!r}", "node ids are non-empty strings")
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise _invalid("peers", names, f"names {', '.join(doubled)} twice", "name each member once")
    return names


def _check_duration(field: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise _invalid(field, value, "is no number of milliseconds", "use a positive number")
    if value <= 0:
        raise _invalid(field, value, "is not positive", "use a positive number of milliseconds")


def _check_limit(field: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise _invalid(field, value, "is no whole number", "use a positive integer")
    if value <= 0:
        raise _invalid(field, value, "is not positive", "use a positive integer")


def _invalid(field: str, value: object, fact: str, advice: str) -> InvalidConfig:
    return InvalidConfig(f"{field}={value!r} {fact}; {advice}", field=field, value=value)
