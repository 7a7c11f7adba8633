"""Dead letters: which of them are listed, and which are dropped."""

from durable_worker.stores.mysql.connection import Connection
from durable_worker.stores.mysql.listing import where
from durable_worker.stores.mysql.statements import filled, loaded

_sql = loaded("messages")


def letters_statement(
    *, limit: int, namespace: str | None, run_id: str | None, after: str | None
) -> bytes:
    """Newest first, without bodies."""
    index = b"dead_letters_by_age"
    conditions: list[bytes] = []
    if namespace is not None:
        index = b"dead_letters_of_namespace"
        conditions.append(filled(b"letters.namespace = ?", namespace))
    if run_id is not None:
        index = b"dead_letters_of_run"
        conditions.append(filled(b"letters.run_id = ?", run_id))
    source = b"durable_dead_letters AS letters"
    if after is not None:
        source = b"durable_dead_letters AS mark STRAIGHT_JOIN " + source
        conditions.append(filled(b"mark.id = ?", after))
        conditions.append(
            b"(letters.received_at < mark.received_at "
            b"OR (letters.received_at = mark.received_at AND letters.id < mark.id))"
        )
    return b"%b FROM %b FORCE INDEX (%b) %b %b" % (
        _sql["list_dead_letters"],
        source,
        index,
        where(conditions),
        filled(b"ORDER BY letters.received_at DESC, letters.id DESC LIMIT ?", limit),
    )


async def forget(connection: Connection, *, received_before: int, kept: int) -> int:
    """Within a transaction that holds the lease; returns how many."""
    forgotten = await connection.ask(filled(_sql["forget_older"], received_before))
    surplus = await connection.ask(filled(_sql["first_surplus"], kept))
    if not surplus[0].rows:
        return forgotten[0].count
    received_at, letter_id = surplus[0].rows[0]
    removed = await connection.ask(
        filled(_sql["forget_surplus"], received_at, received_at, letter_id)
    )
    return forgotten[0].count + removed[0].count
