"""The load on handlers of Restate, through its HTTP ingress: one connection for each run at a time.

HTTP by hand, since the client shares two cores with what is measured.
"""

import asyncio
import json
from collections import Counter
from typing import Any
from urllib.parse import urlsplit

from tests.bench import load

plan = load.stated()
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def call(connection: Connection, handler: str, argument: int) -> Any:
    reader, writer = connection
    body = json.dumps(argument).encode()
    writer.write(
        f"POST /bench/{handler} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n".encode()
        + body
    )
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    status, *lines = head.splitlines()
    headers = dict(line.split(": ", 1) for line in lines if line)
    answer = await reader.readexactly(int(headers["content-length"]))
    assert " 200 " in f"{status} ", f"{status}: {answer.decode()[:200]}"
    return json.loads(answer)


async def main() -> None:
    host, port = urlsplit(plan.place).hostname, urlsplit(plan.place).port
    idle = [await asyncio.open_connection(host, port) for _ in range(plan.concurrency)]

    async def run(index: int) -> object:
        connection = idle.pop()
        try:
            return await call(connection, "sequence", index)
        finally:
            idle.append(connection)

    outcome = await load.drive(plan, run)
    load.check_effects(plan, Counter(dict(await call(idle[0], "seen", 0))))
    for _, writer in idle:
        writer.close()
    load.tell(outcome)


asyncio.run(main())
