"""What a server left behind."""

from pathlib import Path


def processes_of(home: Path) -> list[str]:
    """Command lines of living processes that mention a server's directory or have it as HOME."""
    found: list[str] = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes()
            if command and bytes(home) in command + (process / "environ").read_bytes():
                found.append(command.replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue
    return found
