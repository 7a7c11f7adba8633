"""Names on the wire (protocol/README.md, "Names")."""

import pytest

from durable_worker.protocol.names import Names, child_run_id, routing_token, step_id


@pytest.mark.parametrize(
    ("name", "partition", "token"),
    [
        ("charge-card", None, "charge-card"),
        ("charge-card", "", "charge-card"),
        ("charge-card", "default", "charge-card"),
        ("charge-card", "acme", "charge-card@acme"),
        ("payments:charge:card", None, "payments-charge-card"),
        ("payments:charge-card", "acme", "payments-charge-card@acme"),
        ("Billing.charge", "eu:1", "Billing.charge@eu:1"),
        ("größe", "köln", "größe@köln"),
    ],
)
def test_a_routing_token_is_the_name_without_colons_then_the_partition(
    name: str, partition: str | None, token: str
) -> None:
    assert routing_token(name, partition) == token


@pytest.mark.parametrize(
    ("prefix", "namespace", "effective"),
    [
        ("durable", None, "durable"),
        ("durable", "", "durable"),
        ("durable", "default", "durable"),
        ("durable", "acme", "durable-acme"),
        ("shop.eu", "test", "shop.eu-test"),
    ],
)
def test_the_effective_prefix_holds_the_namespace_unless_it_is_the_default(
    prefix: str, namespace: str | None, effective: str
) -> None:
    assert Names(prefix=prefix, namespace=namespace).effective_prefix == effective


def test_every_queue_and_exchange_is_named_under_the_effective_prefix() -> None:
    names = Names(prefix="durable", namespace="acme")
    assert {
        names.tasks(routing_token("payments:charge", "eu")),
        names.results,
        names.decisions,
        names.step_events,
        names.start_run,
        names.run_request,
        names.dead,
        names.control,
        names.heartbeat,
        names.run_reply,
        names.workers,
        names.tenant_events,
    } == {
        "durable-acme-tasks-payments-charge@eu",
        "durable-acme-results",
        "durable-acme-decisions",
        "durable-acme-step-events",
        "durable-acme-start-run",
        "durable-acme-run-request",
        "durable-acme-dead",
        "durable-acme-control",
        "durable-acme-heartbeat",
        "durable-acme-run-reply",
        "durable-acme-workers",
        "durable-acme-tenant-events",
    }


def test_ids_of_steps_and_children_are_made_of_run_and_seq() -> None:
    assert step_id("run-1", 0) == "run-1:0"
    assert child_run_id("run-1", 12) == "run-1.child.12"
    assert step_id(child_run_id("run-1", 12), 3) == "run-1.child.12:3"
