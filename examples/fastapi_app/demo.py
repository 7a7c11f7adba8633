"""Serve app.py, order something over HTTP, and print the events of its run as they come."""

import asyncio
import json
import os
import socket
import sys
import tempfile
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import structlog
import uvicorn

sys.path.insert(0, str(Path(__file__).parent))


def post(url: str, body: object = None) -> tuple[int, object]:
    data = b"" if body is None else json.dumps(body).encode()
    request = Request(url, data=data, headers={"Content-Type": "application/json"})
    try:
        with urlopen(request, timeout=30) as response:
            return response.status, json.loads(response.read())
    except HTTPError as refused:
        with refused:
            return refused.code, json.loads(refused.read())


def follow(base: str) -> None:
    """The stream of order o-1: once its payment is there, the parcel is packed."""
    with urlopen(f"{base}/orders/o-1/events", timeout=30) as stream:
        for line in stream:
            kind, _, rest = line.decode().strip().partition(": ")
            if kind != "data":
                continue
            event = json.loads(rest)
            if event["type"] == "run.suspended":
                continue
            detail = event.get("output", event.get("report", ""))
            print(f"{event['type']:<15} {event.get('name', ''):<7} {json.dumps(detail)}")
            if event["type"] == "step.completed":
                print("packed:", post(f"{base}/orders/o-1/packed"))


def shop(base: str) -> None:
    order = {"id": "o-1", "cents": 5990}
    print("ordered:", post(f"{base}/orders", order))
    follow(base)
    with urlopen(f"{base}/orders/o-1/receipt", timeout=30) as response:
        print("receipt:", json.loads(response.read()))
    print("ordered again:", post(f"{base}/orders", order)[0])
    print("packed again:", post(f"{base}/orders/o-1/packed")[0])
    print("packed nothing:", post(f"{base}/orders/nosuch/packed")[0])


async def main() -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    with tempfile.TemporaryDirectory() as directory:
        os.environ["ORDERS_DB"] = f"{directory}/orders.db"
        from app import app

        server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
        with socket.create_server(("127.0.0.1", 0)) as listening:
            base = f"http://127.0.0.1:{listening.getsockname()[1]}"
            async with asyncio.TaskGroup() as group:
                group.create_task(server.serve([listening]))
                await asyncio.to_thread(shop, base)
                server.should_exit = True


asyncio.run(main())
