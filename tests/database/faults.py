class DatabaseUnavailableError(Exception):
    """There is no database for the tests; the message says what to do."""
