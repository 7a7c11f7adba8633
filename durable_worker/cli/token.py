"""`durable-worker token`: issue a tenant token."""

import os
from datetime import UTC, datetime
from pathlib import Path

from durable_worker.cli.key_files import keyring_in
from durable_worker.cli.options import TENANT_KEYS_VARIABLE, Token
from durable_worker.errors import UsageError
from durable_worker.protocol.runs import RequestBody
from durable_worker.protocol.tokens import ANY_TENANT, START, WORKER_ALLOWS, TenantTokens


def perform(options: Token) -> int:
    tokens = TenantTokens(keyring_in(tenant_keys(options.keys)))
    unknown = sorted({*(options.allow or ())} - {START, *_kinds()})
    if unknown:
        raise UsageError(
            f"there is no request {unknown[0]!r}; a token can allow {START}, "
            f"{', '.join(sorted(_kinds()))}."
        )
    is_worker = options.tenant is None
    token = tokens.issue(
        options.tenant if options.tenant is not None else ANY_TENANT,
        expires=datetime.now(UTC) + options.expires,
        allow=WORKER_ALLOWS if is_worker else options.allow,
    )
    print(token, flush=True)
    return 0


def tenant_keys(stated: Path | None) -> Path:
    """Raises `UsageError`."""
    text = os.environ.get(TENANT_KEYS_VARIABLE)
    if stated is None and not text:
        raise UsageError(
            f"which keys? Give --keys FILE or {TENANT_KEYS_VARIABLE}: those of the operator's "
            f"--tenant-keys."
        )
    return stated or Path(text or "")


def _kinds() -> set[str]:
    return {str(each.__struct_config__.tag) for each in RequestBody.__subclasses__()}
