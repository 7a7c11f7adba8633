"""The Python half: a risk score for the operator's workflow, and a whole review of a customer.

durable-worker run examples/nestjs-operator/worker.py:worker
"""

import asyncio
import os
from datetime import datetime, timedelta

import msgspec

from durable_worker import StepContext, Worker, WorkflowContext

worker = Worker()

READING_SECONDS = float(os.environ.get("PASSPORT_SECONDS", "6"))
WATCHED_COUNTRIES = {"KP", "XX"}


class Customer(msgspec.Struct):
    id: str
    name: str
    country: str


class Risk(msgspec.Struct):
    level: str
    points: int
    reasons: list[str]


class Passport(msgspec.Struct):
    number: str
    is_genuine: bool


class Turnover(msgspec.Struct):
    iban: str
    euros: int


class Review(msgspec.Struct):
    customer: str
    verdict: str
    passport: str
    iban: str
    report: str
    at: datetime


@worker.step("risk.score")
async def score(customer: Customer, ctx: StepContext) -> Risk:
    reasons = ["lives in a watched country"] if customer.country in WATCHED_COUNTRIES else []
    say(ctx, "scored", customer.id)
    return Risk("high" if reasons else "low", points=80 * len(reasons), reasons=reasons)


@worker.step("kyc.screen-sanctions", retries=3)
async def screen_sanctions(customer: Customer, ctx: StepContext) -> bool:
    """Whether a list of sanctions names the customer."""
    say(ctx, "screened", customer.id)
    return customer.name.casefold() in {"boris the blade"}


@worker.step("kyc.read-passport", retries=3)
async def read_passport(customer: Customer, ctx: StepContext) -> Passport:
    say(ctx, "reading the passport of", customer.id)
    async with ctx.sub_process("scanner") as scanner:
        scanner.phase("reading")
        await asyncio.sleep(READING_SECONDS)  # the scanner is slow: time to kill this process
    say(ctx, "read the passport of", customer.id)
    return Passport(number=f"P-{customer.id.upper()}", is_genuine=True)


@worker.step("kyc.file-report", retries=3)
def file_report(review: dict[str, str]) -> str:
    """A plain function: runs in a thread."""
    print(f"filed the report on {review['customer']}", flush=True)
    return f"report-{review['customer']}.pdf"


@worker.workflow("kyc-report")
async def kyc_report(ctx: WorkflowContext, review: dict[str, str]) -> str:
    await ctx.sleep(timedelta(seconds=2))  # the regulator takes one report every two seconds
    return await ctx.step(file_report, review)


@worker.workflow("kyc-review", version="1")
async def kyc_review(ctx: WorkflowContext, customer: Customer) -> Review:
    is_sanctioned, passport, turnover = await asyncio.gather(
        ctx.step(screen_sanctions, customer),
        ctx.step(read_passport, customer),
        # Served by the NestJS operator: src/customers/accounts.ts.
        ctx.step("accounts.turnover", {"customer": customer.id}, returns=Turnover),
    )
    verdict = "clear" if passport.is_genuine and not is_sanctioned else "suspicious"
    report = await ctx.child(kyc_report, {"customer": customer.id, "verdict": verdict})
    return Review(customer.id, verdict, passport.number, turnover.iban, report, at=ctx.now())


def say(ctx: StepContext, what: str, customer: str) -> None:
    """On the terminal, and in the dashboard's timeline of the run."""
    print(f"{what} {customer}", flush=True)
    ctx.info(f"{what} {customer}", step_id=ctx.step_id, attempt=ctx.attempt)
