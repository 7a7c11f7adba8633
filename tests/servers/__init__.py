"""Servers that tests start for themselves: own ports, own data; gone without a trace."""

from tests.servers.account import Account, account_of
from tests.servers.apart import completed
from tests.servers.faults import ServerUnavailableError
from tests.servers.packages import found_or_installed, install_package
from tests.servers.ports import free_ports
from tests.servers.private import PrivateServer, Program, made_by

__all__ = [
    "Account",
    "PrivateServer",
    "Program",
    "ServerUnavailableError",
    "account_of",
    "completed",
    "found_or_installed",
    "free_ports",
    "install_package",
    "made_by",
]
