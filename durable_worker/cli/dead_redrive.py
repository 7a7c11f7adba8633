"""`durable-worker dead redrive`: have done again what dead letters are about."""

import asyncio
from collections.abc import Sequence

from durable_worker.cli.dead_pages import subject_of
from durable_worker.cli.options import RedriveDead
from durable_worker.cli.places import open_client, what_to_start
from durable_worker.cli.serving import tell
from durable_worker.client import Client
from durable_worker.errors import RequestRefusedError
from durable_worker.protocol.letters import DeadLetterRecord

_PAGE = 100

_OPEN = frozenset({"kept", "failed-step", "failed-run"})
"""Letters that can be redriven, unless something hinders it."""


def perform(options: RedriveDead) -> int:
    return asyncio.run(_redrive(options))


async def _redrive(options: RedriveDead) -> int:
    async with open_client(options.place) as client:
        letter_ids: Sequence[str] = options.letter_ids
        if not letter_ids:
            letter_ids = await _all_open(client, options.run_id)
            if not letter_ids:
                tell("no dead letter that could be redriven")
        asked: list[DeadLetterRecord] = []
        refused = 0
        for each in letter_ids:
            try:
                asked.append(await client.redrive(each))
            except RequestRefusedError as error:
                refused += 1
                tell(str(error))
        refused += await _tell_outcome(client, asked, options)
    return 1 if refused else 0


async def _all_open(client: Client, run_id: str | None) -> list[str]:
    """Oldest first, as they came."""
    found: list[str] = []
    after: str | None = None
    while page := await client.dead_letters(limit=_PAGE, after=after, run_id=run_id):
        found += [each.id for each in page if each.status in _OPEN]
        after = page[-1].id
    return found[::-1]


async def _tell_outcome(
    client: Client, asked: Sequence[DeadLetterRecord], options: RedriveDead
) -> int:
    """Returns how many were refused in the end."""
    refused = 0
    is_waiting = any(each.redriven_at is None for each in asked)
    if is_waiting and not await client.is_taken_up():
        tell(
            f"Recorded, but no operator has taken it up so far; {len(asked)} dead letters will be "
            f"redriven once {what_to_start(options.place)} runs."
        )
        return 0
    for each in asked:
        letter = each if each.redriven_at is not None else await client.dead_letter(each.id)
        if letter.redriven_at is None:
            refused += 1
            tell(f"dead letter {letter.id} was not redriven: its run has gone on meanwhile")
        else:
            about = subject_of(letter)
            tell(f"redriven {letter.id}{': ' if about else ''}{about}")
    return refused
