"""Whom a server runs as that refuses to be root."""

import os
import pwd
from dataclasses import dataclass

from tests.servers.faults import ServerUnavailableError


@dataclass(frozen=True, slots=True)
class Account:
    user: int
    group: int


def account_of(*names: str) -> Account | None:
    """The first of these that this machine has; None where we are not root and stay who we are.

    Raises `ServerUnavailableError`.
    """
    if os.geteuid() != 0:
        return None
    for name in names:
        try:
            found = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(found.pw_uid, found.pw_gid)
    raise ServerUnavailableError(
        f"a server that refuses to be root needs one of the users {', '.join(names)}, and this "
        f"machine has none of them. Run the tests as another user than root."
    )
