"""What a replay could not repeat, by module and qualified name, and what to use instead."""

import os
from enum import Enum, auto

from msgspec import Struct


class Reach(Enum):
    """On whose account a call is reported."""

    CALLER = auto()
    """Only where user code asked for it, itself or by way of the standard library: what a library
    does with a clock or a random number need not reach the body."""
    ANYWHERE = auto()
    """Also where a library that the body uses does it."""


class Forbidden(Struct, frozen=True):
    call: str
    instead: str
    reach: Reach


_CLOCK = "use ctx.now(), which is recorded"
_RANDOM = "use ctx.random, which gives the same numbers on every replay"
_UUID = "use ctx.uuid()"
_ENTROPY = "use ctx.random or ctx.uuid(), or do it in a step"
_SLEEP = "use await ctx.sleep(...) or await asyncio.sleep(...)"
_FILES = "do it in a step; for a short read ctx.side_effect(...)"
_NETWORK = "do it in a step and await that with ctx.step(...)"
_THREADS = "a body runs on one thread: use asyncio.gather over steps, or ctx.local_step(...)"
_INPUT = "use await ctx.wait_signal(...)"

_OS = os.name if os.name == "nt" else "posix"

_RANDOM_METHODS = """
    seed getrandbits randbytes random randrange randint choice shuffle choices sample uniform
    triangular normalvariate gauss lognormvariate expovariate vonmisesvariate gammavariate
    betavariate paretovariate weibullvariate binomialvariate
"""

_BUILTIN: tuple[tuple[str, str, str, Reach], ...] = (
    (
        "time",
        "time time_ns monotonic monotonic_ns perf_counter perf_counter_ns process_time "
        "process_time_ns clock_gettime clock_gettime_ns",
        _CLOCK,
        Reach.CALLER,
    ),
    ("time", "sleep", _SLEEP, Reach.ANYWHERE),
    ("datetime", "datetime.now datetime.utcnow date.today", _CLOCK, Reach.CALLER),
    (_OS, "urandom getrandom", _ENTROPY, Reach.CALLER),
    ("_io", "open open_code", _FILES, Reach.ANYWHERE),
    ("io", "open open_code", _FILES, Reach.ANYWHERE),  # what CPython 3.11 calls the module _io
    (
        _OS,
        "open listdir scandir stat lstat access mkdir rmdir remove unlink rename replace symlink "
        "link truncate chmod utime",
        _FILES,
        Reach.ANYWHERE,
    ),
    ("_sqlite3", "connect", _NETWORK, Reach.ANYWHERE),
    ("sqlite3", "Connection.execute Connection.executemany", _NETWORK, Reach.ANYWHERE),
    ("sqlite3", "Cursor.execute Cursor.executemany", _NETWORK, Reach.ANYWHERE),
    (
        "_socket",
        "getaddrinfo gethostbyname gethostname socket.connect socket.connect_ex socket.send "
        "socket.sendall socket.sendto socket.recv socket.recv_into socket.recvfrom socket.bind",
        _NETWORK,
        Reach.ANYWHERE,
    ),
    ("_ssl", "_SSLSocket.read _SSLSocket.write", _NETWORK, Reach.ANYWHERE),
    (
        "_thread",
        "start_new_thread start_new start_joinable_thread",
        _THREADS,
        Reach.ANYWHERE,
    ),
    (_OS, "system fork forkpty posix_spawn posix_spawnp", _NETWORK, Reach.ANYWHERE),
    ("builtins", "input", _INPUT, Reach.ANYWHERE),
)
_PYTHON: tuple[tuple[str, str, str, Reach], ...] = (
    (
        "random",
        " ".join(f"Random.{name}" for name in ["__init__", *_RANDOM_METHODS.split()]),
        _RANDOM,
        Reach.CALLER,
    ),
    (
        "random",
        "SystemRandom.random SystemRandom.getrandbits SystemRandom.randbytes",
        _RANDOM,
        Reach.CALLER,
    ),
    ("uuid", "uuid1 uuid4 uuid6 uuid7", _UUID, Reach.CALLER),
    ("secrets", "token_bytes token_hex token_urlsafe randbelow", _ENTROPY, Reach.CALLER),
    (
        "tempfile",
        "NamedTemporaryFile TemporaryFile SpooledTemporaryFile.__init__ mkstemp mkdtemp "
        "TemporaryDirectory.__init__",
        _FILES,
        Reach.ANYWHERE,
    ),
    ("socket", "socket.__init__ create_connection getaddrinfo", _NETWORK, Reach.ANYWHERE),
    ("urllib.request", "urlopen", _NETWORK, Reach.ANYWHERE),
    ("threading", "Thread.start", _THREADS, Reach.ANYWHERE),
    ("asyncio.threads", "to_thread", _THREADS, Reach.ANYWHERE),
    ("concurrent.futures.thread", "ThreadPoolExecutor.submit", _THREADS, Reach.ANYWHERE),
    ("concurrent.futures.process", "ProcessPoolExecutor.submit", _THREADS, Reach.ANYWHERE),
    ("multiprocessing.process", "BaseProcess.start", _THREADS, Reach.ANYWHERE),
    ("subprocess", "Popen.__init__", _NETWORK, Reach.ANYWHERE),
)

_PUBLIC = {
    "_io.open": "open",
    "io.open": "open",
    "_sqlite3.connect": "sqlite3.connect",
    "builtins.input": "input",
    "asyncio.threads.to_thread": "asyncio.to_thread",
}


def _public(key: str) -> str:
    """How people call it."""
    if key in _PUBLIC:
        return _PUBLIC[key]
    name = key.removesuffix(".__init__").replace(f"{_OS}.", "os.").lstrip("_")
    return name.replace("random.Random.", "random.")


def _table(rows: tuple[tuple[str, str, str, Reach], ...]) -> dict[str, Forbidden]:
    return {
        key: Forbidden(_public(key), instead, reach)
        for module, names, instead, reach in rows
        for key in (f"{module}.{name}" for name in names.split())
    }


FUNCTIONS = _table(_PYTHON)
"""Python functions, by `<module>.<qualified name>`."""
BUILTINS = _table(_BUILTIN) | {
    f"random.Random.{name}": FUNCTIONS[f"random.Random.{name}"]
    for name in ("seed", "getrandbits", "random")
}
"""Functions written in C, by `<module or class>.<name>`."""

FUNCTION_NAMES = frozenset(name for _, names, _, _ in _PYTHON for name in names.split())
"""The qualified names, to tell quickly what is not meant."""
BUILTIN_NAMES = frozenset(key.rpartition(".")[2] for key in BUILTINS)

RANDOM = "random.Random."

OBSERVERS = (
    "logging structlog loguru warnings traceback linecache tokenize inspect rich sentry_sdk "
    "opentelemetry ddtrace newrelic coverage _pytest pluggy bdb pdb cmd IPython pydevd "
    "_pydevd_bundle debugpy "
    "importlib _frozen_importlib _frozen_importlib_external pkgutil pkg_resources zipimport "
    "runpy weakref encodings gettext locale zoneinfo tzdata pytz dateutil tzlocal babel certifi"
)
TRUSTED_MODULES = frozenset(OBSERVERS.split())
"""Top-level modules whose doings are no business of the body: they log, trace and debug, import
modules, finalise objects, or load their own data."""
