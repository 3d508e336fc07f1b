"""The tables as DataFrames.

Law: a frame is read in one turn of the loop, so its rows agree with one another.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from agentflow.cluster import tables
from agentflow.cluster.elections import elections_of
from agentflow.core.control.commands import AttemptState, ClientOp, RegisterWorker, Report, WorkerLost, decode
from agentflow.core.control.plane import Plane
from agentflow.core.control.runs import RunState, State
from agentflow.core.control.wording import said
from agentflow.core.nodes.master import Master, QueueSample
from agentflow.core.raft.messages import Entry, EntryKind
from agentflow.core.record import Record
from agentflow.errors import InvalidConfig
from agentflow.ids import NodeId, RunId, TaskId
from agentflow.rows import Rows, Schema
from agentflow.runtime.trace import vector_clocks as clocks_of
from agentflow.views import find

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd
    from pandas.io.formats.style import Styler

    from agentflow.cluster.run import Run
    from agentflow.locks import LockInfo


def styled(frames: ClusterFrames | RunFrames, table: str) -> Styler:
    """Give a table in colour; those who know the colours are imported now, and not before."""
    draw = find("styled", type(frames))
    assert draw is not None, "registered by the provider of views"
    styler: Styler = draw(frames)(table)
    return styler


class Source(Protocol):
    """What the tables are read from."""

    began: float
    """Unix time at which the run began."""

    @property
    def now(self) -> float:
        """Seconds since then."""
        ...

    def read(self, fn: Callable[[], Any]) -> Any:
        """Call `fn` where nothing changes meanwhile."""
        ...

    def plane(self) -> Plane:
        """The control plane to read from."""
        ...

    def records(self) -> Iterable[Record]:
        """The trace."""
        ...

    def masters_up(self) -> dict[NodeId, Master | None]:
        """Every master's machine, None where it is down."""
        ...

    def heartbeat_ages(self) -> dict[NodeId, float]:
        """Seconds since the leader last heard each worker."""
        ...

    def names_of(self, run: RunId) -> Mapping[TaskId, str]:
        """The names of a run's tasks, where these are not their ids."""
        ...

    def lock_rows(self) -> list[LockInfo]:
        """The locks that are held; asks a database."""
        ...


