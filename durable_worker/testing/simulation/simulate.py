"""A user's own workflow under simulation."""

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Literal

from msgspec import Raw, Struct

from durable_worker.errors import RegistrationError, UsageError
from durable_worker.protocol.payload import encode_payload
from durable_worker.replay.definitions import names_of
from durable_worker.testing.simulation.audit import Outcome
from durable_worker.testing.simulation.campaign import Failure, Report, campaign
from durable_worker.testing.simulation.chance import ALL_FAULTS, FaultKind
from durable_worker.testing.simulation.errors import MissingStepsError, SimulationFailedError
from durable_worker.testing.simulation.journal import journaled
from durable_worker.testing.simulation.plan import Plan, Sent, Started, Verdict
from durable_worker.testing.simulation.trace import around
from durable_worker.testing.simulation.world import simulated
from durable_worker.worker.registry import Worker

RUN_ID = "run"


class Scene(Struct, frozen=True, kw_only=True):
    """What is simulated. `real`: steps that are run as they are; None: all.

    `signals` are sent after so many virtual seconds each. With `any_end`, runs need not end as
    without faults: for a body in which time decides.
    """

    worker: Worker
    workflow: str
    input: Raw
    stubs: Mapping[str, Any]
    real: frozenset[str] | None
    signals: tuple[Sent, ...] = ()
    kinds: frozenset[FaultKind] = ALL_FAULTS
    any_end: bool = False


def simulate(
    worker: Worker,
    workflow: str | Callable[..., Any],
    input: object = None,
    *,
    seeds: int | Iterable[int] = 100,
    stubs: Mapping[str, Any] | None = None,
    real: Collection[str] | Literal["all"] = (),
    signals: Mapping[str, object] | None = None,
    faults: Collection[FaultKind] = ALL_FAULTS,
    any_end: bool = False,
    processes: int = 1,
) -> Report:
    """Run a workflow many times, each time in another world of operators, workers, broker and
    database in which other faults hit; the real ones of this library, on virtual time.

    `stubs`: what a step returns, an exception that it raises, or a function of its input. `real`
    steps are run as they are, many times over. `signals` are sent at the beginning. `seeds`: how
    many, or which.

    Raises `SimulationFailedError` (an `AssertionError`) if in some world the run does not end as it
    does without faults (`any_end`: as long as it ends), or a promise about its steps is broken; its
    text names the seed and the fewest faults that do it. `MissingStepsError` if the workflow calls
    a step that is neither stubbed nor real.
    """
    name = workflow if isinstance(workflow, str) else _name_of(worker, workflow)
    scene = Scene(
        worker=worker,
        workflow=name,
        input=_encoded(input, f"the input of {name!r}"),
        stubs=stubs or {},
        real=None if real == "all" else frozenset(real),
        signals=tuple(
            Sent(signal, _encoded(payload, f"the payload of signal {signal!r}"))
            for signal, payload in (signals or {}).items()
        ),
        kinds=frozenset(faults),
        any_end=any_end,
    )
    wanted = range(seeds) if isinstance(seeds, int) else seeds
    report = explore(scene, wanted, processes=processes)
    if report.failures:
        raise SimulationFailedError(report)
    return report


def explore(scene: Scene, seeds: Iterable[int], *, processes: int | None = None) -> Report:
    """As `simulate`, with the failures in the report."""
    plan = plan_of(scene)
    calm = simulated(plan, 0, only=(), keeps_trace=True)
    _refuse_missing(scene, calm)
    if calm.violations:
        return Report(
            seeds=1, failures=[Failure(0, calm.violations, (), 0, tuple(around(calm.lines)))]
        )
    expected = None if scene.any_end else frozenset({calm.outcomes[RUN_ID]})
    expecting = plan_of(scene, expected)
    report = campaign(lambda _: expecting, seeds, processes=processes)
    report.calm = calm.outcomes[RUN_ID]
    return report


def plan_of(scene: Scene, expected: frozenset[Outcome] | None = None) -> Plan:
    """Raises `UsageError` for names that the worker does not have."""
    worker = scene.worker
    if all(name != scene.workflow for name, _ in worker.workflows):
        known = names_of(worker.workflows.values())
        raise UsageError(f"the worker has no workflow {scene.workflow!r}, only {known}.")
    for name in sorted((scene.real or frozenset()) - worker.steps.keys()):
        known = names_of(worker.steps.values())
        raise UsageError(f"the worker has no step {name!r} that could be run, only {known}.")
    start = Started(RUN_ID, scene.workflow, scene.input, expected)
    served = journaled(worker, scene.stubs, scene.real)
    return Plan(served, (start,), scene.signals, kinds=scene.kinds)


def _refuse_missing(scene: Scene, calm: Verdict) -> None:
    unknown = {name for name in calm.unserved if name not in scene.stubs}
    needed = [*calm.forbidden, *sorted(unknown)]
    if not needed:
        return
    real = frozenset(scene.worker.steps) if scene.real is None else scene.real
    without = [name for name in scene.worker.steps if name not in scene.stubs and name not in real]
    raise MissingStepsError(needed[0], list(dict.fromkeys([*needed, *without])))


def _name_of(worker: Worker, function: Callable[..., Any]) -> str:
    definition = worker.workflow_of(function)
    if definition is None:
        raise RegistrationError(f"{function!r} is no workflow of this worker")
    return definition.name


def _encoded(value: object, what: str) -> Raw:
    encoded = encode_payload(value, what=what)
    return encoded if isinstance(encoded, Raw) else Raw(b"null")
