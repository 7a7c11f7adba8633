"""What must be true once everything is over, whatever went wrong on the way.

Each rule yields one sentence for each violation that it finds.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from itertools import pairwise

from tests.chaos.audit.evidence import Entry, Evidence, FaultNote

TERMINAL = frozenset({"completed", "failed", "cancelled", "dead"})
SIGKILL = -9

ELSEWHERE_SECONDS = 15.0
"""So long after a fault of the broker or of an operator its consequences may reach a worker: a
take-over, and what was in the outbox is sent again."""

STUMBLE_SECONDS = 45.0
"""So long after the beginning of a fault a process may still end by itself because of it: a store
that refuses to write is retried for 30 s."""

MAY_END = frozenset({"disk full", "clock", "stop", "queue deleted"})
"""Faults that may make an operator end by itself: its store is full, or another holds the lease."""

TROUBLE = re.compile(
    r"Traceback \(most recent call last\)|was never retrieved|was never awaited|"
    r"Task was destroyed|delivery_not_handled|This is unexpected"
)

ERROR = re.compile(r'"level":"(error|critical)"|^error: ')

SAID_CHARACTERS = 4_000
"""So much of what a surprised process said is shown."""


def every_run_has_ended(evidence: Evidence) -> Iterator[str]:
    known = {run.id: run for run in evidence.runs}
    for each in evidence.expected:
        if each.run not in known:
            yield f"run {each.run} was asked for and is not in the database"
    for run in evidence.runs:
        if run.status not in TERMINAL:
            yield f"run {run.id} has not ended: it is {run.status}"


def every_run_ended_as_it_should(evidence: Evidence) -> Iterator[str]:
    known = {run.id: run for run in evidence.runs}
    for each in evidence.expected:
        run = known.get(each.run)
        if run is None or run.status not in TERMINAL:
            continue
        if run.status != each.status:
            yield f"run {each.run} is {run.status} instead of {each.status}: {run.error}"
        elif each.status == "completed":
            output = run.output or {}
            if list(output.get("values", ())) != list(each.values):
                yield f"run {each.run} returned {output.get('values')}, not {list(each.values)}"
            if output.get("note") not in each.notes:
                yield f"run {each.run} notes {output.get('note')!r}, not one of {each.notes}"
        elif each.code is not None and (run.error or {}).get("code") != each.code:
            yield f"run {each.run} failed with {run.error}, not with code {each.code!r}"


def every_effect_is_recorded_once(evidence: Evidence) -> Iterator[str]:
    """What the run knows of a step is the effect of one execution of this very step."""
    happened: dict[str, set[str]] = defaultdict(set)
    for entry in evidence.journal:
        if entry.what == "effect" and entry.token is not None:
            happened[entry.step].add(entry.token)
    recorded: dict[str, Counter[str]] = defaultdict(Counter)
    for each in evidence.checkpoints:
        if each.status != "completed" or not _is_mark(each.output):
            continue
        token = each.output["token"]
        recorded[_root(each.run)][token] += 1
        if token not in happened[each.step]:
            yield f"step {each.step} has a result that no execution of it returned"
    for root, tokens in recorded.items():
        for token, count in tokens.items():
            if count > 1:
                yield f"run {root} has recorded the effect {token} {count} times"
    for run in evidence.runs:
        for token in (run.output or {}).get("tokens", ()) if run.status == "completed" else ():
            if token not in recorded[_root(run.id)]:
                yield f"run {run.id} returned the effect {token}, which it has not recorded"


def every_effect_took_place(evidence: Evidence) -> Iterator[str]:
    """No step was left out, and none ran that the workflow does not have."""
    steps: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for entry in evidence.journal:
        if entry.what == "effect":
            steps[_root(entry.run)].add((entry.name, entry.step))
    for each in evidence.expected:
        found = Counter(name for name, _ in steps.pop(each.run, ()))
        if "*" in each.effects:
            found = Counter({"*": found.total()})
        if dict(found) != dict(each.effects):
            yield f"run {each.run} took the effects {dict(found)}, not {dict(each.effects)}"
    for run in steps:
        yield f"run {run} took effects and was never asked for"


def what_was_done_is_undone_in_reverse(evidence: Evidence) -> Iterator[str]:
    undone: dict[str, list[int]] = defaultdict(list)
    for entry in sorted(evidence.journal, key=lambda each: each.at):
        if entry.what == "effect" and entry.name == "chaos.undo" and entry.value is not None:
            values = undone[_root(entry.run)]
            if entry.value not in values:
                values.append(entry.value)
    for each in evidence.expected:
        if undone[each.run] != list(each.undone):
            yield f"run {each.run} undid {undone[each.run]}, not {list(each.undone)}"


def every_repetition_has_a_cause(evidence: Evidence) -> Iterator[str]:
    """An attempt runs again only where a fault hit what carried it, while it did."""
    starts: dict[tuple[str, int], list[Entry]] = defaultdict(list)
    for entry in evidence.journal:
        if entry.what == "start":
            starts[entry.step, entry.attempt].append(entry)
    operators = frozenset(life.name for life in evidence.lives if life.role == "operator")
    for (step, attempt), entries in starts.items():
        for first, second in pairwise(sorted(entries, key=lambda each: each.at)):
            if not any(_explains(each, first, second, operators) for each in evidence.faults):
                yield (
                    f"attempt {attempt} of step {step} ran in process {first.pid} at "
                    f"{first.at:.3f} and again in {second.pid} at {second.at:.3f}, and no fault "
                    f"hit in between"
                )


def nothing_runs_for_a_run_that_is_over(evidence: Evidence) -> Iterator[str]:
    """A step that its run returned took its last effect before the steps that follow it."""
    repeated = {message for fault in evidence.faults for message in fault.messages}
    recorded = {each.output["token"] for each in evidence.checkpoints if _is_mark(each.output)}
    last: dict[str, float] = {}
    for entry in evidence.journal:
        if entry.what == "effect" and entry.token in recorded:
            last[_root(entry.run)] = max(last.get(_root(entry.run), 0.0), entry.at)
    for entry in evidence.journal:
        end = last.get(_root(entry.run))
        if entry.what != "start" or end is None or f"{entry.step}:{entry.attempt}" in repeated:
            continue
        if entry.at > end + ELSEWHERE_SECONDS and not any(
            fault.began <= entry.at and fault.ended + STUMBLE_SECONDS >= end
            for fault in evidence.faults
        ):
            yield f"step {entry.step} started {entry.at - end:.1f} s after its run was over"


def every_queue_is_empty(evidence: Evidence) -> Iterator[str]:
    if not evidence.queues:
        yield "the broker listed no queue at all"
    for queue, (ready, taken) in evidence.queues.items():
        if ready or taken:
            yield f"queue {queue} holds {ready} messages, and {taken} that nobody acknowledged"


def nothing_is_left_to_do(evidence: Evidence) -> Iterator[str]:
    for table, rows in evidence.left_in_tables.items():
        if rows:
            yield f"table {table} still holds {rows} rows"


def no_connection_is_left(evidence: Evidence) -> Iterator[str]:
    for name in evidence.connections:
        yield f"connection {name} is open although everybody has ended"


def every_process_ended_when_told(evidence: Evidence) -> Iterator[str]:
    for life in evidence.lives:
        if life.told and life.code != 0:
            yield f"{life.name} ({life.pid}) was told to stop and ended with {life.code}"


def no_process_ended_by_itself(evidence: Evidence) -> Iterator[str]:
    """Unless it was killed, or a fault leaves an operator no other way."""
    killed = {pid for fault in evidence.faults if fault.kind == "kill" for pid in fault.pids}
    for life in evidence.lives:
        if life.told or (life.code == SIGKILL and life.pid in killed):
            continue
        is_stumble = life.role == "operator" and any(
            fault.kind in MAY_END
            and fault.began <= life.ended <= max(fault.ended, fault.began) + STUMBLE_SECONDS
            for fault in evidence.faults
        )
        if not is_stumble or life.code != 1:
            said = _trouble_in(evidence.logs.get(life.name, ""))
            yield f"{life.name} ({life.pid}) ended by itself with {life.code}{said}"


def _trouble_in(text: str) -> str:
    """The last errors in the log of a process and its successors."""
    errors = [line for line in text.splitlines() if ERROR.search(line)]
    return "".join(f"\n    {line[:600]}" for line in errors[-5:])


def nothing_leaks(evidence: Evidence) -> Iterator[str]:
    reports = {report.pid: report for report in evidence.reports}
    for life in evidence.lives:
        if life.code < 0:
            continue
        report = reports.get(life.pid)
        if report is None:
            yield f"{life.name} ({life.pid}) ended without a report"
            continue
        for task in report.tasks or ():
            yield f"{life.name} ({life.pid}) left the task {task}"
        for thread in report.threads:
            yield f"{life.name} ({life.pid}) left the thread {thread}"


def nobody_was_surprised(evidence: Evidence) -> Iterator[str]:
    for name, text in evidence.logs.items():
        for found in TROUBLE.finditer(text):
            begin = text.rfind("\n", 0, found.start()) + 1
            yield f"{name} says: {text[begin : begin + SAID_CHARACTERS]}"


Rule = Callable[[Evidence], Iterator[str]]

RULES: tuple[Rule, ...] = (
    every_run_has_ended,
    every_run_ended_as_it_should,
    every_effect_is_recorded_once,
    every_effect_took_place,
    what_was_done_is_undone_in_reverse,
    every_repetition_has_a_cause,
    nothing_runs_for_a_run_that_is_over,
    every_queue_is_empty,
    nothing_is_left_to_do,
    no_connection_is_left,
    every_process_ended_when_told,
    no_process_ended_by_itself,
    nothing_leaks,
    nobody_was_surprised,
)


def audit(evidence: Evidence) -> list[str]:
    """All violations, each with the name of the rule that it breaks."""
    return [
        f"{rule.__name__.replace('_', ' ')}: {found}" for rule in RULES for found in rule(evidence)
    ]


def _explains(fault: FaultNote, first: Entry, second: Entry, operators: frozenset[str]) -> bool:
    if f"{first.step}:{first.attempt}" in fault.messages:
        return True
    if first.is_local and first.run in fault.runs:
        return True
    if first.pid in fault.pids:
        return fault.began <= second.at and fault.ended >= first.at
    if "broker" in fault.targets or operators.intersection(fault.targets):
        return fault.began <= second.at and fault.ended + ELSEWHERE_SECONDS >= first.at
    return False


def _root(run: str) -> str:
    return run.partition(".child.")[0]


def _is_mark(output: object) -> bool:
    return isinstance(output, dict) and "token" in output