class ClusterFrames:
    """A cluster's tables. Each method gives a fresh pandas DataFrame; `docs` says what the columns mean."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def _frame(self, schema: Schema, rows: Callable[[], Iterable[Any]]) -> pd.DataFrame:
        data = self._source.read(lambda: list(rows()))
        return Rows(schema, data, self._source.began).to_pandas()

    def __repr__(self) -> str:
        names = [name for name in dir(type(self)) if not name.startswith("_") and name != "docs"]
        return f"<frames: {', '.join(f'{name}()' for name in names)}>"

    @staticmethod
    def docs(table: str) -> pd.DataFrame:
        """Say what each column of a table means.

        Parameters
        ----------
        table : str
            The name of a table: `tasks`, `attempts`, ...
        """
        import pandas as pd

        schema = getattr(tables, table.upper(), None)
        if not isinstance(schema, Schema):
            known = [name.lower() for name in vars(tables) if isinstance(getattr(tables, name), Schema)]
            raise InvalidConfig(f"there is no table {table!r}; there are {', '.join(known)}", field="table")
        dtypes = Rows(schema, []).to_pandas().dtypes
        rows = [(column.name, str(dtypes[column.name]), column.kind, column.doc) for column in schema.columns]
        return pd.DataFrame(rows, columns=["column", "dtype", "kind", "meaning"])

    def tasks(self) -> pd.DataFrame:
        """Every task of every run that is not released."""
        return self._frame(tables.TASKS, lambda: task_rows(self._source, None))

    def attempts(self) -> pd.DataFrame:
        """Every try at a task, those under way included."""
        return self._frame(tables.ATTEMPTS, lambda: attempt_rows(self._source.plane(), None))

    def workers(self) -> pd.DataFrame:
        """Every worker that ever registered."""
        return self._frame(tables.WORKERS, lambda: worker_rows(self._source))

    def nodes(self) -> pd.DataFrame:
        """Every master, with its role, term and log."""
        return self._frame(tables.NODES, lambda: node_rows(self._source.masters_up()))

    def log(self) -> pd.DataFrame:
        """Every entry of every master's log."""
        return self._frame(tables.LOG, lambda: log_rows(self._source.masters_up()))

    def elections(self) -> pd.DataFrame:
        """Every candidacy, won or lost."""
        return self._frame(tables.ELECTIONS, lambda: elections_of(self._source.records()))

    def queue(self) -> pd.DataFrame:
        """Depth of the queue over time."""
        return self._frame(tables.QUEUE, lambda: queue_rows(self._source.records()))

    def messages(self) -> pd.DataFrame:
        """Every message sent, and what became of it."""
        return self._frame(tables.MESSAGES, lambda: message_rows(self._source.records()))

    def events(self, *, vector_clocks: bool = False) -> pd.DataFrame:
        """Every event of the trace that is still kept.

        Parameters
        ----------
        vector_clocks : bool
            Add a column `vector`: for each node how many of its events each event may know of. Of two events
            one can have caused the other only if no entry of its clock is the larger one.
        """
        import pandas as pd

        records = self._source.read(lambda: list(self._source.records()))
        rows = [(*event_row(record), None if record.message < 0 else record.message) for record in records]
        table = self._frame(tables.EVENTS, lambda: rows)
        if vector_clocks:
            table["vector"] = pd.Series(clocks_of(records), index=table.index, dtype=object)
        return table

    def locks(self) -> pd.DataFrame:
        """Every lock that is held now, by tasks, cells and whoever else shares the database."""
        # Asked outside the cluster's turn: a database may take its time, and an election may not.
        began = self._source.began
        data = [
            (
                info.key,
                info.owner,
                info.token,
                info.acquired_at.timestamp() - began,
                info.expires_at.timestamp() - began,
                info.metadata,
            )
            for info in self._source.lock_rows()
        ]
        return Rows(tables.LOCKS, data, began).to_pandas()

    def export(self, dir: str | os.PathLike[str], format: str = "csv") -> list[Path]:  # noqa: A002
        """Write every table to files.

        Parameters
        ----------
        dir : str or path
            The directory to write to; it is made if need be, and files of these names in it are replaced.
        format : {"csv", "parquet", "xlsx", "sqlite"}
            csv and parquet: a file a table; xlsx and sqlite: one file, `agentflow.xlsx` or
            `agentflow.sqlite`. parquet and xlsx need the extra `export`.

        Returns
        -------
        list of pathlib.Path
            What was written; `agentflow.cluster.exporting.read(dir, format)` reads it back.

        Raises
        ------
        InvalidConfig
            If there is no such format, or a table is too long for a sheet; nothing was written.
        MissingExtra
            If the format needs a package that is not installed; nothing was written.
        """
        from agentflow.cluster.exporting import export

        return export(self, dir, format)

    def summary(self) -> pd.DataFrame:
        """Give a row a table: how many rows it has now, and what a row is."""
        from agentflow.cluster.exporting import summary

        return summary(self)

    def styled(self, table: str) -> Styler:
        """Give a table in colour, as a pandas Styler: states, terms and lengths of time stand out."""
        return styled(self, table)


