"""asyncapi.yaml says the same as the names, the message types and the schemas."""

from typing import Any

import pytest
import yaml

from durable_worker.protocol.base import PROTOCOL_VERSION
from durable_worker.protocol.names import Names
from tests.conformance.protocol.corpus import MESSAGES, PROTOCOL, refs_in, schemas

DOCUMENT: dict[str, Any] = yaml.safe_load((PROTOCOL / "asyncapi.yaml").read_text("utf-8"))
CHANNELS: dict[str, Any] = DOCUMENT["channels"]
OPERATIONS: dict[str, Any] = DOCUMENT["operations"]
WIRE_MESSAGES = {
    key: message
    for key, message in DOCUMENT["components"]["messages"].items()
    if key != "deadLetter"
}

TYPES_BY_ADDRESS = {
    "tasks-{token}": {"step-task", "workflow-task"},
    "turns-{worker}": {"workflow-task"},
    "results": {"step-result"},
    "decisions": {"workflow-decision"},
    "step-events": {"step-event"},
    "start-run": {"start-run"},
    "run-request": {"run-request"},
    "dead": {"dead-letter"},
    "control": {"control"},
    "heartbeat": {"heartbeat"},
    "run-reply": {"run-reply"},
    "workers": {"worker-beat", "worker-descriptor", "who"},
    "tenant-events": {"tenant-event"},
    "tenant-replies": {"run-reply"},
}
WORK_QUEUES = {
    "tasks", "turns", "results", "decisions", "stepEvents", "startRun", "runRequest",
}  # fmt: skip


def _resolved(node: Any) -> Any:
    """`node`, or what its local reference points at."""
    while isinstance(node, dict) and "$ref" in node:
        target: Any = DOCUMENT
        for word in node["$ref"].removeprefix("#/").split("/"):
            target = target[word]
        node = target
    return node


def test_it_is_an_asyncapi_3_document() -> None:
    assert DOCUMENT["asyncapi"] == "3.0.0"
    assert DOCUMENT["defaultContentType"] == "application/json"
    assert set(DOCUMENT) == {
        "asyncapi", "info", "defaultContentType", "channels", "operations", "components",
    }  # fmt: skip


def test_every_reference_resolves_inside_the_document_or_to_a_schema_that_exists() -> None:
    refs = list(refs_in(DOCUMENT))
    assert len(refs) > 50
    for ref in refs:
        if ref.startswith("#/"):
            assert _resolved({"$ref": ref}) is not None
        else:
            assert (PROTOCOL / ref).is_file(), ref


def test_every_message_type_is_there_with_its_own_schema() -> None:
    assert sorted(message["name"] for message in WIRE_MESSAGES.values()) == MESSAGES
    for message in WIRE_MESSAGES.values():
        name = message["name"]
        assert message["bindings"]["amqp"]["messageType"] == name
        assert message["payload"] == {"$ref": f"./schemas/v1/{name}.schema.json"}
        assert schemas()[name]["$id"] == f"urn:durable:v1:{name}"


@pytest.mark.parametrize("key", WIRE_MESSAGES)
def test_every_message_states_content_type_and_protocol_version(key: str) -> None:
    (trait,) = (_resolved(trait) for trait in WIRE_MESSAGES[key]["traits"])
    assert trait["contentType"] == "application/json"
    assert trait["headers"]["required"] == ["durable-protocol"]
    assert trait["headers"]["properties"]["durable-protocol"]["const"] == PROTOCOL_VERSION


def test_every_channel_of_the_binding_is_there_and_carries_its_messages() -> None:
    found = {
        channel["address"].removeprefix("{prefix}-"): {
            _resolved(message)["name"] for message in channel["messages"].values()
        }
        for channel in CHANNELS.values()
    }
    assert found == TYPES_BY_ADDRESS


def test_the_addresses_are_the_names_that_the_code_uses() -> None:
    names = Names(prefix="p")
    assert {channel["address"].replace("{prefix}", "p") for channel in CHANNELS.values()} == {
        names.tasks("{token}"),
        names.turns("{worker}"),
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
        names.tenant_replies,
    }


def test_every_parameter_of_an_address_is_declared() -> None:
    for channel in CHANNELS.values():
        for parameter in channel["parameters"]:
            assert f"{{{parameter}}}" in channel["address"]
        assert channel["address"].count("{") == len(channel["parameters"])


@pytest.mark.parametrize("key", sorted(WORK_QUEUES | {"dead"}))
def test_a_work_queue_is_a_durable_quorum_queue_with_exactly_these_arguments(key: str) -> None:
    binding = _resolved(CHANNELS[key]["bindings"])["amqp"]
    arguments: dict[str, Any] = {"x-queue-type": "quorum"}
    if key != "dead":
        arguments |= {
            "x-delivery-limit": 10,
            "x-overflow": "reject-publish",
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": "{prefix}-dead",
            "x-dead-letter-strategy": "at-least-once",
        }
    if key == "turns":
        arguments |= {"x-message-ttl": 1_000, "x-expires": 60_000}
    assert binding["is"] == "queue"
    assert binding["x-arguments"] == arguments
    assert (binding["queue"]["durable"], binding["queue"]["autoDelete"]) == (True, False)


@pytest.mark.parametrize("key", sorted(set(CHANNELS) - WORK_QUEUES - {"dead"}))
def test_a_broadcast_is_a_durable_exchange_with_private_bounded_queues(key: str) -> None:
    binding = _resolved(CHANNELS[key]["bindings"])["amqp"]
    kind = "topic" if key in ("tenantEvents", "tenantReplies") else "fanout"
    assert binding["is"] == "routingKey"
    assert (binding["exchange"]["type"], binding["exchange"]["durable"]) == (kind, True)
    queue = binding["x-subscriber-queue"]
    assert (queue["exclusive"], queue["autoDelete"]) == (True, True)
    assert queue["x-arguments"]["x-max-length"] == 10_000


def test_every_channel_has_somebody_who_sends_and_somebody_who_receives() -> None:
    used = {(op["action"], op["channel"]["$ref"]) for op in OPERATIONS.values()}
    for key in CHANNELS:
        assert ("send", f"#/channels/{key}") in used
        assert ("receive", f"#/channels/{key}") in used


def test_every_operation_belongs_to_a_role_and_only_work_is_acknowledged() -> None:
    for key, operation in OPERATIONS.items():
        (tag,) = operation["tags"]
        assert key.startswith(tag["name"])
        channel = operation["channel"]["$ref"].rpartition("/")[2]
        is_work = channel in WORK_QUEUES | {"dead"}
        binding = operation.get("bindings", {}).get("amqp", {})
        if operation["action"] == "receive":
            assert binding["ack"] is is_work
        elif is_work:
            assert (binding["deliveryMode"], binding["mandatory"]) == (2, True)


def test_the_messages_of_an_operation_are_messages_of_its_channel() -> None:
    for operation in OPERATIONS.values():
        for message in operation.get("messages", []):
            assert message["$ref"].startswith(operation["channel"]["$ref"] + "/messages/")
