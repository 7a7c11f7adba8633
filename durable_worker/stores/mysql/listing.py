"""Which runs a query selects, as SQL that an index serves whatever is asked for.

An index orders the runs of one namespace and one status, or one tag. So each of these is asked for
its newest runs, along an index that is named here, and the newest of all are taken.
"""

from collections.abc import Iterable, Sequence

from durable_worker.protocol.runs import RunQuery, RunStatus
from durable_worker.stores.attributes import wanted_labels
from durable_worker.stores.base import (
    DEFAULT_LIST_LIMIT,
    RunCursor,
    stored_namespace,
    wanted_statuses,
)
from durable_worker.stores.mysql.rows import tag_mark
from durable_worker.stores.mysql.statements import filled, loaded
from durable_worker.stores.records import LAST_SEQ

_sql = loaded("runs")

_TAGGED = (
    b"durable_run_tags AS tagged STRAIGHT_JOIN durable_runs AS runs ON runs.id = tagged.id "
    b"AND runs.namespace = tagged.namespace AND runs.created_at = tagged.created_at"
)
"""With `_borne_out`: a row of durable_run_tags may be about what a run was once."""


def needs_namespaces(query: RunQuery) -> bool:
    """Whether the runs of each namespace have to be asked for by themselves."""
    is_plain = (
        wanted_statuses(query) is None and query.workflow is None and not wanted_labels(query)
    )
    return query.namespace is None and not is_plain


def list_statement(
    query: RunQuery, after: RunCursor | None, namespaces: Sequence[str] = ()
) -> bytes | None:
    """One page of the newest, in any order; None if there can be none. `namespaces`: those that
    there are, if `needs_namespaces`."""
    limit = min(query.limit or DEFAULT_LIST_LIMIT, LAST_SEQ)
    offset = min(query.offset or 0, LAST_SEQ)
    parts = [
        b"(%b %b)" % (each, filled(b"LIMIT ?", min(limit + offset, LAST_SEQ)))
        for each in _parts(query, after, namespaces)
    ]
    if not parts:
        return None
    window = filled(b"ORDER BY created_at DESC, id DESC LIMIT ? OFFSET ?", limit, offset)
    return _sql["page_of_runs"].replace(b"?", b"%b %b" % (b" UNION ALL ".join(parts), window))


def _parts(query: RunQuery, after: RunCursor | None, namespaces: Sequence[str]) -> list[bytes]:
    homes = namespaces if query.namespace is None else [stored_namespace(query.namespace)]
    statuses = wanted_statuses(query)
    labels = wanted_labels(query)
    if labels:
        return [_labelled(query, labels, after, home) for home in homes]
    if statuses is None and query.workflow is None:
        if query.namespace is None:
            return [_selected(b"runs_by_age", after)]
        return [_selected(b"runs_of_namespace", after, filled(b"runs.namespace = ?", homes[0]))]
    wanted = list(RunStatus) if statuses is None else list(dict.fromkeys(statuses))
    index, workflow = b"runs_by_status", b"TRUE"
    if query.workflow is not None:
        index, workflow = b"runs_by_workflow", filled(b"runs.workflow = ?", query.workflow)
    return [
        _selected(
            index, after, filled(b"runs.namespace = ? AND runs.status = ?", home, status), workflow
        )
        for home in homes
        for status in wanted
    ]


def count_statement(query: RunQuery) -> bytes:
    conditions = _filters(query)
    if query.namespace is not None:
        conditions.append(filled(b"runs.namespace = ?", stored_namespace(query.namespace)))
    source = b"durable_runs AS runs FORCE INDEX (runs_by_workflow)"
    labels = wanted_labels(query)
    if labels:
        source = _TAGGED
        conditions += [filled(b"tagged.tag = ?", labels[0]), *map(_borne_out, labels)]
        if query.namespace is not None:
            conditions.append(filled(b"tagged.namespace = ?", stored_namespace(query.namespace)))
    return (
        b"SELECT runs.status, runs.workflow, COUNT(*) FROM %b %b "
        b"GROUP BY runs.status, runs.workflow" % (source, where(conditions))
    )


def _selected(index: bytes, after: RunCursor | None, *conditions: bytes) -> bytes:
    return (
        b"SELECT runs.created_at, runs.id FROM durable_runs AS runs FORCE INDEX (%b) %b "
        b"ORDER BY runs.created_at DESC, runs.id DESC"
        % (index, where([*conditions, *_behind(b"runs", after)]))
    )


def _labelled(
    query: RunQuery, labels: Sequence[str], after: RunCursor | None, namespace: str
) -> bytes:
    """An index finds the runs by the first of them."""
    conditions = [
        filled(b"tagged.namespace = ? AND tagged.tag = ?", namespace, labels[0]),
        *map(_borne_out, labels),
        *_filters(query),
        *_behind(b"tagged", after),
    ]
    return (
        b"SELECT tagged.created_at, tagged.id FROM %b %b "
        b"ORDER BY tagged.created_at DESC, tagged.id DESC" % (_TAGGED, where(conditions))
    )


def _filters(query: RunQuery) -> list[bytes]:
    """By workflow and by status."""
    conditions: list[bytes] = []
    statuses = wanted_statuses(query)
    if query.workflow is not None:
        conditions.append(filled(b"runs.workflow = ?", query.workflow))
    if statuses is not None:
        conditions.append(filled(b"runs.status IN ?", statuses) if statuses else b"FALSE")
    return conditions


def _borne_out(tag: str) -> bytes:
    return filled(b"LOCATE(?, runs.tags) > 0", tag_mark(tag))


def _behind(source: bytes, after: RunCursor | None) -> list[bytes]:
    """Behind the cursor: spelled out, since a comparison of pairs goes along no index."""
    if after is None:
        return []
    at, run_id = after.created_at, after.run_id
    condition = b"(S.created_at < ? OR (S.created_at = ? AND S.id < ?))".replace(b"S", source)
    return [filled(condition, at, at, run_id)]


def where(conditions: Iterable[bytes]) -> bytes:
    joined = b" AND ".join(conditions)
    return b"WHERE %b" % joined if joined else b""