class RunFrames:
    """One run's tables."""

    def __init__(self, source: Source, run: Run) -> None:
        self._source = source
        self._run = run

    def __repr__(self) -> str:
        return f"<frames of {self._run.id}: tasks(), attempts(), results(), errors(), summary(), export(dir)>"

    def _frame(self, schema: Schema, rows: Callable[[], Iterable[Any]]) -> pd.DataFrame:
        data = self._source.read(lambda: list(rows()))
        return Rows(schema, data, self._source.began).to_pandas()

    def tasks(self) -> pd.DataFrame:
        """Every task of the run."""
        return self._frame(tables.TASKS, lambda: task_rows(self._source, self._run.id))

    def attempts(self) -> pd.DataFrame:
        """Every try at one of its tasks."""
        return self._frame(tables.ATTEMPTS, lambda: attempt_rows(self._source.plane(), self._run.id))

    def results(self) -> pd.DataFrame:
        """Every completed task's value."""
        values = self._run._known("skip")
        return Rows(tables.RESULTS, values.items(), self._source.began).to_pandas()

    def errors(self) -> pd.DataFrame:
        """What failed, by exception."""
        return self._frame(tables.ERRORS, lambda: error_rows(self._source.plane().runs.get(self._run.id)))

    def export(self, dir: str | os.PathLike[str], format: str = "csv") -> list[Path]:  # noqa: A002
        """Write each of the run's tables to files.

        Parameters
        ----------
        dir : str or path
            The directory to write to; it is made if need be, and files of these names in it are replaced.
        format : {"csv", "parquet", "xlsx", "sqlite"}
            csv and parquet: a file a table; xlsx and sqlite: one file, `agentflow.xlsx` or
            `agentflow.sqlite`. parquet and xlsx need the extra `export`.

        Returns
        -------
        list of pathlib.Path
            What was written; `agentflow.cluster.exporting.read(dir, format)` reads it back.

        Raises
        ------
        InvalidConfig
            If there is no such format, or a table is too long for a sheet; nothing was written.
        MissingExtra
            If the format needs a package that is not installed; nothing was written.
        """
        from agentflow.cluster.exporting import export

        return export(self, dir, format)

    def summary(self) -> pd.DataFrame:
        """Give a row a table: how many rows it has now, and what a row is."""
        from agentflow.cluster.exporting import summary

        return summary(self)

    def styled(self, table: str) -> Styler:
        """Give a table in colour, as a pandas Styler: states, terms and lengths of time stand out."""
        return styled(self, table)


# --- rows of the control plane ----------------------------------------------------------------------------


def _runs(plane: Plane, only: RunId | None) -> list[RunState]:
    if only is None:
        return list(plane.runs.values())
    return [plane.runs[only]] if only in plane.runs else []


def task_rows(source: Source, only: RunId | None) -> Iterator[tuple[Any, ...]]:
    """Rows of the table `tasks`."""
    plane = source.plane()
    live = {(each.run.id, each.task): each for each in plane.live.values()}
    for run in _runs(plane, only):
        last = {row.task: row for row in run.history}
        names = source.names_of(run.id)
        for task, name in enumerate(run.ids):
            options, row, now = run.option(task), last.get(task), live.get((run.id, task))
            started = None if row is None or now else row.started
            finished = None if row is None or now else row.finished
            ready = run.ready_at[task] if run.ready_at[task] >= 0 else None
            error = run.errors.get(task)
            yield (
                run.id,
                name,
                names.get(name, name),
                State(run.state[task]).name,
                tables.PRIORITIES[options.priority - 1],
                options.group,
                now.worker.id if now else row.worker if row else None,
                run.tries[task],
                run.submitted_at,
                run.submitted_at,
                ready,
                now.assigned if now else started,
                finished,
                None if started is None or ready is None else max(0.0, started - ready),
                None if started is None or finished is None else finished - started,
                row.bytes if row is not None and row.state is AttemptState.COMPLETED else None,
                f"{error.type}: {error.message}" if error else None,
            )


def attempt_rows(plane: Plane, only: RunId | None) -> Iterator[tuple[Any, ...]]:
    """Rows of the table `attempts`: the finished ones in the order they ended, then those under way."""
    for run in _runs(plane, only):
        for row in run.history:
            yield (
                run.id,
                run.ids[row.task],
                row.attempt,
                row.number,
                row.worker,
                row.state.name,
                row.assigned,
                row.started,
                row.finished,
                row.finished - row.started,
                row.cpu,
                row.bytes,
                f"{row.error.type}: {row.error.message}" if row.error else None,
                row.stdout,
            )
        for attempt, live in plane.live.items():
            if live.run is run:
                yield (
                    *(run.id, run.ids[live.task], attempt, live.number, live.worker.id, "RUNNING"),
                    *(live.assigned, None, None, None, None, None, None, None),
                )


def error_rows(run: RunState | None) -> Iterator[tuple[Any, ...]]:
    """Rows of the table `errors`, the most frequent first."""
    if run is None:
        return
    counts: Counter[tuple[str, str]] = Counter()
    first: dict[tuple[str, str], str] = {}
    for task, error in run.errors.items():
        kind = (error.type, error.message)
        counts[kind] += 1
        first.setdefault(kind, run.ids[task])
    for kind, count in counts.most_common():
        yield (*kind, count, first[kind])


