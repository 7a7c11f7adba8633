"""Orders over HTTP: a request starts a run, another one streams what happens to it.

    pip install 'durable-worker[asgi]' fastapi uvicorn
    uvicorn app:app --app-dir examples/fastapi_app --timeout-graceful-shutdown 5

Without further settings operator and worker live in this process, on the file orders.db. With
AMQP_URL it is only a client, of `durable-worker operator` and `durable-worker run app:worker`.
"""

import os
from contextlib import AbstractAsyncContextManager
from typing import Annotated

from fastapi import Depends, FastAPI
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from durable_worker import StepContext, Worker, WorkflowContext
from durable_worker.asgi import AppClient, server_sent_events
from durable_worker.asgi.errors import exception_handlers
from durable_worker.client import Client, broker_client
from durable_worker.embedded import Embedded
from durable_worker.protocol.names import Names
from durable_worker.transports.rabbitmq import RabbitTransport


class Order(BaseModel):
    id: str
    cents: int


class Receipt(BaseModel):
    order: str
    payment: str


worker = Worker()


@worker.step("charge", retries=3)
async def charge(order: Order, ctx: StepContext) -> str:
    ctx.info(f"charging {order.cents} cents")
    return f"pay-{order.id}"


@worker.workflow("checkout")
async def checkout(ctx: WorkflowContext, order: Order) -> Receipt:
    payment = await ctx.step(charge, order)
    await ctx.wait_signal(f"packed:{order.id}")
    return Receipt(order=order.id, payment=payment)


def opened() -> AbstractAsyncContextManager[Client]:
    url = os.environ.get("AMQP_URL")
    if url is not None:
        names = Names()
        return broker_client(RabbitTransport(url, names=names), names=names, directory=worker)
    return Embedded(worker, database=os.environ.get("ORDERS_DB", "orders.db"))


durable = AppClient(opened)
app = FastAPI(lifespan=durable.lifespan, exception_handlers=exception_handlers)

Durable = Annotated[Client, Depends(durable)]


@app.post("/orders", status_code=201)
async def create(order: Order, client: Durable) -> dict[str, str]:
    """409 for an order that was created before."""
    handle = await client.start(checkout, order, run_id=f"order-{order.id}", reuse="reject")
    return {"runId": handle.run_id}


@app.post("/orders/{order_id}/packed", status_code=202)
async def packed(order_id: str, client: Durable) -> None:
    handle = client.handle(f"order-{order_id}", checkout)
    await handle.signal(f"packed:{order_id}", signal_id=f"packed:{order_id}")


@app.get("/orders/{order_id}/events")
async def events(order_id: str, client: Durable) -> StreamingResponse:
    """From the beginning, so a browser that connects again misses nothing."""
    handle = await client.get(f"order-{order_id}", checkout)
    stream = server_sent_events(handle.events(history=True))
    return StreamingResponse(stream, media_type="text/event-stream")


@app.get("/orders/{order_id}/receipt")
async def receipt(order_id: str, client: Durable) -> Receipt:
    """Waits for it."""
    return await client.handle(f"order-{order_id}", checkout).result()
