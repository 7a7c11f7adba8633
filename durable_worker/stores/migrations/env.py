"""How Alembic runs the scripts beside this file: on a connection that it is handed."""

from alembic import context

_given = context.config.attributes
context.configure(
    connection=_given["connection"],
    version_table=_given["table"],
    version_table_schema=_given["schema"],
)
context.run_migrations()
