"""`durable-worker operator`: own the state of all runs, on RabbitMQ."""

import asyncio
from pathlib import Path

from durable_worker.cli.connecting import address_of, transport_to
from durable_worker.cli.databases import database_path
from durable_worker.cli.logs import configure
from durable_worker.cli.options import LogFormat, Operate
from durable_worker.cli.serving import Server, StopSignals, run_server, tell
from durable_worker.cli.states import ConnectionReporter, log, warn_of_risks
from durable_worker.operator.options import OperatorOptions
from durable_worker.operator.service import OperatorService
from durable_worker.stores.sqlite import SqliteStore
from durable_worker.version import VERSION


def perform(options: Operate) -> int:
    return run_server(lambda: _prepare(options))


def _prepare(options: Operate) -> Server:
    configure(options.log_format, debug=options.debug)
    address, path = address_of(options.broker), database_path(options.database)
    warn_of_risks(options.broker)
    prefix = options.broker.names.effective_prefix
    if options.log_format is LogFormat.JSON:
        log.info(
            "operating", version=VERSION, broker=address.safe, prefix=prefix, database=str(path)
        )
    else:
        tell(
            f"durable-worker {VERSION} operates the runs of prefix {prefix} on {address.safe}\n"
            f"  database  {path}"
        )
    return _serve(options, path)


async def _serve(options: Operate, path: Path) -> None:
    names = options.broker.names
    transport = transport_to(options.broker, on_state=ConnectionReporter())
    store = SqliteStore(path)
    operator = OperatorService(
        store, transport, names=names, options=OperatorOptions(partition=options.partition)
    )
    async with store, transport:
        serving = asyncio.ensure_future(operator.serve())

        def stop(is_hurrying: bool) -> None:
            if is_hurrying:
                serving.cancel()
            else:
                operator.request_stop()

        with StopSignals(stop):
            await asyncio.wait([serving])
        if not serving.cancelled():
            serving.result()
