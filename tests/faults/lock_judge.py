"""What a run must show. Every judge is a function of the evidence alone and returns the violations it found.

After Jepsen's and etcd's robustness tests: judged is what the database and the resource saw, because the order in which
processes write their logs says nothing (a process may be stopped between its grant and its note).
"""

from __future__ import annotations

from collections import defaultdict

SLACK_US = 100_000  # between a statement's look at the clock and the trigger's, on a busy machine
NOTE_US = 5_000  # a note is made before the statement is sent, on the same clock; SQLite keeps milliseconds


def accepted_tokens_never_decrease(evidence):
    newest, found = defaultdict(int), []
    for write in sorted(evidence.writes, key=lambda w: w.seq):
        if write.token < newest[write.key]:
            found.append(f"{write.key}: accepted {write.token} after {newest[write.key]} (write {write.seq})")
        newest[write.key] = max(newest[write.key], write.token)
    return found


def no_token_is_granted_twice(evidence):
    newest, holders, found = defaultdict(int), {}, []
    for change in evidence.changes:
        if not change.is_grant:
            continue
        if change.new_token <= newest[change.key]:
            found.append(
                f"{change.key}: token {change.new_token} granted after {newest[change.key]} ({change.seq})"
            )
        newest[change.key] = max(newest[change.key], change.new_token)
    for note in evidence.noted("acquired"):
        first = holders.setdefault((note["key"], note["token"]), note["holder"])
        if first != note["holder"]:
            found.append(f"{note['key']}: token {note['token']} acknowledged to {first} and {note['holder']}")
    return found


def no_acknowledged_acquisition_is_lost(evidence):
    """What a worker was told it has stands in the database's log, and nobody else ends it before it expires."""
    granted = {(c.key, c.new_owner, c.new_token) for c in evidence.changes if c.is_grant}
    acknowledged, found = set(), []
    for note in evidence.noted("acquired"):
        acknowledged.add(note["holder"])
        if (note["key"], note["holder"], note["token"]) not in granted:
            found.append(
                f"{note['key']}: {note['holder']} was told it has token {note['token']}; no row ever said so"
            )
    letting_go = {}
    for note in evidence.noted("releasing"):
        letting_go.setdefault(note["holder"], note["at"])
    for change in evidence.changes:
        holder = change.old_owner
        if holder not in acknowledged or change.new_owner == holder or change.at >= change.old_expires:
            continue
        if letting_go.get(holder, float("inf")) * 1e6 > change.at + NOTE_US:
            found.append(
                f"{change.key}: {holder} lost an unexpired lease it did not give back ({change.seq})"
            )
    return found


def leases_never_overlap(evidence):
    return [
        f"{c.key}: {c.new_owner} took over {(c.old_expires - c.at) / 1e6:.3f} s before {c.old_owner}'s lease ended"
        for c in evidence.changes
        if c.old_owner is not None and c.is_grant and c.at < c.old_expires
    ]


def an_expired_lease_is_never_prolonged(evidence):
    return [
        f"{c.key}: {c.new_owner} prolonged a lease {(c.at - c.old_expires) / 1e6:.3f} s after its end ({c.seq})"
        for c in evidence.changes
        if c.new_owner is not None
        and c.new_owner == c.old_owner
        and c.new_acquired == c.old_acquired
        and c.new_expires > c.old_expires
        and c.at > c.old_expires + SLACK_US
    ]


def no_row_is_deleted_and_no_token_goes_back(evidence):
    newest, found = defaultdict(int), []
    for change in evidence.changes:
        if change.op == "DELETE":
            found.append(f"{change.key}: the row with token {change.old_token} was deleted ({change.seq})")
        elif change.new_token < newest[change.key]:
            found.append(
                f"{change.key}: token went from {newest[change.key]} to {change.new_token} ({change.seq})"
            )
        newest[change.key] = max(newest[change.key], change.new_token or 0)
    return found


def only_holders_write(evidence):
    told = {(note["key"], note["token"], note["holder"]) for note in evidence.noted("acquired")}
    return [
        f"{w.key}: write {w.seq} by {w.holder} with token {w.token}, which it was never given"
        for w in evidence.writes
        if (w.key, w.token, w.holder) not in told
    ]


def there_is_progress_after_healing(evidence):
    """Every worker that lives at the end, and every key that all share, was served again."""
    healed = [note["at"] for note in evidence.noted("healed")]
    if not healed:
        return ["nothing was healed: the run ended too early"]
    later = [note for note in evidence.noted("acquired") if note["at"] > healed[0]]
    served = {note["worker"] for note in later}
    found = [
        f"{note['name']} acquired nothing after healing"
        for note in evidence.noted("alive")
        if note["name"] not in served
    ]
    shared = {note["key"] for note in evidence.noted("acquired") if note["key"].startswith("shared")}
    return found + [
        f"{key} was not acquired after healing" for key in sorted(shared - {n["key"] for n in later})
    ]


SAFETY = (
    accepted_tokens_never_decrease,
    no_token_is_granted_twice,
    no_acknowledged_acquisition_is_lost,
    leases_never_overlap,
    an_expired_lease_is_never_prolonged,
    no_row_is_deleted_and_no_token_goes_back,
    only_holders_write,
)


def stale_attempts(evidence):
    """Writes that came with a token older than one the resource had accepted: refused ones, and let through ones."""
    return len(evidence.noted("refused")) + len(accepted_tokens_never_decrease(evidence))


def landed(evidence, *, ttl_s, restarts):
    """How often each kind of fault really met a holder."""
    pauses = [note["for_s"] for note in evidence.noted("resumed")]
    return {
        "holders paused past their ttl": sum(pause > ttl_s for pause in pauses),
        "holders killed": len(evidence.noted("dying")),
        "stale writes tried": stale_attempts(evidence),
        "holders with skewed clocks": len(
            {note["worker"] for note in evidence.noted("acquired") if abs(note["skew_s"]) > ttl_s}
        ),
        **({"restarts of the database": restarts} if restarts is not None else {}),
    }
