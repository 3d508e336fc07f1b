"""The tables: what each holds, and how its rows are read from the plane and the trace.

Law: a column's name, kind and meaning are promises. An empty table has the columns of a full one.
"""

from __future__ import annotations

from typing import Final

from agentflow.core.control.commands import AttemptState
from agentflow.core.control.runs import State
from agentflow.rows import ANY, COUNT, FLAG, INSTANT, NUMBER, SECONDS, TEXT, Column, Schema

TASK_STATES: Final = tuple(state.name for state in State)
ATTEMPT_STATES: Final = tuple(state.name for state in AttemptState)
PRIORITIES: Final = ("LOW", "MEDIUM", "HIGH", "URGENT")
ROLES: Final = ("follower", "pre-candidate", "candidate", "leader")
WORKER_STATUSES: Final = ("ACTIVE", "BUSY", "OFFLINE", "DRAINING")
OUTCOMES: Final = ("won", "lost", "undecided")

TASKS: Final = Schema(
    "tasks",
    "a row a task of a run",
    (
        Column("run", TEXT, "the run's id"),
        Column("task", TEXT, "the task's id within its workflow"),
        Column("name", TEXT, "the task's name; its id unless given"),
        Column("state", TEXT, "where it stands", TASK_STATES),
        Column("priority", TEXT, "its priority", PRIORITIES, ordered=True),
        Column("group", TEXT, "the worker group it must run in, if any"),
        Column("worker", TEXT, "the worker of its last attempt"),
        Column("attempts", COUNT, "attempts so far"),
        Column("submitted_at", INSTANT, "when the run was taken by the masters"),
        Column("submitted_s", SECONDS, "the same, in seconds since the start"),
        Column("ready_s", SECONDS, "when it last entered the queue"),
        Column("started_s", SECONDS, "when its last attempt began to run"),
        Column("finished_s", SECONDS, "when its last attempt ended"),
        Column("wait_s", SECONDS, "from ready to started"),
        Column("run_s", SECONDS, "from started to finished"),
        Column("result_bytes", COUNT, "size of its value, roughly"),
        Column("error", TEXT, "type and message of the exception that failed it"),
    ),
)

ATTEMPTS: Final = Schema(
    "attempts",
    "a row a try at a task",
    (
        Column("run", TEXT, "the run's id"),
        Column("task", TEXT, "the task's id"),
        Column("attempt", COUNT, "number of the attempt, unique in the cluster"),
        Column("number", COUNT, "the how-many-eth try at this task, from 1"),
        Column("worker", TEXT, "where it ran"),
        Column("state", TEXT, "how it ended", ATTEMPT_STATES),
        Column("assigned_s", SECONDS, "when it was given to the worker"),
        Column("started_s", SECONDS, "when it began to run"),
        Column("finished_s", SECONDS, "when it ended, or was given up"),
        Column("run_s", SECONDS, "from started to finished"),
        Column("cpu_s", SECONDS, "processor time it took"),
        Column("bytes", COUNT, "size of the value it returned, roughly"),
        Column("error", TEXT, "type and message of its exception"),
        Column("stdout", TEXT, "what it printed"),
    ),
)

RESULTS: Final = Schema(
    "results",
    "a row a completed task",
    (Column("task", TEXT, "the task's id"), Column("value", ANY, "what it returned")),
)

ERRORS: Final = Schema(
    "errors",
    "a row a kind of exception",
    (
        Column("exception", TEXT, "its type"),
        Column("message", TEXT, "its message"),
        Column("count", COUNT, "tasks that failed with it"),
        Column("first_task", TEXT, "the first of them"),
    ),
)

ELECTIONS: Final = Schema(
    "elections",
    "a row a candidacy",
    (
        Column("term", COUNT, "the term stood for"),
        Column("candidate", TEXT, "who stood"),
        Column("outcome", TEXT, "how it ended", OUTCOMES),
        Column("votes", COUNT, "votes granted, its own included"),
        Column("voters", COUNT, "how many could vote"),
        Column("started_at", INSTANT, "when it became a candidate"),
        Column("started_s", SECONDS, "the same, in seconds since the start"),
        Column("decided_s", SECONDS, "when it won or gave up"),
        Column("duration_s", SECONDS, "from started to decided"),
        Column("cause", TEXT, "why it stood"),
    ),
)

