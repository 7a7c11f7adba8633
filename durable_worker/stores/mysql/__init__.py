"""A store in a MariaDB or MySQL database."""

from durable_worker.stores.mysql.store import MysqlStore

__all__ = ["MysqlStore"]
