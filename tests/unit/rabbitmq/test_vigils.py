"""When a consumer that seems to stand is taken for lost."""

from durable_worker.transports.rabbitmq.lanes import QueueState
from durable_worker.transports.rabbitmq.vigil import Verdict, Vigil

IDLE = QueueState(waiting=0, consumers=2)
WAITING = QueueState(waiting=3, consumers=2)
SOUND, STALE, STARVED = Verdict.SOUND, Verdict.STALE, Verdict.STARVED


def looks(
    vigil: Vigil, queue: QueueState, count: int, *, has_come: bool = False, has_room: bool = True
) -> list[Verdict]:
    return [vigil.judge(queue, has_come=has_come, has_room=has_room) for _ in range(count)]


def test_a_consumer_that_gets_messages_is_sound_whatever_waits() -> None:
    assert looks(Vigil(), WAITING, 50, has_come=True) == [SOUND] * 50


def test_a_consumer_without_room_is_sound_whatever_waits() -> None:
    assert looks(Vigil(), WAITING, 50, has_room=False) == [SOUND] * 50


def test_messages_that_wait_while_none_comes_condemn_it_at_the_second_look() -> None:
    assert looks(Vigil(), WAITING, 4) == [SOUND, STARVED, SOUND, STARVED]


def test_what_waited_at_one_look_only_condemns_nobody() -> None:
    vigil = Vigil()
    assert looks(vigil, WAITING, 1) + looks(vigil, IDLE, 1) + looks(vigil, WAITING, 1) == [
        SOUND,
        SOUND,
        STALE,
    ]


def test_a_queue_without_consumers_has_forgotten_this_one() -> None:
    assert looks(Vigil(), QueueState(waiting=0, consumers=0), 1) == [Verdict.FORGOTTEN]


def test_an_idle_consumer_is_replaced_ever_more_seldom_until_something_comes() -> None:
    vigil = Vigil()
    found = looks(vigil, IDLE, 40)
    assert [number for number, each in enumerate(found, 1) if each is STALE] == [3, 9, 21, 33]
    assert set(found) == {SOUND, STALE}
    vigil.judge(IDLE, has_come=True, has_room=True)
    assert looks(vigil, IDLE, 3) == [SOUND, SOUND, STALE]
