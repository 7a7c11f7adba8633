"""Which runs a query selects, as SQL that an index serves whatever is asked for."""

from typing import Any

from durable_worker.protocol.runs import RunQuery, RunStatus
from durable_worker.stores.attributes import wanted_labels
from durable_worker.stores.base import (
    DEFAULT_LIST_LIMIT,
    RunCursor,
    stored_namespace,
    wanted_statuses,
)
from durable_worker.stores.postgres.rows import text_in
from durable_worker.stores.records import LAST_SEQ

_NEWEST_FIRST = "ORDER BY created_at DESC, id DESC"

_EVERY_HOME = """
WITH RECURSIVE known (namespace) AS (
    (SELECT namespace FROM runs ORDER BY namespace LIMIT 1)
    UNION ALL
    SELECT (
        SELECT namespace FROM runs WHERE namespace > known.namespace ORDER BY namespace LIMIT 1
    )
    FROM known WHERE known.namespace IS NOT NULL
)
"""
"""The namespaces that there are, each found by one look into an index."""

_BORNE_OUT = (
    "runs.id = run_tags.id",
    "runs.namespace = run_tags.namespace",
    "runs.created_at = run_tags.created_at",
    "runs.tags @> ARRAY[run_tags.tag]",
)
"""Of a row of run_tags, by the run that it names."""


class _Asked:
    """What a query asks for, as conditions; their values are numbered in the order of use."""

    def __init__(self, query: RunQuery, after: RunCursor | None = None) -> None:
        self.query = query
        self.after = after
        self.statuses = wanted_statuses(query)
        self.labels = wanted_labels(query)
        self.values: list[Any] = []

    def place(self, value: Any) -> str:
        self.values.append(value)
        return f"${len(self.values)}"

    def text(self, text: str) -> str:
        return f"{self.place(text_in(text))}::text"

    def among(self, statuses: list[RunStatus]) -> str:
        return f"{self.place([each.value for each in dict.fromkeys(statuses)])}::text[]"

    def namespace(self) -> list[str]:
        asked = self.query.namespace
        return [] if asked is None else [f"runs.namespace = {self.text(stored_namespace(asked))}"]

    def workflow(self) -> list[str]:
        asked = self.query.workflow
        return [] if asked is None else [f"runs.workflow = {self.text(asked)}"]

    def status(self) -> list[str]:
        asked = self.statuses
        return [] if asked is None else [f"runs.status = ANY ({self.among(asked)})"]

    def first_label(self) -> str:
        """By which an index finds the runs."""
        return self.text(self.labels[0])

    def other_labels(self) -> list[str]:
        others = [text_in(each) for each in self.labels[1:]]
        return [f"runs.tags @> {self.place(others)}::text[]"] if others else []

    def behind(self, source: str) -> list[str]:
        """Behind the cursor. Beside equalities of the columns before these, an index is entered at
        this place; a comparison that named those columns, too, would be checked row by row."""
        after = self.after
        if after is None:
            return []
        place = f"{self.place(after.created_at)}::bigint, {self.text(after.run_id)}"
        return [f"({source}.created_at, {source}.id) < ({place})"]


def list_statement(query: RunQuery, after: RunCursor | None) -> tuple[str, list[Any]]:
    """Newest first. An index orders the runs of one namespace and one status (or one tag), so each
    of these is asked for its newest, and the newest of all are taken."""
    asked = _Asked(query, after)
    limit = min(query.limit or DEFAULT_LIST_LIMIT, LAST_SEQ)
    offset = min(query.offset or 0, LAST_SEQ)
    window = f"{_NEWEST_FIRST} LIMIT {asked.place(limit)} OFFSET {asked.place(offset)}"
    known, homes = _EVERY_HOME, "(SELECT namespace FROM known WHERE namespace IS NOT NULL) AS homes"
    if query.namespace is not None:
        home = asked.text(stored_namespace(query.namespace))
        known, homes = "", f"(SELECT {home} AS namespace) AS homes"
    reach = f"LIMIT {asked.place(limit + offset)}"
    if asked.labels:
        where = _where([*_BORNE_OUT, *asked.other_labels(), *asked.workflow(), *asked.status()])
        theirs = ["run_tags.namespace = homes.namespace", f"tag = {asked.first_label()}"]
        # The offset keeps the planner from looking at all runs before it looks for the tag.
        found = (
            f"SELECT runs.* FROM run_tags, LATERAL (SELECT * FROM runs {where} OFFSET 0) AS runs "
            f"{_where([*theirs, *asked.behind('run_tags')])} "
            f"ORDER BY run_tags.created_at DESC, run_tags.id DESC {reach}"
        )
    else:
        wanted = asked.among(list(RunStatus) if asked.statuses is None else asked.statuses)
        homes = f"{homes}, unnest({wanted}) AS wanted (status)"
        theirs = ["runs.namespace = homes.namespace", "runs.status = wanted.status"]
        where = _where([*theirs, *asked.workflow(), *asked.behind("runs")])
        found = f"SELECT * FROM runs {where} {_NEWEST_FIRST} {reach}"
    return f"{known} SELECT found.* FROM {homes}, LATERAL ({found}) AS found {window}", asked.values


def count_statement(query: RunQuery) -> tuple[str, list[Any]]:
    asked = _Asked(query)
    source, conditions = "runs", [*asked.namespace(), *asked.workflow(), *asked.status()]
    if asked.labels:
        source = "runs, run_tags"
        conditions += [*_BORNE_OUT, f"run_tags.tag = {asked.first_label()}", *asked.other_labels()]
    return (
        f"SELECT runs.status, runs.workflow, count(*) FROM {source} {_where(conditions)} "
        f"GROUP BY runs.status, runs.workflow"
    ), asked.values


def _where(conditions: list[str]) -> str:
    return f"WHERE {' AND '.join(conditions)}" if conditions else ""
