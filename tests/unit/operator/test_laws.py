from hypothesis import given, settings
from hypothesis import strategies as st

from durable_worker.protocol.runs import RunStatus
from durable_worker.stores.inputs import CancelRequested, StartRun
from durable_worker.stores.letters import what_hinders
from tests.unit.operator.model import OPERATIONS, Stage, World

programs = st.lists(
    st.builds(
        Stage,
        st.lists(st.sampled_from(sorted(OPERATIONS)), min_size=1, max_size=3).map(tuple),
        st.booleans(),
    ),
    min_size=1,
    max_size=4,
).map(tuple)


@settings(max_examples=300, deadline=None)
@given(programs, st.data())
def test_whatever_the_order_no_resolution_is_lost_and_the_run_comes_to_its_end(
    program: tuple[Stage, ...], data: st.DataObject
) -> None:
    world = World(program)
    world.take(StartRun(run_id="r", workflow="w", version="1"))
    world.commit()
    world.check()
    for _ in range(data.draw(st.integers(0, 25))):
        for _ in range(data.draw(st.integers(1, 3))):
            moves = [*world.moves(), *world.losses()]
            world.now += data.draw(st.sampled_from([0, 1, 30]))
            if moves:
                world.take(data.draw(st.sampled_from(moves)))
        world.commit()
        world.check()
    _let_everything_happen(world)
    assert world.run.status is RunStatus.COMPLETED


def _let_everything_happen(world: World) -> None:
    """Time passes and everybody answers: nothing may be left waiting."""
    for _ in range(60):
        if world.run.status.is_terminal:
            return
        world.now += 1_000
        for move in world.moves():
            world.take(move)
        world.commit()
        world.check()


@settings(max_examples=300, deadline=None)
@given(programs, st.booleans(), st.data())
def test_whatever_is_redriven_the_run_goes_on_as_if_nothing_had_failed_or_is_left_alone(
    program: tuple[Stage, ...], is_strict: bool, data: st.DataObject
) -> None:
    world = World(program, is_strict=is_strict)
    world.take(StartRun(run_id="r", workflow="w", version="1"))
    world.commit()
    for _ in range(data.draw(st.integers(0, 25))):
        for _ in range(data.draw(st.integers(1, 3))):
            kinds = [world.moves, world.moves, world.moves, world.redrives, world.poisons]
            moves = data.draw(st.sampled_from(kinds))() or world.moves()
            world.now += data.draw(st.sampled_from([0, 1, 30]))
            if moves:
                world.take(data.draw(st.sampled_from(moves)))
        world.commit()
        world.check()
    for _ in range(60):
        world.now += 1_000
        for move in [*world.redrives(), *world.moves()]:
            world.take(move)
        world.commit()
        world.check()
    if world.run.status is RunStatus.FAILED:
        assert world.failed_of_themselves()
        for each in world.failed_of_themselves():
            assert what_hinders(world.state, each, last_seq=None) is not None
    else:
        assert world.run.status is RunStatus.COMPLETED


@settings(max_examples=50, deadline=None)
@given(programs, st.data())
def test_a_cancelled_run_stays_cancelled_whatever_arrives(
    program: tuple[Stage, ...], data: st.DataObject
) -> None:
    world = World(program)
    world.take(StartRun(run_id="r", workflow="w", version="1"))
    world.commit()
    for _ in range(data.draw(st.integers(0, 10))):
        world.now += 30
        world.take(data.draw(st.sampled_from(world.moves())))
        world.commit()
        if world.run.status.is_terminal:
            return
    leftovers = [*world.moves(), *world.losses()]
    world.take(CancelRequested(run_id="r", is_final=True))
    cancelled = world.run
    for each in leftovers:
        world.take(each)
        world.commit()
    assert world.run == cancelled
    world.check()
