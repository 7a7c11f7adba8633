"""What lives from one input to the next ends with its file; it logs nothing meanwhile."""

import logging
from collections.abc import Iterator

import pytest
import structlog

from tests.fuzz import operator_handlers, worker_handlers


@pytest.fixture(scope="module", autouse=True)
def quiet_houses() -> Iterator[None]:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    operator_handlers.close()
    worker_handlers.close()
    structlog.reset_defaults()
