"""Search attributes that a body sets (protocol/README.md, "Search attributes")."""

from durable_worker.operator.transitions.draft import Draft
from durable_worker.protocol.commands import RecordStep
from durable_worker.protocol.names import ATTRIBUTES_RECORD
from durable_worker.stores.attributes import merged


def note_attributes(draft: Draft, record: RecordStep) -> None:
    """Of what is recorded just now, and never again."""
    if record.name == ATTRIBUTES_RECORD and record.error is None:
        attributes = merged(draft.run.search_attributes, [record.output])
        draft.update(search_attributes=attributes)
