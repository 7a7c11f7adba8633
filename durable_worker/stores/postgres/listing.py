"""Which runs a query selects, as SQL that an index serves whatever is asked for."""

from typing import Any

from durable_worker.protocol.runs import RunQuery, RunStatus
from durable_worker.stores.base import DEFAULT_LIST_LIMIT, stored_namespace, wanted_statuses
from durable_worker.stores.postgres.rows import text_in
from durable_worker.stores.records import LAST_SEQ

_NEWEST_FIRST = "ORDER BY created_at DESC, id DESC"


class _Filter:
    """Conditions and their values, numbered in the order in which they were stated."""

    def __init__(self, query: RunQuery) -> None:
        self.values: list[Any] = []
        self.conditions: list[str] = []
        if query.namespace is not None:
            self._state("namespace = {}", text_in(stored_namespace(query.namespace)))
        if query.workflow is not None:
            self._state("workflow = {}", text_in(query.workflow))
        if query.tag is not None:
            # The second half is what the index on tags is restricted to.
            self._state("tags @> ARRAY[{}::text] AND tags <> '{{}}'", text_in(query.tag))

    def _state(self, condition: str, value: Any) -> None:
        self.conditions.append(condition.format(self.place(value)))

    def among(self, statuses: list[RunStatus] | None) -> list[str]:
        return [] if statuses is None else [f"status = ANY ({self.places(statuses)})"]

    def places(self, statuses: list[RunStatus]) -> str:
        wanted = [each.value for each in dict.fromkeys(statuses)]
        return f"{self.place(wanted)}::text[]"

    def place(self, value: Any) -> str:
        self.values.append(value)
        return f"${len(self.values)}"

    def where(self, *more: str) -> str:
        conditions = [*self.conditions, *more]
        return f"WHERE {' AND '.join(conditions)}" if conditions else ""


def list_statement(query: RunQuery) -> tuple[str, list[Any]]:
    """Newest first. Where an index orders the runs of one status, each status is asked for its
    newest, and the newest of these are taken."""
    asked = _Filter(query)
    statuses = wanted_statuses(query)
    limit = min(query.limit or DEFAULT_LIST_LIMIT, LAST_SEQ)
    offset = min(query.offset or 0, LAST_SEQ)
    if statuses is None and query.workflow is not None and query.tag is None:
        statuses = list(RunStatus)
    window = f"LIMIT {asked.place(limit)} OFFSET {asked.place(offset)}"
    if statuses is None or query.namespace is None:
        where = asked.where(*asked.among(statuses))
        return f"SELECT * FROM runs {where} {_NEWEST_FIRST} {window}", asked.values
    wanted, reach = asked.places(statuses), asked.place(limit + offset)
    return (
        f"SELECT found.* FROM unnest({wanted}) AS wanted (status), LATERAL ("
        f"SELECT * FROM runs {asked.where('runs.status = wanted.status')} "
        f"{_NEWEST_FIRST} LIMIT {reach}) AS found {_NEWEST_FIRST} {window}"
    ), asked.values


def count_statement(query: RunQuery) -> tuple[str, list[Any]]:
    asked = _Filter(query)
    where = asked.where(*asked.among(wanted_statuses(query)))
    statement = f"SELECT status, workflow, count(*) FROM runs {where} GROUP BY status, workflow"
    return statement, asked.values
