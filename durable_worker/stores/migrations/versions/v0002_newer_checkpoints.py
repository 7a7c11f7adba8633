"""Checkpoints tell when they came, and listings have the indexes that they read."""

from alembic import op

from durable_worker.stores.queries import load_script

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    for statement in load_script("postgres", "schema_2").split(";"):
        if statement.strip():
            op.execute(statement)
