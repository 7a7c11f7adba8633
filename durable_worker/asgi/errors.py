"""What a client raises, as responses of a Starlette or FastAPI application."""

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from durable_worker.asgi.app_client import ClientUnavailableError
from durable_worker.errors import (
    ConnectionLostError,
    DurableError,
    NoOperatorError,
    RunEndedError,
    RunExistsError,
    RunNotFoundError,
    UnsupportedRequestError,
)

RETRY_AFTER_SECONDS = 5

Handler = Callable[[Request, Exception], Awaitable[Response]]


def _answering(status: int) -> Handler:
    async def handle(_request: Request, error: Exception) -> Response:
        code = error.code if isinstance(error, DurableError) else None
        headers = {"Retry-After": str(RETRY_AFTER_SECONDS)} if status == 503 else None
        return JSONResponse(
            {"detail": str(error), "code": code}, status_code=status, headers=headers
        )

    return handle


exception_handlers: dict[int | type[Exception], Handler] = {
    ClientUnavailableError: _answering(503),
    ConnectionLostError: _answering(503),
    NoOperatorError: _answering(503),
    RunNotFoundError: _answering(404),
    RunExistsError: _answering(409),
    RunEndedError: _answering(409),
    UnsupportedRequestError: _answering(501),
}
"""For `FastAPI(exception_handlers=...)`: 503 with `Retry-After` while nobody can answer, 404, 409,
and 501 for what the operator cannot do. The body is `{"detail": ..., "code": ...}`."""
