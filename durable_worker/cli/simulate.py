"""`durable-worker simulate`: a workflow under faults, on virtual time."""

import shlex
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta

import msgspec
from msgspec import Raw, Struct

from durable_worker.cli.documents import json_argument, print_json
from durable_worker.cli.durations import in_words
from durable_worker.cli.options import Simulate
from durable_worker.cli.page import Block, Line, Text, show
from durable_worker.cli.targets import load_worker
from durable_worker.errors import UsageError
from durable_worker.testing.simulation.audit import Outcome
from durable_worker.testing.simulation.campaign import Failure, Report, retold
from durable_worker.testing.simulation.chance import ALL_FAULTS, FaultKind
from durable_worker.testing.simulation.plan import Sent
from durable_worker.testing.simulation.simulate import RUN_ID, Scene, explore, plan_of

_ALL = "all"


class Failed(Struct, frozen=True, kw_only=True, rename="camel"):
    seed: int
    violations: Sequence[str]
    faults: Sequence[str]
    trace: Sequence[str]
    repeat: str


class Simulated(Struct, frozen=True, kw_only=True, rename="camel"):
    """`outcomes`: how often the run has ended how. `faults`: how often each kind has hit."""

    seeds: int
    virtual_seconds: float
    faults: dict[str, int]
    outcomes: dict[str, int]
    failures: Sequence[Failed]


def perform(options: Simulate) -> int:
    scene = _scene(options)
    seeds = range(options.seeds) if options.seed is None else [options.seed]
    report = explore(scene, seeds, processes=options.processes)
    if options.is_json:
        print_json(_document(options, report))
    else:
        show(_page(options, report))
        if options.seed is not None and not report.failures:
            print("", *retold(plan_of(scene), options.seed), sep="\n")
    return 1 if report.failures else 0


def _scene(options: Simulate) -> Scene:
    given = json_argument("--input", options.input)
    signals = _pairs("--signal", options.signals)
    return Scene(
        worker=load_worker(options.target),
        workflow=options.workflow,
        input=Raw(b"null") if given is None else given,
        stubs={name: msgspec.json.decode(value) for name, value in _pairs("--stub", options.stubs)},
        real=None if _ALL in options.real else frozenset(options.real),
        signals=tuple(Sent(name, payload) for name, payload in signals),
        kinds=_kinds(options.faults),
        any_end=options.any_end,
    )


def _pairs(option: str, pairs: Sequence[str]) -> list[tuple[str, Raw]]:
    found: list[tuple[str, Raw]] = []
    for pair in pairs:
        name, equals, text = pair.partition("=")
        value = json_argument(f"{option} {name}", text) if name and equals else None
        if value is None:
            raise UsageError(f"{option} reads NAME=JSON, not {pair!r}.")
        found.append((name, value))
    return found


def _kinds(names: Sequence[str]) -> frozenset[FaultKind]:
    if not names or _ALL in names:
        return ALL_FAULTS
    known = ", ".join(kind.value for kind in FaultKind)
    for name in names:
        if name not in {kind.value for kind in FaultKind}:
            raise UsageError(f"--faults knows {known}, not {name!r}.")
    return frozenset(map(FaultKind, names))


def _document(options: Simulate, report: Report) -> Simulated:
    return Simulated(
        seeds=report.seeds,
        virtual_seconds=round(report.virtual_seconds, 3),
        faults=dict(sorted(report.faults.items())),
        outcomes=_ends(report),
        failures=[_failed(options, each) for each in report.failures],
    )


def _ends(report: Report) -> dict[str, int]:
    counts = report.outcomes.get(RUN_ID, Counter[Outcome]())
    return dict(sorted((str(outcome), count) for outcome, count in counts.items()))


def _failed(options: Simulate, failure: Failure) -> Failed:
    return Failed(
        seed=failure.seed,
        violations=failure.violations,
        faults=[str(each) for each in failure.faults],
        trace=[str(each) for each in failure.lines],
        repeat=_repeat(options, failure.seed),
    )


def _repeat(options: Simulate, seed: int) -> str:
    words = ["durable-worker", "simulate", options.target, "--workflow", options.workflow]
    if options.input is not None:
        words += ["--input", options.input]
    for option, values in (
        ("--stub", options.stubs),
        ("--real", options.real),
        ("--signal", options.signals),
        ("--faults", options.faults),
    ):
        for value in values:
            words += [option, value]
    if options.any_end:
        words.append("--any-end")
    return shlex.join([*words, "--seed", str(seed)])


def _page(options: Simulate, report: Report) -> list[Block]:
    blocks: list[Block] = []
    for each in report.failures:
        blocks += [Line([Text(text, "red")]) for text in str(each).splitlines()]
        blocks += [Line([]), Line([f"again: {_repeat(options, each.seed)}"]), Line([])]
    hits = ", ".join(f"{count:,} {kind}" for kind, count in sorted(report.faults.items()))
    duration = in_words(timedelta(seconds=report.virtual_seconds))
    blocks.append(Line([f"{report.seeds:,} worlds, {duration} of their time"]))
    blocks.append(Line([f"faults: {hits or 'none'}"]))
    blocks += [Line([f"{count:,} {outcome}"]) for outcome, count in _ends(report).items()]
    style = "bold red" if report.failures else "bold green"
    told = "every run ended" if options.any_end else "every run ended as it does without faults"
    if report.failures:
        told = f"{len(report.failures)} failed"
    blocks.append(Line([Text(told, style)]))
    return blocks
