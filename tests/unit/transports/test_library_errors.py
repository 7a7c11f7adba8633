"""What the library says of a connection that is gone, in our words."""

import pytest

from durable_worker.errors import ConnectionLostError
from durable_worker.transports.rabbitmq.fallback_errors import spoken
from durable_worker.transports.rabbitmq.link import translated


async def test_a_call_that_the_library_ends_without_a_reason_was_on_a_lost_connection() -> None:
    told = pytest.raises(ConnectionLostError, match="could not stop consuming")
    with told, translated("stop consuming"), spoken():
        raise Exception  # as the library does


async def test_a_defect_of_ours_is_not_taken_for_a_lost_connection() -> None:
    with pytest.raises(KeyError), translated("stop consuming"), spoken():
        raise KeyError
