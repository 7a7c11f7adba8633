"""A client for the lifetime of a web application (FastAPI, Starlette, any ASGI framework).

    durable = AppClient(lambda: Embedded(worker, database="orders.db"))
    app = FastAPI(lifespan=durable.lifespan, exception_handlers=exception_handlers)

    @app.post("/orders")
    async def create(order: Order, client: Annotated[Client, Depends(durable)]) -> str: ...

`exception_handlers` is in `durable_worker.asgi.errors` and needs Starlette (extra `asgi`).
"""

from durable_worker.asgi.app_client import AppClient, ClientUnavailableError
from durable_worker.asgi.sse import server_sent_events

__all__ = ["AppClient", "ClientUnavailableError", "server_sent_events"]
