"""The commands that set a run going again, parsed into `options`."""

from collections.abc import Callable

import typer

from durable_worker.cli.options import Revive, Way
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

_WHAT_IT_DOES: dict[Way, str] = {
    "retry": "Take up a run that has failed, or is parked.",
    "continue": "Let a run go on that is parked, or rests at a breakpoint.",
    "redispatch": "Send everything once more that a run waits for from workers.",
}


def _reviving(way: Way) -> Callable[..., Revive]:
    def revive(
        run_id: RunId,
        *,
        database: Database = None,
        broker: SomeBroker = None,
        tenant: Tenant = None,
        namespace: Namespace = None,
        prefix: Prefix = DEFAULT_PREFIX,
        debug: Debug = False,
    ) -> Revive:
        place = place_of(database, broker, prefix, namespace, tenant)
        return Revive(place=place, run_id=run_id, way=way, debug=debug)

    return revive


def add_to(app: typer.Typer) -> None:
    for way, what_it_does in _WHAT_IT_DOES.items():
        app.command(way, help=what_it_does)(_reviving(way))
