"""Which runs a query selects, as SQL that an index serves whatever is asked for."""

from typing import Any

from durable_worker.protocol.runs import RunQuery, RunStatus
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

_TAGGED = """
run_tags JOIN runs ON runs.id = run_tags.id AND runs.namespace = run_tags.namespace
    AND runs.created_at = run_tags.created_at AND runs.tags @> ARRAY[run_tags.tag]
"""


class _Values:
    """The values of a statement, numbered in the order in which they were placed."""

    def __init__(self) -> None:
        self.all: list[Any] = []

    def place(self, value: Any) -> str:
        self.all.append(value)
        return f"${len(self.all)}"

    def text(self, text: str) -> str:
        return f"{self.place(text_in(text))}::text"

    def statuses(self, statuses: list[RunStatus]) -> str:
        return f"{self.place([each.value for each in dict.fromkeys(statuses)])}::text[]"


def list_statement(query: RunQuery, after: RunCursor | None) -> tuple[str, list[Any]]:
    """Newest first. An index orders the runs of one namespace and one status (or one tag), so each
    of these is asked for its newest, and the newest of all are taken."""
    values, statuses = _Values(), wanted_statuses(query)
    limit = min(query.limit or DEFAULT_LIST_LIMIT, LAST_SEQ)
    offset = min(query.offset or 0, LAST_SEQ)
    window = f"{_NEWEST_FIRST} LIMIT {values.place(limit)} OFFSET {values.place(offset)}"
    if statuses is None and query.workflow is None and query.tag is None:
        where = _where(query, values, after=after)
        return f"SELECT * FROM runs {where} {window}", values.all
    homes = "(SELECT namespace FROM known WHERE namespace IS NOT NULL) AS homes"
    if query.namespace is not None:
        homes = f"(SELECT {values.text(stored_namespace(query.namespace))} AS namespace) AS homes"
    reach = f"LIMIT {values.place(limit + offset)}"
    if query.tag is not None:
        where = _where(query, values, "run_tags.namespace = homes.namespace", after=after)
        newest = "ORDER BY run_tags.created_at DESC, run_tags.id DESC"
        found = f"SELECT runs.* FROM {_TAGGED} {where} {newest} {reach}"
    else:
        wanted = values.statuses(list(RunStatus) if statuses is None else statuses)
        homes = f"{homes}, unnest({wanted}) AS wanted (status)"
        theirs = ("runs.namespace = homes.namespace", "runs.status = wanted.status")
        where = _where(query, values, *theirs, after=after)
        found = f"SELECT * FROM runs {where} {_NEWEST_FIRST} {reach}"
    known = _EVERY_HOME if query.namespace is None else ""
    return f"{known} SELECT found.* FROM {homes}, LATERAL ({found}) AS found {window}", values.all


def count_statement(query: RunQuery) -> tuple[str, list[Any]]:
    values = _Values()
    where = _where(query, values)
    source = "runs" if query.tag is None else _TAGGED
    return (
        f"SELECT runs.status, runs.workflow, count(*) FROM {source} {where} "
        f"GROUP BY runs.status, runs.workflow"
    ), values.all


def _where(query: RunQuery, values: _Values, *more: str, after: RunCursor | None = None) -> str:
    """All that the query asks for, but for what `more` says of namespace and status."""
    conditions = list(more)
    if query.namespace is not None and not more:
        conditions.append(f"runs.namespace = {values.text(stored_namespace(query.namespace))}")
    if query.tag is not None:
        conditions.append(f"run_tags.tag = {values.text(query.tag)}")
    if query.workflow is not None:
        conditions.append(f"runs.workflow = {values.text(query.workflow)}")
    if after is not None:
        source = "runs" if query.tag is None else "run_tags"
        behind = f"({values.place(after.created_at)}::bigint, {values.text(after.run_id)})"
        conditions.append(f"({source}.created_at, {source}.id) < {behind}")
    statuses = wanted_statuses(query)
    if statuses is not None and (not more or query.tag is not None):
        conditions.append(f"runs.status = ANY ({values.statuses(statuses)})")
    return f"WHERE {' AND '.join(conditions)}" if conditions else ""
