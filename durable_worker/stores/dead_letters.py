"""The dead letters of one tenant: reading them, and asking for one to be sent again."""

from durable_worker.errors import RequestRefusedError
from durable_worker.protocol.letters import DeadLetterRecord
from durable_worker.stores.base import DEFAULT_LIST_LIMIT, Store
from durable_worker.stores.inputs import LetterRedriven
from durable_worker.stores.letters import Refusal, letter_record, redrive_of
from durable_worker.stores.records import DeadLetter, RunState

MOST_AT_ONCE = 1_000
"""Letters in one listing, whatever was asked for."""


class DeadLetters:
    """Refuses what is another tenant's as if it did not exist (`RequestRefusedError`)."""

    def __init__(self, store: Store, *, namespace: str) -> None:
        self._store = store
        self._namespace = namespace

    async def page(
        self, *, limit: int | None = None, after: str | None = None, run_id: str | None = None
    ) -> list[DeadLetterRecord]:
        letters = await self._store.dead_letters(
            limit=min(limit or DEFAULT_LIST_LIMIT, MOST_AT_ONCE),
            namespace=self._namespace,
            run_id=run_id,
            after=after,
        )
        # One run at a time: a history may be large, and is needed for one word.
        return [letter_record(each, await self._state_of(each)) for each in letters]

    async def shown(self, letter_id: str) -> DeadLetterRecord:
        letter = await self._found(letter_id)
        return letter_record(letter, await self._state_of(letter), is_whole=True)

    async def request(self, letter_id: str) -> LetterRedriven | None:
        """What is to be applied; None if the letter has been sent again already."""
        letter = await self._found(letter_id)
        if letter.redriven_at is not None:
            return None
        await self._check(letter)
        return LetterRedriven(letter_id=letter_id, namespace=self._namespace)

    async def redriven(self, letter_id: str) -> DeadLetterRecord:
        """The letter after a request was applied, which it may have hindered until then."""
        letter = await self._found(letter_id)
        if letter.redriven_at is None:
            await self._check(letter)
        return letter_record(letter, await self._state_of(letter))

    async def _check(self, letter: DeadLetter) -> None:
        outcome = redrive_of(letter, await self._state_of(letter))
        if isinstance(outcome, Refusal):
            raise RequestRefusedError(
                f"dead letter {letter.id} cannot be sent again: {outcome.reason}",
                code="redrive-refused",
            )

    async def _found(self, letter_id: str) -> DeadLetter:
        letter = await self._store.dead_letter(letter_id)
        if letter is None or letter.namespace != self._namespace:
            raise RequestRefusedError(
                f"there is no dead letter {letter_id!r}", code="dead-letter-not-found"
            )
        return letter

    async def _state_of(self, letter: DeadLetter) -> RunState | None:
        """Only of a run that is this tenant's."""
        if letter.run_id is None:
            return None
        state = await self._store.load(letter.run_id)
        return state if state is not None and state.run.namespace == self._namespace else None
