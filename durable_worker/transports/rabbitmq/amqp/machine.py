"""The client's side of an AMQP 0-9-1 connection: bytes in, events out; calls in, bytes out.

It knows no socket, no clock and no event loop. What is to be sent gathers in `out`, frame by frame,
in the order in which it must leave.
"""

from collections import deque
from enum import Enum
from typing import Final

from pamqp import commands, frame
from pamqp.base import Frame

from durable_worker.transports.rabbitmq.amqp import events
from durable_worker.transports.rabbitmq.amqp.content import Content, message_at
from durable_worker.transports.rabbitmq.amqp.errors import (
    CHANNEL_ERROR,
    FRAME_ERROR,
    SYNTAX_ERROR,
    UNEXPECTED_FRAME,
    PeerError,
)
from durable_worker.transports.rabbitmq.amqp.frames import (
    ACK,
    BODY,
    DELIVER,
    END,
    FRAME_OVERHEAD,
    HEADER,
    HEARTBEAT,
    HEARTBEAT_FRAME,
    METHOD,
    NACK,
    PREAMBLE,
    PREAMBLE_SIZE,
    PROTOCOL_HEADER,
    RETURN,
    TAG_AND_BITS,
    content_frames,
    publish_frame,
)
from durable_worker.transports.rabbitmq.amqp.handshake import (
    Limits,
    Login,
    agreed,
    introduced,
)
from durable_worker.transports.rabbitmq.amqp.tables import UNREADABLE

_SUCCESS: Final = 200
_ACCESS_REFUSED: Final = 403
_MOST_NAMES: Final = 10_000

_KINDS: Final = frozenset({METHOD, HEADER, BODY, HEARTBEAT})
_CONFIRM_SIZE: Final = 13
_preamble = PREAMBLE.unpack_from

_MALFORMED = (*UNREADABLE, KeyError, TypeError, AttributeError)


class _Phase(Enum):
    GREETING = "greeting"
    LOGIN = "login"
    OPENING = "opening"
    OPEN = "open"
    CLOSING = "closing"
    OVER = "over"


class ChannelState:
    """What was asked for on it and not answered, and the message that is coming in.

    Once it `is_closing`, by whichever side, nothing may be said on it any more.
    """

    __slots__ = ("content", "expected", "is_closing")

    def __init__(self) -> None:
        self.expected: deque[list[str]] = deque()
        self.content: Content | None = None
        self.is_closing = False


