"""Creates or drops a PostgreSQL database, and tells its URL.

database.py create|drop SERVER NAME
"""

import json
import sys
from urllib.parse import urlsplit

import psycopg
from psycopg import sql

what, server, name = sys.argv[1:]
statement = "CREATE DATABASE {}" if what == "create" else "DROP DATABASE IF EXISTS {} WITH (FORCE)"
with psycopg.connect(server, autocommit=True) as connection:
    connection.execute(sql.SQL(statement).format(sql.Identifier(name)))
print(json.dumps(urlsplit(server)._replace(path=f"/{name}").geturl()))
