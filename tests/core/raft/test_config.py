"""Settings: what they mean, and what is refused."""

from __future__ import annotations

import dataclasses

import pytest

from agentflow.core.raft import RaftConfig
from agentflow.errors import InvalidConfig


def test_the_defaults_are_those_of_the_specification():
    config = RaftConfig()
    assert (config.election_timeout_ms, config.heartbeat_interval_ms, config.replication_timeout_ms) == (
        5000,
        2000,
        3000,
    )
    assert config.pre_vote
    assert config.check_quorum
    assert not config.lease_reads


def test_fast_is_for_members_in_one_kernel():
    config = RaftConfig.fast(peers=["a"], pre_vote=False)
    assert (config.election_timeout_ms, config.heartbeat_interval_ms) == (300, 50)
    assert config.peers == ("a",)
    assert not config.pre_vote


@pytest.mark.parametrize(
    ("field", "settings", "why"),
    [
        ("heartbeat_interval_ms", {"heartbeat_interval_ms": 5000}, "not below"),
        ("heartbeat_interval_ms", {"heartbeat_interval_ms": 2500}, "not below"),
        ("heartbeat_interval_ms", {"election_timeout_ms": 1000}, "not below"),
        ("election_timeout_ms", {"election_timeout_ms": 0}, "not positive"),
        ("election_timeout_ms", {"election_timeout_ms": -1}, "not positive"),
        ("heartbeat_interval_ms", {"heartbeat_interval_ms": 0}, "not positive"),
        ("replication_timeout_ms", {"replication_timeout_ms": 0}, "not positive"),
        ("election_timeout_ms", {"election_timeout_ms": "5s"}, "no number"),
        ("election_timeout_ms", {"election_timeout_ms": True}, "no number"),
        ("election_timeout_ms", {"election_timeout_ms": float("nan")}, "no number"),
        ("election_timeout_ms", {"election_timeout_ms": float("inf")}, "no number"),
        ("peers", {"peers": ["a", "b", "a"]}, "names a twice"),
        ("peers", {"peers": "abc"}, "no list"),
        ("peers", {"peers": 3}, "no list"),
        ("peers", {"peers": ["a", ""]}, "non-empty"),
        ("peers", {"peers": ["a", 2]}, "non-empty"),
        ("pre_vote", {"pre_vote": 1}, "True nor False"),
        ("lease_reads", {"lease_reads": True, "check_quorum": False}, "ignore candidates"),
        ("max_clock_drift", {"max_clock_drift": 1.0}, "share"),
        ("max_clock_drift", {"max_clock_drift": -0.1}, "share"),
        ("max_inflight_messages", {"max_inflight_messages": 0}, "not positive"),
        ("max_inflight_messages", {"max_inflight_messages": 2.5}, "whole number"),
        ("max_size_per_message", {"max_size_per_message": -1}, "not positive"),
        ("max_inflight_bytes", {"max_inflight_bytes": 10}, "holds no message"),
        ("max_uncommitted_bytes", {"max_uncommitted_bytes": 0}, "not positive"),
        ("snapshot_timeout_ms", {"snapshot_timeout_ms": 0}, "not positive"),
        ("election_spread", {"election_spread": (1.0, 0.5)}, "no interval"),
        ("election_spread", {"election_spread": 1.0}, "no interval"),
    ],
)
def test_nonsense_is_refused_with_a_reason(field, settings, why):
    with pytest.raises(InvalidConfig, match=why) as refused:
        RaftConfig(**settings)
    assert refused.value.field == field
    assert field in str(refused.value)


def test_settings_do_not_change():
    with pytest.raises(dataclasses.FrozenInstanceError):
        RaftConfig().pre_vote = False


def test_a_lease_is_shorter_than_anybodys_patience():
    config = RaftConfig(lease_reads=True, max_clock_drift=0.2)
    assert config.lease == pytest.approx(config.shortest_election_timeout * 0.8)


def test_time_outs_are_drawn_from_the_upper_half(solo):
    draws = [
        solo(
            seed=seed, election_timeout_ms=5000, heartbeat_interval_ms=2000, election_spread=(0.5, 1.0)
        ).election_timeout
        for seed in range(200)
    ]
    assert 2.5 <= min(draws) < 2.7
    assert 4.8 < max(draws) < 5.0


def test_the_draws_depend_on_seed_and_name_only(solo):
    def draw(**who):
        return solo(**who).election_timeout

    assert draw(seed=1) == draw(seed=1)
    assert draw(seed=1) != draw(seed=2)
    assert draw(seed=1, id="1") != draw(seed=1, id="2")
