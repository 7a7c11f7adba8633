"""`durable-worker run`: serve a Worker on RabbitMQ."""

import asyncio

from durable_worker.cli.banner import announce
from durable_worker.cli.connecting import address_of, token_for, transport_to
from durable_worker.cli.logs import configure
from durable_worker.cli.options import Run
from durable_worker.cli.serving import Server, StopSignals, run_server, settle_memory
from durable_worker.cli.states import ConnectionReporter, warn_of_risks
from durable_worker.cli.targets import load_worker
from durable_worker.transports.rabbitmq.address import BrokerAddress
from durable_worker.worker.options import WorkerOptions
from durable_worker.worker.registry import Worker
from durable_worker.worker.service import WorkerService


def perform(options: Run) -> int:
    return run_server(lambda: _prepare(options))


def _prepare(options: Run) -> Server:
    configure(options.log_format, debug=options.debug)
    address = address_of(options.broker)
    warn_of_risks(options.broker)
    worker = load_worker(options.target)
    announce(
        worker,
        options.target,
        where=f"broker {address.safe}",
        log_format=options.log_format,
        names=options.broker.names,
        partition=options.partition,
    )
    settle_memory()
    return _serve(options, worker, address)


async def _serve(options: Run, worker: Worker, address: BrokerAddress) -> None:
    reporter = ConnectionReporter()
    transport = transport_to(options.broker, on_state=reporter)
    service = WorkerService(
        worker,
        transport,
        names=options.broker.names,
        options=WorkerOptions(
            concurrency=options.concurrency,
            partition=options.partition,
            grace=options.grace,
            renew_after=options.renew_after,
            determinism=options.determinism,
            token=token_for(options.broker),
            place=f"{address.safe} (virtual host {address.vhost})",
        ),
    )
    async with transport:
        serving = asyncio.ensure_future(service.serve())

        def stop(is_hurrying: bool) -> None:
            if reporter.was_connected:
                service.request_stop(hurry=is_hurrying)
            else:
                serving.cancel()  # nothing was ever taken from the broker

        with StopSignals(stop):
            await asyncio.wait([serving])
        if not serving.cancelled():
            serving.result()
