"""Keeps connections from falling silent while somebody's code keeps the event loop busy."""

from math import inf
from threading import Event, Lock, Thread

from durable_worker.transports.rabbitmq.wire import Wire

LOOKS_PER_HEARTBEAT = 3
"""The broker wants a sign of life per heartbeat interval, and gives up after two without one."""


class Pulse:
    """A thread that sends a heartbeat on each connection from which nothing has left for a while.

    It runs from the first connection until `stop`, and does not keep the process alive. A process
    that is stopped altogether falls silent, and so loses its connections, as it should.
    """

    def __init__(self) -> None:
        self._seconds = inf
        self._wires: set[Wire] = set()
        self._lock = Lock()
        self._thread: Thread | None = None
        self._stopping = Event()

    def keep(self, wire: Wire, *, heartbeat: float) -> None:
        """Send heartbeats on this one, too, until it is dropped. `heartbeat` in seconds, 0: none
        was agreed on."""
        if not heartbeat or self._stopping.is_set():
            return
        self._seconds = min(self._seconds, heartbeat / LOOKS_PER_HEARTBEAT)
        with self._lock:
            self._wires.add(wire)
        if self._thread is None:
            self._thread = Thread(target=self._run, name="durable-worker-pulse", daemon=True)
            self._thread.start()

    def drop(self, wire: Wire) -> None:
        with self._lock:
            self._wires.discard(wire)

    def stop(self) -> None:
        """End the thread; returns when it has ended."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(self._seconds):
            with self._lock:
                wires = [*self._wires]
            for wire in wires:
                wire.beat_if_silent()
