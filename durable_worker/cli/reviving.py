"""The commands that set a run going again, parsed into `options`."""

import typer

from durable_worker.cli.options import Revive
from durable_worker.cli.parameters import (
    Database,
    Debug,
    Namespace,
    Prefix,
    RunId,
    SomeBroker,
    Tenant,
    place_of,
)
from durable_worker.protocol.names import DEFAULT_PREFIX


def _retry(
    run_id: RunId,
    *,
    database: Database = None,
    broker: SomeBroker = None,
    tenant: Tenant = None,
    namespace: Namespace = None,
    prefix: Prefix = DEFAULT_PREFIX,
    debug: Debug = False,
) -> Revive:
    """Take up a run that has failed or is parked, where that happened."""
    place = place_of(database, broker, prefix, namespace, tenant)
    return Revive(place=place, run_id=run_id, way="retry", debug=debug)


def _continue(
    run_id: RunId,
    *,
    database: Database = None,
    broker: SomeBroker = None,
    tenant: Tenant = None,
    namespace: Namespace = None,
    prefix: Prefix = DEFAULT_PREFIX,
    debug: Debug = False,
) -> Revive:
    """Let a run go on that is parked, or rests at a breakpoint."""
    place = place_of(database, broker, prefix, namespace, tenant)
    return Revive(place=place, run_id=run_id, way="continue", debug=debug)


def _redispatch(
    run_id: RunId,
    *,
    database: Database = None,
    broker: SomeBroker = None,
    tenant: Tenant = None,
    namespace: Namespace = None,
    prefix: Prefix = DEFAULT_PREFIX,
    debug: Debug = False,
) -> Revive:
    """Send everything once more that a run waits for from workers."""
    place = place_of(database, broker, prefix, namespace, tenant)
    return Revive(place=place, run_id=run_id, way="redispatch", debug=debug)


def add_to(app: typer.Typer) -> None:
    app.command("retry")(_retry)
    app.command("continue")(_continue)
    app.command("redispatch")(_redispatch)