def worker_rows(source: Source) -> Iterator[tuple[Any, ...]]:
    """Rows of the table `workers`."""
    ages = source.heartbeat_ages()
    for worker in source.plane().workers.values():
        running = len(worker.running)
        if not worker.alive:
            status = "OFFLINE"
        elif worker.draining:
            status = "DRAINING"
        else:
            status = "BUSY" if running >= worker.slots else "ACTIVE"
        yield (
            worker.id,
            status,
            worker.group,
            worker.load,
            running,
            worker.slots,
            ages.get(worker.id) if worker.alive else None,
            worker.registered_at,
            None if worker.alive else worker.lost_at,
            worker.reason or None,
        )


# --- rows of the masters ----------------------------------------------------------------------------------


def node_rows(masters: dict[NodeId, Master | None]) -> Iterator[tuple[Any, ...]]:
    """Rows of the table `nodes`."""
    for node_id, master in masters.items():
        if master is None:
            yield (node_id, None, None, None, None, None, None, False)
        else:
            raft = master.raft
            yield (
                node_id,
                str(raft.role),
                raft.term,
                raft.leader,
                raft.commit,
                raft.applied,
                raft.last_index,
                True,
            )


def log_rows(masters: dict[NodeId, Master | None]) -> Iterator[tuple[Any, ...]]:
    """Rows of the table `log`."""
    for node_id, master in masters.items():
        if master is None:
            continue
        raft = master.raft
        for entry in raft.log.entries(raft.log.first, raft.last_index + 1):
            kind, summary = describe(entry)
            yield (
                node_id,
                entry.index,
                entry.term,
                kind,
                entry.index <= raft.commit,
                entry.index <= raft.applied,
                summary,
            )


def describe(entry: Entry) -> tuple[str, str]:
    """Say in a few words what an entry holds."""
    if entry.kind is not EntryKind.NORMAL:
        return "configuration", "membership change"
    if not entry.data:
        return "no-op", "a term begins"
    parts: Counter[str] = Counter()
    for op in decode(entry.data).ops:
        if isinstance(op, Report):
            parts["completions"] += len(op.completions)
        elif isinstance(op, ClientOp):
            parts[said(op.command)] += 1
        elif isinstance(op, RegisterWorker | WorkerLost):
            parts[f"{op.__struct_config__.tag} {op.worker}"] += 1
    return "batch", ", ".join(
        f"{name} ×{count}" if count > 1 else name for name, count in parts.items()
    ) or "time"


# --- rows of the trace ------------------------------------------------------------------------------------


def event_row(record: Record) -> tuple[Any, ...]:
    """A row of the table `events`."""
    return (
        record.seq,
        record.time,
        record.time,
        record.node,
        record.kind,
        record.source or None,
        record.destination or None,
        record.type or None,
        None if record.cause < 0 else record.cause,
        record.lamport,
        record.payload,
    )


def message_rows(records: Iterable[Record]) -> list[tuple[Any, ...]]:
    """Rows of the table `messages`; a duplicated message has the fate of its first copy."""
    sent: dict[int, Record] = {}
    fate: dict[int, tuple[str, float, str | None]] = {}
    for record in records:
        if record.kind == "send":
            sent[record.message] = record
        elif record.kind == "deliver" and record.message in sent:
            fate.setdefault(record.message, ("delivered", record.time, None))
        elif record.kind == "drop" and record.message in sent:
            fate.setdefault(record.message, ("dropped", record.time, str(record.payload)))
    return [
        (*event_row(record), number, *fate.get(number, ("in flight", None, None)))
        for number, record in sent.items()
    ]


def queue_rows(records: Iterable[Record]) -> Iterator[tuple[Any, ...]]:
    """Rows of the table `queue`: the samples that leaders took."""
    before: tuple[float, int, int] | None = None
    for record in records:
        sample = record.payload
        if not isinstance(sample, QueueSample):
            continue
        depth = sample.low + sample.medium + sample.high + sample.urgent
        left = sample.entered - depth
        rate_in = rate_out = None
        if before is not None and record.time > before[0]:
            span = record.time - before[0]
            rate_in, rate_out = (sample.entered - before[1]) / span, (left - before[2]) / span
        before = (record.time, sample.entered, left)
        oldest = None if sample.oldest_at is None else record.time - sample.oldest_at
        yield (
            *(record.time, record.time, depth, sample.low, sample.medium, sample.high, sample.urgent),
            *(oldest, rate_in, rate_out),
        )
