"""Run the checkout, kill its process in the middle of a payment, and watch it go on.

make demo
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).parent
CLI = [sys.executable, "-m", "durable_worker"]
ORDER = '{"id": "o-1", "sku": "lamp", "amount": "59.90"}'


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="durable-demo-") as folder:
        return demo(Path(folder))


def demo(folder: Path) -> int:
    ledger, database = folder / "ledger", folder / "demo.db"
    ledger.touch()
    os.environ |= {
        "CHECKOUT_COOLING_OFF": "1",
        "CHECKOUT_BANK_SECONDS": "1.5",
        "CHECKOUT_LEDGER": str(ledger),
    }
    os.environ.pop("DURABLE_BROKER_URL", None)
    at_database = ["--db", str(database)]

    say("Serve examples/checkout/app.py: operator and worker in one process, state in SQLite")
    server = serve(at_database)
    try:
        wait_until(database.exists, "its database", server)
        say("Start a checkout")
        run("start", "checkout", "--id", "o-1", "--input", ORDER, *at_database)
        wait_for(ledger, "charging o-1", server)
        say("The bank is charging the card. Now: kill -9")
        server.kill()
        server.wait()
        run("show", "o-1", *at_database)

        say("Serve again: the run goes on; the stock is not reserved a second time")
        server = serve(at_database)
        wait_for(ledger, "charged o-1", server)
        say("Approve the order (the run has been waiting for this signal)")
        run("signal", "approve:o-1", "--payload", '{"by": "Ada"}', *at_database)
        say("Wait for the receipt")
        run("start", "checkout", "--id", "o-1", "--input", ORDER, "--wait", *at_database)
        run("show", "o-1", *at_database)
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(30)
    say("What the outside world saw")
    seen = Counter(ledger.read_text().splitlines())
    for what, times in seen.items():
        print(f"  {what:<14} {times} x")
    print(
        "  The payment was cut off once and repeated under the same step id, its idempotency key;\n"
        "  everything that had been recorded before the kill happened once."
    )
    return 0 if seen["reserved o-1"] == 1 and seen["charged o-1"] == 1 else 1


def serve(at_database: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen([*CLI, "dev", f"{HERE / 'app.py'}:worker", "--no-reload", *at_database])


def run(*arguments: str) -> None:
    shown = " ".join(a if a.isprintable() and " " not in a else f"'{a}'" for a in arguments[:-2])
    print(f"$ durable-worker {shown}", flush=True)
    if subprocess.run([*CLI, *arguments], check=False).returncode:
        raise SystemExit("the demo stops here")


def wait_for(ledger: Path, line: str, server: subprocess.Popen[bytes]) -> None:
    wait_until(lambda: line in ledger.read_text(), repr(line), server)


def wait_until(is_so: Callable[[], bool], what: str, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while not is_so():
        if server.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"the demo waited in vain for {what}")
        time.sleep(0.05)


def say(sentence: str) -> None:
    print(
        f"\n\033[1m== {sentence}\033[0m" if sys.stdout.isatty() else f"\n== {sentence}", flush=True
    )


if __name__ == "__main__":
    sys.exit(main())
