"""Compress, encrypt, sign and store elsewhere what travels between processes.

ring = Keyring({"2026-11": key, "2026-05": old_key}, current="2026-11")
codec = PayloadCodec(Compress(), Encrypt(ring), ClaimCheck(FileBlobs("/var/blobs")))
worker = Worker(codec=codec)
client = broker_client(transport, codec=codec)
"""

from durable_worker.edge.errors import (
    BlobMissingError,
    BlobStoreError,
    PayloadKeyMissingError,
    PayloadNotSealedError,
    PayloadSealedError,
    PayloadTamperedError,
    PayloadTooBigError,
    SealError,
)
from durable_worker.payloads.claim_check import BlobStore, ClaimCheck
from durable_worker.payloads.codec import PayloadCodec
from durable_worker.payloads.compression import Compress
from durable_worker.payloads.encryption import Encrypt
from durable_worker.payloads.files import FileBlobs
from durable_worker.payloads.remote import FsspecBlobs
from durable_worker.payloads.signing import Sign
from durable_worker.payloads.stages import Stage
from durable_worker.protocol.keys import Keyring

__all__ = [
    "BlobMissingError",
    "BlobStore",
    "BlobStoreError",
    "ClaimCheck",
    "Compress",
    "Encrypt",
    "FileBlobs",
    "FsspecBlobs",
    "Keyring",
    "PayloadCodec",
    "PayloadKeyMissingError",
    "PayloadNotSealedError",
    "PayloadSealedError",
    "PayloadTamperedError",
    "PayloadTooBigError",
    "SealError",
    "Sign",
    "Stage",
]
