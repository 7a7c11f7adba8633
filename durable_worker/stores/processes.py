"""Which process owns a lease, and whether it still exists."""

import os
import socket
from pathlib import Path

from durable_worker.stores.base import Owner


def this_process(instance_id: str) -> Owner:
    pid = os.getpid()
    return Owner(
        instance_id=instance_id,
        host=socket.gethostname(),
        machine=_machine(),
        pid=pid,
        process_start=_process_start(pid),
    )


def is_gone(owner: Owner) -> bool:
    """True only if it is certain: the process belonged to this machine and exists no longer."""
    if owner.machine != _machine():
        return False
    if owner.process_start is not None:
        return _process_start(owner.pid) != owner.process_start
    try:
        os.kill(owner.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def _machine() -> str:
    # Two containers of one host may share a name and a boot, never a process namespace.
    boot = _read(Path("/proc/sys/kernel/random/boot_id")).strip()
    try:
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        namespace = ""
    return f"{socket.gethostname()} {boot} {namespace}".strip()


def _process_start(pid: int) -> str | None:
    """Start time in clock ticks since boot; None if the process is gone or the system has no /proc.

    A killed process that its parent has not reaped yet counts as gone.
    """
    fields = _read(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
    return fields[19] if len(fields) > 19 and fields[0] not in ("Z", "X") else None


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
