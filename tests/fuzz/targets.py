"""What is fuzzed: one function of bytes for each way into the program.

Each raises `AssertionError`, or whatever escapes, if the program does not keep what it promises.
The same functions are called by Hypothesis, by the fuzzer, and for each file of the corpus.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from msgspec import Struct

from tests.fuzz import seeds
from tests.fuzz.amqp import amqp_seeds, read_stream
from tests.fuzz.cli_texts import read_command_line
from tests.fuzz.decoding import decode_input_row, decode_message, decode_payload, show_detail
from tests.fuzz.operator_handlers import handle_as_operator, handle_as_operator_on_disk
from tests.fuzz.properties import read_properties
from tests.fuzz.worker_handlers import handle_as_worker

CORPUS = Path(__file__).parent / "corpus"


class Target(Struct, frozen=True):
    """`run` takes an input; `seeds` are good ones. `head`: bytes before the JSON document."""

    name: str
    run: Callable[[bytes], None]
    seeds: Callable[[], list[bytes]]
    head: int = 0

    @property
    def corpus(self) -> Path:
        return CORPUS / self.name

    def kept(self) -> list[Path]:
        return sorted(self.corpus.iterdir()) if self.corpus.is_dir() else []


TARGETS: Mapping[str, Target] = {
    each.name: each
    for each in (
        Target("message", decode_message, seeds.message_seeds, head=1),
        Target("payload", decode_payload, seeds.payload_seeds),
        Target("input", decode_input_row, seeds.input_seeds),
        Target("detail", show_detail, seeds.detail_seeds),
        Target("properties", read_properties, seeds.properties_seeds),
        Target("amqp", read_stream, amqp_seeds, head=2),
        Target("cli", read_command_line, seeds.cli_seeds),
        Target("worker", handle_as_worker, seeds.worker_seeds, head=2),
        Target("operator", handle_as_operator, seeds.operator_seeds, head=2),
        Target("operator-on-disk", handle_as_operator_on_disk, seeds.live_seeds, head=2),
    )
}
