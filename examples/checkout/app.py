"""A checkout: reserve and charge side by side, wait for approval, cool off, ship.

durable-worker dev examples/checkout/app.py:worker
durable-worker start checkout --id o-1 --input '{"id": "o-1", "sku": "lamp", "amount": "59.90"}'
durable-worker signal approve:o-1 --payload '{"by": "Ada"}'
durable-worker show o-1
"""

import asyncio
import os
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path

import msgspec

from durable_worker import FatalError, Retry, StepContext, Worker, WorkflowContext, current_step

worker = Worker()

COOLING_OFF = timedelta(seconds=float(os.environ.get("CHECKOUT_COOLING_OFF", "3600")))
BANK_SECONDS = float(os.environ.get("CHECKOUT_BANK_SECONDS", "0.2"))
LEDGER = os.environ.get("CHECKOUT_LEDGER")


class Order(msgspec.Struct):
    id: str
    sku: str
    amount: Decimal


class Reservation(msgspec.Struct):
    sku: str
    warehouse: str


class Charge(msgspec.Struct):
    reference: str
    amount: Decimal


class Approval(msgspec.Struct):
    by: str


class Parcel(msgspec.Struct):
    tracking: str


class Receipt(msgspec.Struct):
    order: str
    reference: str
    warehouse: str
    approved_by: str
    tracking: str
    at: datetime


@worker.step("stock.reserve", retries=3)
async def reserve_stock(order: Order, ctx: StepContext) -> Reservation:
    async with ctx.sub_process("warehouse") as lookup:
        lookup.phase("searching", sku=order.sku)
        note("reserved", order.id)
    return Reservation(order.sku, warehouse="Utrecht")


@worker.step(
    "payments.charge-card",
    retries=Retry(attempts=4, initial=timedelta(milliseconds=200), non_retryable=(ValueError,)),
)
async def charge_card(order: Order, ctx: StepContext) -> Charge:
    if order.amount <= 0:
        raise FatalError(f"cannot charge {order.amount}", code="invalid-amount")
    note("charging", order.id)
    await asyncio.sleep(BANK_SECONDS)  # the bank is slow
    # The step id is the same on every attempt, so that the bank can tell a repetition.
    note("charged", order.id)
    ctx.info("charged", reference=ctx.step_id, amount=str(order.amount))
    return Charge(reference=ctx.step_id, amount=order.amount)


@worker.step("shipping.book-courier")
def book_courier(order: dict[str, str]) -> Parcel:
    """A plain function: runs in a thread."""
    note("booked", order["order"])
    current_step().info("courier booked", order=order["order"])
    return Parcel(tracking=f"NL-{order['order'].upper()}")


@worker.workflow("shipping")
async def shipping(ctx: WorkflowContext, order: dict[str, str]) -> Parcel:
    return await ctx.step(book_courier, order)


@worker.workflow("checkout", version="1")
async def checkout(ctx: WorkflowContext, order: Order) -> Receipt:
    stock, charge = await asyncio.gather(
        ctx.step(reserve_stock, order), ctx.step(charge_card, order)
    )
    approval = await ctx.wait_signal(
        f"approve:{order.id}", timeout=timedelta(days=3), returns=Approval
    )
    await ctx.sleep(COOLING_OFF)
    parcel = await ctx.child(shipping, {"order": order.id})
    return Receipt(
        order=order.id,
        reference=charge.reference,
        warehouse=stock.warehouse,
        approved_by=approval.by,
        tracking=parcel.tracking,
        at=ctx.now(),
    )


def note(what: str, order: str) -> None:
    """The outside world's own record of what really happened to it."""
    if LEDGER:
        with Path(LEDGER).open("a") as ledger:
            ledger.write(f"{what} {order}\n")