class Machine:
    """One connection. `receive` never raises: what the broker must not send ends it, in a
    `Broken`."""

    def __init__(self, login: Login) -> None:
        self.out: list[bytes] = [PROTOCOL_HEADER]
        self.limits = Limits()
        self._login = login
        self._phase = _Phase.GREETING
        self._channels: dict[int, ChannelState] = {}
        self._rest: list[bytes] = []
        self._have = self._need = 0
        self._largest = self.limits.frame - FRAME_OVERHEAD
        self._publishes: dict[tuple[int, str, str, bool], bytes] = {}

    @property
    def is_open(self) -> bool:
        return self._phase is _Phase.OPEN

    @property
    def is_over(self) -> bool:
        """Whether there is nothing more to say."""
        return self._phase is _Phase.OVER

    # Bytes in

    def receive(self, data: bytes) -> list[events.Event]:
        if self._rest:
            self._rest.append(data)
            self._have += len(data)
            if self._have < self._need:
                return []
            data = b"".join(self._rest)
            self._rest.clear()
        found: list[events.Event] = []
        try:
            at = self._read(data, found)
        except PeerError as error:
            self._give_up(error)
            found.append(events.Broken(error.code, error.text))
            return found
        if at < len(data) and self._phase is not _Phase.OVER:
            self._rest.append(data[at:])
            self._have = len(data) - at
        return found

    def _read(self, data: bytes, found: list[events.Event]) -> int:
        """Read whole frames; the place of the first one that is not whole."""
        at, end = 0, len(data)
        self._need = PREAMBLE_SIZE
        while end - at >= PREAMBLE_SIZE and self._phase is not _Phase.OVER:
            kind, number, size = _preamble(data, at)
            if size > self._largest or kind not in _KINDS:
                raise PeerError(FRAME_ERROR, f"a frame of kind {kind} and {size} bytes")
            start = at + PREAMBLE_SIZE
            stop = start + size
            if stop >= end:
                self._need = stop + 1 - at
                break
            if data[stop] != END:
                raise PeerError(FRAME_ERROR, "a frame without its end mark")
            if number == 0:
                if kind != HEARTBEAT:
                    self._on_connection(data[at : stop + 1], found)
                at = stop + 1
            elif kind == METHOD:
                at = self._on_channel(number, data, start, stop, found)
            else:
                self._on_content(number, kind, data[start:stop], found)
                at = stop + 1
        return at

    def _on_channel(
        self, number: int, data: bytes, start: int, stop: int, found: list[events.Event]
    ) -> int:
        """Read a method, and with it all of a message if it is there; the place behind."""
        channel = self._channels.get(number)
        if channel is None:
            raise _not_open(number)
        if channel.content is not None:
            raise PeerError(UNEXPECTED_FRAME, "a method within a message")
        method = data[start : start + 4]
        if method == DELIVER:
            whole = message_at(data, number, start, stop)
            if whole is not None:
                if not channel.is_closing:
                    found.append(whole[0])
                return whole[1]
            channel.content = Content(number, data[start:stop], is_delivery=True)
        elif method in (ACK, NACK):
            if stop - start != _CONFIRM_SIZE:
                raise PeerError(SYNTAX_ERROR, "a confirm of an odd size")
            if not channel.is_closing:
                tag, bits = TAG_AND_BITS.unpack_from(data, start + 4)
                found.append(events.Confirmed(number, tag, bool(bits & 1), method == ACK))
        elif method == RETURN:
            channel.content = Content(number, data[start:stop], is_delivery=False)
        else:
            self._on_method(number, channel, data[start - PREAMBLE_SIZE : stop + 1], found)
        return stop + 1

    def _on_content(
        self, number: int, kind: int, payload: bytes, found: list[events.Event]
    ) -> None:
        channel = self._channels.get(number)
        if channel is None:
            raise _not_open(number)
        content = channel.content
        if content is None or kind == HEARTBEAT:
            raise PeerError(UNEXPECTED_FRAME, "content without its method")
        if kind == HEADER:
            content.begin(payload)
        else:
            content.add(payload)
        if content.is_whole:
            channel.content = None
            if not channel.is_closing:
                found.append(content.event())

    def _on_connection(self, data: bytes, found: list[events.Event]) -> None:
        method = _method_in(data)
        phase = self._phase
        match method:
            case commands.Connection.Close():
                self._say(0, commands.Connection.CloseOk())
                self._phase = _Phase.OVER
                if phase is _Phase.LOGIN and method.reply_code == _ACCESS_REFUSED:
                    found.append(events.LoginFailed(is_offered=True))
                else:
                    found.append(
                        events.ConnectionClosed(method.reply_code or 0, method.reply_text or "")
                    )
            case commands.Connection.CloseOk() if phase is _Phase.CLOSING:
                self._phase = _Phase.OVER
                found.append(events.Ended())
            case _ if phase is _Phase.CLOSING:
                pass
            case commands.Connection.Start() if phase is _Phase.GREETING:
                self._log_in(method, found)
            case commands.Connection.Tune() if phase is _Phase.LOGIN:
                self._tune(method)
            case commands.Connection.OpenOk() if phase is _Phase.OPENING:
                self._phase = _Phase.OPEN
                found.append(events.Opened())
            case commands.Connection.Blocked():
                found.append(events.Blocked(method.reason))
            case commands.Connection.Unblocked():
                found.append(events.Unblocked())
            case _:
                raise PeerError(UNEXPECTED_FRAME, f"{method.name} on channel 0")

    def _log_in(self, start: commands.Connection.Start, found: list[events.Event]) -> None:
        if self._login.mechanism not in start.mechanisms.split():
            self._phase = _Phase.OVER
            found.append(events.LoginFailed(is_offered=False))
            return
        self._phase = _Phase.LOGIN
        self._say(0, introduced(self._login))

    def _tune(self, tune: commands.Connection.Tune) -> None:
        self.limits = limits = agreed(tune)
        self._largest = limits.frame - FRAME_OVERHEAD
        self._phase = _Phase.OPENING
        self._say(
            0,
            commands.Connection.TuneOk(
                channel_max=limits.channels,
                frame_max=limits.frame,
                heartbeat=self._login.heartbeat,
            ),
        )
        self._say(0, commands.Connection.Open(virtual_host=self._login.vhost))

    def _on_method(
        self, number: int, channel: ChannelState, data: bytes, found: list[events.Event]
    ) -> None:
        method = _method_in(data)
        match method:
            case commands.Channel.Close():
                self._say(number, commands.Channel.CloseOk())
                is_ours, channel.is_closing = channel.is_closing, True
                if not is_ours:  # else our own close will be answered, too
                    del self._channels[number]
                    found.append(
                        events.ChannelClosed(
                            number, method.reply_code or 0, method.reply_text or ""
                        )
                    )
            case commands.Channel.CloseOk() if channel.is_closing:
                del self._channels[number]
                found.append(events.ChannelEnded(number))
            case _ if channel.is_closing:
                pass
            case commands.Basic.Cancel():
                if not method.nowait:
                    self._say(number, commands.Basic.CancelOk(method.consumer_tag))
                found.append(events.ConsumerEnded(number, method.consumer_tag or ""))
            case commands.Channel.Flow():
                self._say(number, commands.Channel.FlowOk(active=method.active))
                found.append(events.Flow(number, bool(method.active)))
            case _ if channel.expected and method.name in channel.expected[0]:
                channel.expected.popleft()
                found.append(events.Answer(number, method))
            case _:
                raise PeerError(UNEXPECTED_FRAME, f"{method.name} that nobody asked for")

    def _give_up(self, error: PeerError) -> None:
        is_told = self._phase is not _Phase.GREETING
        self._phase = _Phase.OVER
        if is_told:
            self._say(0, commands.Connection.Close(error.code, error.text[:200], 0, 0))

    # Calls in

    def free_channel(self) -> int | None:
        """A number that no channel has, if there is one."""
        numbers = range(1, self.limits.channels + 1)
        return next((number for number in numbers if number not in self._channels), None)

    def open_channel(self, number: int) -> ChannelState:
        """What is known of it, for its user to see."""
        state = self._channels[number] = ChannelState()
        self.request(number, commands.Channel.Open())
        return state

    def close_channel(self, number: int) -> None:
        """`ChannelEnded` follows, and nothing else of this channel before it."""
        channel = self._channels.get(number)
        if channel is not None and not channel.is_closing:
            channel.is_closing = True
            self._say(number, commands.Channel.Close(_SUCCESS, "", 0, 0))

    def request(self, number: int, method: Frame) -> None:
        """An `Answer` follows, after those to earlier ones on this channel."""
        self._channels[number].expected.append(method.valid_responses)
        self._say(number, method)

    def publish(
        self,
        number: int,
        exchange: str,
        routing_key: str,
        properties: bytes,
        body: bytes,
        *,
        mandatory: bool,
    ) -> None:
        """Raises `ValueError` for names of more than 255 bytes."""
        place = (number, exchange, routing_key, mandatory)
        method = self._publishes.get(place)
        if method is None:
            if len(self._publishes) >= _MOST_NAMES:
                self._publishes.clear()
            method = publish_frame(number, exchange, routing_key, mandatory=mandatory)
            self._publishes[place] = method
        self.out += (method, content_frames(number, properties, body, most=self._largest))

    def beat(self) -> None:
        self.out.append(HEARTBEAT_FRAME)

    def close(self) -> None:
        """Say goodbye; `Ended` follows."""
        if self._phase is _Phase.OPEN:
            self._phase = _Phase.CLOSING
            self._say(0, commands.Connection.Close(_SUCCESS, "normally closed", 0, 0))
        elif self._phase is not _Phase.CLOSING:
            self._phase = _Phase.OVER

    def _say(self, number: int, method: Frame) -> None:
        self.out.append(frame.marshal(method, number))


def _not_open(number: int) -> PeerError:
    return PeerError(CHANNEL_ERROR, f"a frame on channel {number}, which is not open")


def _method_in(data: bytes) -> Frame:
    """`data`: a whole frame."""
    if data[0] != METHOD:
        raise PeerError(UNEXPECTED_FRAME, f"a frame of kind {data[0]} where a method belongs")
    try:
        method = frame.unmarshal(data)[2]
    except _MALFORMED as error:
        raise PeerError(SYNTAX_ERROR, "a method that cannot be decoded") from error
    assert isinstance(method, Frame)
    return method
