"""What goes wrong before a test has the server that it needs."""


class ServerUnavailableError(Exception):
    """No server can be had, or it does not obey; it is a sentence that says what to do."""
