"""A NestJS operator and Python workers that act on signed messages only."""

import json
import secrets
from base64 import b64encode
from pathlib import Path

import pytest
from msgspec import Raw

from durable_worker.protocol.codec import MessageType, encode
from durable_worker.protocol.names import Names
from durable_worker.protocol.results import ResultStatus, StepResult
from durable_worker.transports.base import ERROR_HEADER, Envelope
from durable_worker.transports.rabbitmq import RabbitTransport
from tests.interop.control import Control
from tests.interop.processes import House

pytestmark = [pytest.mark.broker, pytest.mark.anyio]


@pytest.fixture
def signed_house(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[House, Control]:
    """Every process of it finds the keys by its environment."""
    file = tmp_path / "keys.json"
    key = b64encode(secrets.token_bytes(32)).decode()
    file.write_text(json.dumps({"current": "k1", "keys": {"k1": key}}))
    monkeypatch.setenv("DURABLE_SIGNING_KEYS_FILE", str(file))
    control = house.start_operator()
    house.start_worker()
    control.wait_for_groups("py.sum", "py.add")
    return house, control


async def test_typescript_and_python_believe_each_other_and_nobody_else(
    signed_house: tuple[House, Control], broker_url: str
) -> None:
    house, control = signed_house
    assert control.output(control.one_step("py.add", {"a": 2, "b": 3})) == 5
    run_id = control.one_step("py.flaky", 2, retries=3, backoff="fixed", backoffMs=1_500)
    names = Names(prefix=house.prefix)
    forged = StepResult(
        run_id=run_id,
        seq=0,
        step_id=f"{run_id}:0",
        status=ResultStatus.COMPLETED,
        output=Raw(b'"forged"'),
    )
    async with RabbitTransport(broker_url, names=names) as intruder:
        await intruder.wait_connected()
        for queue, headers in ((names.results, {}), (names.dead, {ERROR_HEADER: "made up"})):
            await intruder.declare([queue])
            envelope = Envelope(
                MessageType.STEP_RESULT, encode(forged), f"{run_id}:0:2", headers=headers
            )
            await intruder.send(queue, envelope)
    house.operator.logged("signature_refused")
    assert control.output(run_id) == {"attempt": 3, "stepId": f"{run_id}:0"}
