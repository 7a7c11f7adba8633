"""The first tables."""

from alembic import op

from durable_worker.stores.queries import load_script

revision = "0001"
down_revision = None


def upgrade() -> None:
    for statement in load_script("mysql", "schema_1").split(";"):
        if statement.strip():
            op.execute(statement)
