"""Names on the wire: queues, exchanges, tokens, ids (protocol/README.md, "Names", "Composing")."""

from base64 import b64encode

from msgspec import Struct

DEFAULT_PREFIX = "durable"
DEFAULT_NAMESPACE = "default"
DEFAULT_PARTITION = "default"


CANCELLED_MARKER = "durable:cancelled"
"""The name of the recorded step that says where a body was told of the cancellation."""

ATTRIBUTES_RECORD = "durable:search-attributes"
"""The name of the recorded step by which a body sets search attributes of its run."""

CONTINUED_MARKER = "durable:continued"
"""The name of the recorded step by which the history of a run begins that was continued as new."""


def is_default(value: str | None) -> bool:
    """Unset, empty and `default` mean the same for a namespace and for a partition."""
    return value is None or value in ("", "default")


def routing_token(name: str, partition: str | None = None) -> str:
    """The `group` of a task: handler name with `:` as `-`, then `@partition` unless default."""
    token = name.replace(":", "-")
    return token if is_default(partition) else f"{token}@{partition}"


def step_id(run_id: str, seq: int) -> str:
    return f"{run_id}:{seq}"


def attempt_in(message_id: str | None, *, step: str) -> int | None:
    """The attempt in `<stepId>:<attempt>`; None if the message id is something else."""
    if message_id is None:
        return None
    named, _, number = message_id.rpartition(":")
    is_attempt = named == step and number.isascii() and number.isdecimal() and len(number) < 10
    return int(number) if is_attempt else None


def child_run_id(run_id: str, seq: int) -> str:
    return f"{run_id}.child.{seq}"


def successor_run_id(run_id: str, number: int) -> str:
    """The run that takes the place of another one under its id; the first one is number 1."""
    return run_id if number == 1 else f"{run_id}~{number}"


def published_value(key: str) -> str:
    """The name of the recorded step that publishes a value."""
    return f"event:{key}"


def patch_name(id: str) -> str:
    """The name of the recorded step that says that a run takes the patched way."""
    return f"patch:{id}"


def breakpoint_signal(run_id: str, seq: int) -> str:
    return f"bp:{run_id}:{seq}"


def task_signal(run_id: str, name: str) -> str:
    """The signal by which a task that a body handed out is completed."""
    return f"task:{run_id}:{name}"


def webhook_signal(run_id: str, seq: int) -> str:
    return f"wh:{run_id}:{seq}"


def update_signal(run_id: str, name: str) -> str:
    return f"update:{run_id}:{name}"


def event_subject(name: str, match: bytes) -> str:
    """What one subscription to an event is for. `match`: a compact JSON object."""
    return f"event:{_base64(name.encode())}:{_base64(match)}"


def event_signal(subject: str, run_id: str, seq: int) -> str:
    """The signal that the operator sends for each event that fits `subject`."""
    return f"{subject}:{run_id}#{seq}"


def is_for_one_seq(signal: str, run_id: str, seq: int) -> bool:
    """Whether nothing but the wait at `seq` can ever ask for this signal."""
    if signal in (webhook_signal(run_id, seq), breakpoint_signal(run_id, seq)):
        return True
    return signal.startswith("event:") and signal.endswith(f":{run_id}#{seq}")


def _base64(data: bytes) -> str:
    return b64encode(data).decode()


class Names(Struct, frozen=True):
    """Every queue and exchange of one deployment, under its effective prefix."""

    prefix: str = DEFAULT_PREFIX
    namespace: str | None = None

    @property
    def effective_prefix(self) -> str:
        return self.prefix if is_default(self.namespace) else f"{self.prefix}-{self.namespace}"

    def _named(self, suffix: str) -> str:
        return f"{self.effective_prefix}-{suffix}"

    def tasks(self, token: str) -> str:
        return self._named(f"tasks-{token}")

    def held(self, holder: str) -> str:
        """What one process keeps of tasks that take it long (RabbitMQ)."""
        return self._named(f"held-{holder}")

    def turns(self, worker: str) -> str:
        """Turns for the worker process that keeps their runs."""
        return self._named(f"turns-{worker}")

    def is_of_one_worker(self, queue: str) -> bool:
        """Whether it is a queue for turns of one process, and goes with it."""
        return queue.startswith(self._named("turns-"))

    @property
    def results(self) -> str:
        return self._named("results")

    @property
    def decisions(self) -> str:
        return self._named("decisions")

    @property
    def step_events(self) -> str:
        return self._named("step-events")

    @property
    def start_run(self) -> str:
        return self._named("start-run")

    @property
    def run_request(self) -> str:
        return self._named("run-request")

    @property
    def dead(self) -> str:
        return self._named("dead")

    @property
    def control(self) -> str:
        return self._named("control")

    @property
    def heartbeat(self) -> str:
        return self._named("heartbeat")

    @property
    def run_reply(self) -> str:
        return self._named("run-reply")

    @property
    def workers(self) -> str:
        return self._named("workers")

    @property
    def tenant_replies(self) -> str:
        return self._named("tenant-replies")

    @property
    def tenant_events(self) -> str:
        return self._named("tenant-events")
