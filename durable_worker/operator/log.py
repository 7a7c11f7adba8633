"""The operator's logger: constant event names, values as fields."""

import structlog
from structlog.typing import FilteringBoundLogger

log: FilteringBoundLogger = structlog.get_logger("durable_worker.operator")
