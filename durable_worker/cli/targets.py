"""From `module:attribute` or `path/to/file.py:attribute` to a Worker."""

import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from traceback import extract_tb
from types import ModuleType, TracebackType

from durable_worker.errors import InvalidModuleError, RegistrationError
from durable_worker.worker.registry import Worker

_LIBRARY = Path(__file__).parents[1]


def load_worker(target: str) -> Worker:
    """Import the module, with the current directory on the path, and find the Worker in it.

    Raises `InvalidModuleError`.
    """
    found, candidates = loaded(target, _is_worker)
    return _checked(target, found, candidates)


def loaded(target: str, is_candidate: Callable[[object], bool]) -> tuple[object, list[str]]:
    """What the target leads to, and where in its module the candidates are.

    Raises `InvalidModuleError`.
    """
    place, _, attribute = target.partition(":")
    if not place:
        raise InvalidModuleError(target, "a target reads module:attribute, as in app:worker.")
    is_file = place.endswith(".py")
    name = _module_of_file(target, Path(place)) if is_file else place
    _put_first_on_path(Path.cwd())
    module = _imported(target, name)
    if is_file and Path(module.__file__ or "").resolve() != Path(place).resolve():
        raise InvalidModuleError(
            target, f"another module is called {name!r} ({module.__file__}); rename the file."
        )
    candidates = [f"{place}:{key}" for key, value in vars(module).items() if is_candidate(value)]
    if not attribute:
        raise InvalidModuleError(
            target, "it names no attribute; a target reads module:attribute.", candidates
        )
    return _attribute(target, module, attribute, candidates), candidates


def _checked(target: str, found: object, candidates: list[str]) -> Worker:
    if not isinstance(found, Worker):
        kind = type(found).__name__
        raise InvalidModuleError(target, f"it is of type {kind}, not a Worker.", candidates)
    try:
        found.check()
    except RegistrationError as error:
        others = [each for each in candidates if each != target]
        raise InvalidModuleError(target, _sentence(str(error)), others) from error
    return found


def _sentence(text: str) -> str:
    return text if text.endswith(".") else f"{text}."


def _is_worker(value: object) -> bool:
    return isinstance(value, Worker)


def _module_of_file(target: str, path: Path) -> str:
    """The dotted name of a source file, whose root directory is put on the path."""
    if not path.is_file():
        raise InvalidModuleError(target, f"there is no file {path}.")
    root, names = path.resolve().parent, [path.stem]
    while (root / "__init__.py").is_file():
        names.insert(0, root.name)
        root = root.parent
    _put_first_on_path(root)
    return ".".join(names)


def _put_first_on_path(directory: Path) -> None:
    if str(directory) not in sys.path:
        sys.path.insert(0, str(directory))


def _imported(target: str, name: str) -> ModuleType:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            raise InvalidModuleError(
                target, f"there is no module {error.name!r} here or among what is installed."
            ) from error
        raise InvalidModuleError(target, _failure(error)) from error
    except (Exception, SystemExit) as error:  # the module is user code
        raise InvalidModuleError(target, _failure(error)) from error


def _failure(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return f"importing it exits with {error.code!r} at {_place(error.__traceback__)}."
    if isinstance(error, SyntaxError) and error.filename is not None:
        return f"SyntaxError: {error.msg}, at {_short(error.filename)}:{error.lineno}."
    if isinstance(error, RegistrationError):
        return _sentence(str(error))
    text = f"{type(error).__name__}: {error}".rstrip(".")
    return f"importing it raises {text}, at {_place(error.__traceback__)}."


def _place(trace: TracebackType | None) -> str:
    """`file:line` of the innermost frame that is the user's; of the innermost if none is."""
    frames = [each for each in extract_tb(trace) if not each.filename.startswith("<frozen")]
    own = [each for each in frames if _is_users(each.filename)]
    innermost = (own or frames)[-1]
    return f"{_short(innermost.filename)}:{innermost.lineno}"


def _is_users(filename: str) -> bool:
    path = Path(filename)
    is_foreign = path.is_relative_to(_LIBRARY) or path.is_relative_to(sys.base_prefix)
    return not is_foreign and "site-packages" not in path.parts


def _short(filename: str) -> str:
    path = Path(filename)
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else filename


def _attribute(target: str, module: ModuleType, path: str, candidates: list[str]) -> object:
    found: object = module
    for name in path.split("."):
        try:
            found = getattr(found, name)
        except AttributeError as error:
            raise InvalidModuleError(
                target, f"{module.__name__!r} has no attribute {name!r}.", candidates
            ) from error
    return found
