"""SQL, one folder for each database, loaded from the package's own files."""

from importlib.resources import files


def load_script(database: str, name: str) -> str:
    return (files(__name__) / database / f"{name}.sql").read_text(encoding="utf-8")


def load_statements(database: str, name: str) -> dict[str, str]:
    """The statements of one file by the name in the `-- name:` line above each."""
    statements: dict[str, str] = {}
    for part in load_script(database, name).split("-- name: ")[1:]:
        title, _, statement = part.partition("\n")
        statements[title.strip()] = statement.strip().rstrip(";")
    return statements
