"""Prints a digest of all decisions about many random bodies: `python -m tests.replay.digest`."""

from hashlib import sha256
from random import Random

from tests.replay.bodies import COMBINATIONS, LEAVES, Combine, Do, Node, worker_for
from tests.replay.driving import drive
from tests.replay.model import ModelOperator

BODIES = 300


def random_body(chance: Random, *, depth: int = 0) -> Node:
    if depth > 2 or chance.random() < 0.45:
        return Do(chance.choice(LEAVES), chance.randrange(4))
    parts = (random_body(chance, depth=depth + 1) for _ in range(chance.randint(1, 4)))
    return Combine(chance.choice(COMBINATIONS), tuple(parts))


def main() -> None:
    digest = sha256()
    for seed in range(BODIES):
        chance = Random(seed)
        worker = worker_for(random_body(chance), fails=seed % 3 == 0)
        for decision in drive(worker, ModelOperator(), chance):
            digest.update(decision)
    print(digest.hexdigest())


if __name__ == "__main__":
    main()