NODES: Final = Schema(
    "nodes",
    "a row a master",
    (
        Column("id", TEXT, "its name"),
        Column("role", TEXT, "its role; none while it is down", ROLES),
        Column("term", COUNT, "its term"),
        Column("leader", TEXT, "whom it follows"),
        Column("commit", COUNT, "its commit index"),
        Column("applied", COUNT, "its applied index"),
        Column("last_index", COUNT, "the last entry of its log"),
        Column("alive", FLAG, "whether it is up"),
    ),
)

WORKERS: Final = Schema(
    "workers",
    "a row a registered worker",
    (
        Column("id", TEXT, "its name"),
        Column("status", TEXT, "what it does", WORKER_STATUSES),
        Column("group", TEXT, "its group"),
        Column("load", NUMBER, "its load score; lower is better"),
        Column("running", COUNT, "attempts it has now"),
        Column("max_tasks", COUNT, "attempts it takes at once"),
        Column("heartbeat_age_s", SECONDS, "since the leader last heard it"),
        Column("registered_s", SECONDS, "when it registered"),
        Column("lost_s", SECONDS, "when it was declared dead"),
        Column("reason", TEXT, "why"),
    ),
)

LOG: Final = Schema(
    "log",
    "a row an entry of a master's log",
    (
        Column("node", TEXT, "whose log"),
        Column("index", COUNT, "its position"),
        Column("term", COUNT, "the term it was proposed in"),
        Column("kind", TEXT, "no-op, batch or configuration"),
        Column("committed", FLAG, "whether that master knows it committed"),
        Column("applied", FLAG, "whether that master has applied it"),
        Column("summary", TEXT, "what it says"),
    ),
)

QUEUE: Final = Schema(
    "queue",
    "a row each time the depth of the queue changed",
    (
        Column("time_at", INSTANT, "when"),
        Column("time_s", SECONDS, "the same, in seconds since the start"),
        Column("depth", COUNT, "tasks that wait for a worker"),
        Column("low", COUNT, "of them LOW"),
        Column("medium", COUNT, "of them MEDIUM"),
        Column("high", COUNT, "of them HIGH"),
        Column("urgent", COUNT, "of them URGENT"),
        Column("oldest_s", SECONDS, "how long the oldest of them waits"),
        Column("rate_in", NUMBER, "tasks a second that entered since the row before"),
        Column("rate_out", NUMBER, "tasks a second that left since the row before"),
    ),
)

LOCKS: Final = Schema(
    "locks",
    "a row a lock that is held now",
    (
        Column("key", TEXT, "what it protects"),
        Column("owner", TEXT, "who holds it: a worker for its task, or notebook"),
        Column("token", COUNT, "fencing token: larger than that of every earlier holder"),
        Column("acquired_at", INSTANT, "since when, by the database's clock"),
        Column("expires_at", INSTANT, "until when, unless it is renewed; by the database's clock"),
        Column("metadata", ANY, "what the holder left beside it; for a task its run, task and attempt"),
    ),
)

_TRACE_COLUMNS: Final = (
    Column("seq", COUNT, "number of the event"),
    Column("time_at", INSTANT, "when"),
    Column("time_s", SECONDS, "the same, in seconds since the start"),
    Column("node", TEXT, "where it happened"),
    Column("kind", TEXT, "what happened"),
    Column("source", TEXT, "who sent the message"),
    Column("destination", TEXT, "to whom"),
    Column("type", TEXT, "type of the message, or a finer word for the kind"),
    Column("cause", COUNT, "number of the event that led to it"),
    Column("lamport", COUNT, "Lamport clock of the node"),
    Column("payload", ANY, "the message, write or note itself"),
)

EVENTS: Final = Schema(
    "events",
    "a row an event of the trace",
    (*_TRACE_COLUMNS, Column("message", COUNT, "number of the message it is about")),
)

MESSAGES: Final = Schema(
    "messages",
    "a row a message sent",
    (
        *_TRACE_COLUMNS,
        Column("message", COUNT, "number of the message"),
        Column("outcome", TEXT, "what became of it", ("delivered", "dropped", "in flight")),
        Column("arrived_s", SECONDS, "when it was delivered or dropped"),
        Column("reason", TEXT, "why it was dropped"),
    ),
)
