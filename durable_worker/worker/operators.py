"""What a worker notices of the operators: that there is none, or one that it cannot talk to."""

import anyio
import structlog

from durable_worker.errors import BrokerRefusedError, ConnectionLostError, ProtocolError
from durable_worker.protocol.codec import WHO
from durable_worker.protocol.descriptor import OUR_PROTOCOL, ProtocolRange, Who
from durable_worker.protocol.names import DEFAULT_NAMESPACE, Names, is_default
from durable_worker.transports.base import Envelope, Transport
from durable_worker.version import VERSION

log = structlog.get_logger("durable_worker.worker")

LOOK_SECONDS = 10.0
PATIENCE_SECONDS = 3.0
"""How long there may be no operator before it is told: one that restarts is back by then."""


class OperatorWatch:
    """Says once that nobody takes the answers of this worker, and once that somebody does again.

    `place` is how people call the broker, virtual host included.
    """

    def __init__(
        self, transport: Transport, names: Names, *, partition: str | None, place: str
    ) -> None:
        self._transport = transport
        self._names = names
        self._place = place
        self._partition = partition
        self._is_missed = False
        self._incompatible: set[str] = set()
        self._news = anyio.Event()

    async def run(self) -> None:
        """Look every now and then, until cancelled or not allowed to."""
        try:
            while True:
                self._news = anyio.Event()
                await self._look()
                with anyio.move_on_after(LOOK_SECONDS):
                    await self._news.wait()
        except BrokerRefusedError as error:
            log.debug("operator_not_looked_for", reason=str(error))

    def on_who(self, envelope: Envelope) -> None:
        """An operator has made itself known."""
        self._news.set()
        try:
            who = WHO.decode(envelope.body)
        except ProtocolError as error:
            log.warning("who_malformed", reason=str(error))
            return
        theirs = who.protocol
        if theirs is None or OUR_PROTOCOL.overlaps(theirs) or who.sender in self._incompatible:
            return
        self._incompatible.add(who.sender)
        _tell_incompatible(who, theirs)

    async def _look(self) -> None:
        is_unattended = await self._is_unattended()
        if is_unattended and not self._is_missed:
            await anyio.sleep(PATIENCE_SECONDS)
            is_unattended = await self._is_unattended()
        if is_unattended is None or is_unattended == self._is_missed:
            return
        self._is_missed = is_unattended
        if is_unattended:
            self._tell_missing()
        else:
            log.info("operator_found", prefix=self._names.effective_prefix)

    async def _is_unattended(self) -> bool | None:
        """Whether answers would lie where nobody takes them; None while the broker is away."""
        try:
            for queue in (self._names.results, self._names.decisions):
                if not await self._transport.consumers(queue):
                    return True
        except ConnectionLostError:
            return None
        return False

    def _tell_missing(self) -> None:
        names = self._names
        namespace = DEFAULT_NAMESPACE if is_default(names.namespace) else names.namespace
        partition = {} if is_default(self._partition) else {"partition": self._partition}
        log.warning(
            "no_operator",
            prefix=names.prefix,
            namespace=namespace,
            broker=self._place,
            **partition,
            hint=f"no task will come: nobody consumes {names.results} and {names.decisions}. "
            f"Start the operator; if it runs, give both the same --prefix and --namespace, and "
            f"the same broker and virtual host.",
        )


def _tell_incompatible(who: Who, theirs: ProtocolRange) -> None:
    is_behind = theirs.range[0] > OUR_PROTOCOL.range[1]
    log.error(
        "operator_incompatible",
        operator=who.sender,
        operator_range=list(theirs.range),
        worker_range=list(OUR_PROTOCOL.range),
        hint="it gives this worker no tasks. "
        + (
            f"Update durable-worker here ({VERSION}) to a version that speaks protocol "
            f"{theirs.range[0]}."
            if is_behind
            else f"Update the operator to a version that speaks protocol {OUR_PROTOCOL.range[0]}."
        ),
    )
