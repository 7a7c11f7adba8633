"""For tests of applications: recorded runs against today's code."""

from durable_worker.testing.histories import histories, replay_history, save_history

__all__ = ["histories", "replay_history", "save_history"]
