"""`durable-worker operator`: own the state of all runs, on RabbitMQ."""

import asyncio
import os
from pathlib import Path

from durable_worker.cli.connecting import address_of, transport_to
from durable_worker.cli.databases import operators_database, risks_of_database
from durable_worker.cli.key_files import keyring_in
from durable_worker.cli.logs import configure
from durable_worker.cli.options import TENANT_KEYS_VARIABLE, LogFormat, Operate
from durable_worker.cli.serving import Server, StopSignals, run_server, settle_memory, tell
from durable_worker.cli.states import ConnectionReporter, log, warn_of_risks
from durable_worker.cli.waiting import opened
from durable_worker.operator.options import OperatorOptions
from durable_worker.operator.service import OperatorService
from durable_worker.protocol.keys import Keyring
from durable_worker.stores.base import Store
from durable_worker.stores.opening import store_at
from durable_worker.version import VERSION


def perform(options: Operate) -> int:
    return run_server(lambda: _prepare(options))


def _prepare(options: Operate) -> Server:
    configure(options.log_format, debug=options.debug)
    address, where = address_of(options.broker), operators_database(options.database)
    store = store_at(where)
    warn_of_risks(options.broker)
    for name, sentence in risks_of_database(options.database).items():
        log.warning(name, hint=sentence)
    prefix = options.broker.names.effective_prefix
    if options.log_format is LogFormat.JSON:
        log.info(
            "operating", version=VERSION, broker=address.safe, prefix=prefix, database=str(where)
        )
    else:
        tell(
            f"durable-worker {VERSION} operates the runs of prefix {prefix} on {address.safe}\n"
            f"  database  {where}"
        )
    settle_memory()
    return _serve(options, store)


def _tenant_keys(options: Operate) -> Keyring | None:
    path = options.tenant_keys or os.environ.get(TENANT_KEYS_VARIABLE)
    return keyring_in(Path(path)) if path else None


async def _serve(options: Operate, store: Store) -> None:
    names = options.broker.names
    transport = transport_to(options.broker, on_state=ConnectionReporter())
    settings = OperatorOptions(partition=options.partition, tenant_keys=_tenant_keys(options))
    operator = OperatorService(store, transport, names=names, options=settings)
    async with opened(store), transport:
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
