"""A private PostgreSQL server."""

import signal
from pathlib import Path

from tests.database.programs import Programs, require_programs
from tests.servers import PrivateServer, Program, account_of, free_ports, made_by

DEFAULT_PORT = 5432
READY = "database system is ready to accept connections"


class PostgresServer(PrivateServer):
    def __init__(self, *, programs: Programs | None = None) -> None:
        self._programs = programs or require_programs(DEFAULT_PORT)
        self.port = 0
        super().__init__("the private PostgreSQL", folder="durable-postgres-")

    def url(self, database: str = "postgres", *, user: str = "postgres") -> str:
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}"

    @property
    def pid(self) -> int:
        """Of the process from which all others of the server descend."""
        return int((self.home / "data" / "postmaster.pid").read_text().split()[0])

    def prepared(self) -> Program:
        # It refuses to be root.
        account = account_of("postgres", "nobody")
        data = self.home / "data"
        made_by(_making(self._programs.initdb, data), home=self.home, account=account)
        (self.port,) = free_ports(1)
        return Program(
            (
                *(self._programs.postgres, "-D", str(data)),
                *("-p", str(self.port), "-k", str(self.home)),
                *("-c", "listen_addresses=127.0.0.1", "-c", "max_connections=200"),
            ),
            ready=READY,
            account=account,
            # Disconnect everybody and shut down; like a crash, children included.
            stop=signal.SIGINT,
            kill=signal.SIGQUIT,
        )


def _making(initdb: str, data: Path) -> tuple[str, ...]:
    # The locale keeps its messages, READY among them, in English.
    return (
        *(initdb, "-D", str(data), "-U", "postgres", "-A", "trust"),
        *("-E", "UTF8", "--locale=C", "--no-sync"),
    )
