"""Errors of the client below aio-pika, as errors of ours."""

import asyncio
from collections.abc import Generator
from contextlib import contextmanager

from aiormq.exceptions import (
    AMQPError,
    AuthenticationError,
    ChannelAccessRefused,
    ChannelInvalidStateError,
    ChannelLockedResource,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
    ConnectionClosed,
    DeliveryError,
    ProbableAuthenticationError,
    PublishError,
)

from durable_worker.transports.rabbitmq.amqp.errors import (
    ACCESS_REFUSED,
    NOT_FOUND,
    PRECONDITION_FAILED,
    RESOURCE_LOCKED,
    AmqpError,
    ChannelClosedError,
    ConnectionClosedError,
    GoneError,
    LoginRefusedError,
    NoMechanismError,
    RejectedError,
    ReturnedError,
)

_CHANNEL_CODES = {
    ChannelAccessRefused: ACCESS_REFUSED,
    ChannelNotFoundEntity: NOT_FOUND,
    ChannelLockedResource: RESOURCE_LOCKED,
    ChannelPreconditionFailed: PRECONDITION_FAILED,
}


@contextmanager
def spoken() -> Generator[None]:
    """Turn the library's errors into ours."""
    cancellations = _cancellations()
    try:
        yield
    except asyncio.CancelledError:
        # The library fails what waits on a closed connection with CancelledError.
        if _cancellations() > cancellations:
            raise
        raise GoneError("the connection was closed") from None
    except (AMQPError, OSError, ChannelInvalidStateError, RuntimeError) as error:
        told = error_of(error)
        raise told from (error.__cause__ or error)
    except Exception as error:
        # The library ends calls that wait on a connection it gives up with this very class.
        if type(error) is not Exception:
            raise
        raise GoneError("the connection was closed") from error


def error_of(error: BaseException) -> AmqpError:
    """What an error of the library is to us."""
    text = str(error.args[-1]) if error.args else str(error)
    match error:
        case ProbableAuthenticationError():
            return LoginRefusedError()
        case AuthenticationError():
            return NoMechanismError()
        case ConnectionClosed(args=(int(code), *_)):
            return ConnectionClosedError(code, text)
        case PublishError():
            return ReturnedError()
        case DeliveryError():
            return RejectedError()
        case _ if type(error) in _CHANNEL_CODES:
            return ChannelClosedError(_CHANNEL_CODES[type(error)], text)  # type: ignore[index]
        case _:
            return GoneError(str(error) or type(error).__name__)


def _cancellations() -> int:
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()
