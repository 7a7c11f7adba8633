"""Versions of the schema, as Alembic scripts. Only `upgrade` imports Alembic and SQLAlchemy."""
