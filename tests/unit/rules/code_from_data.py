"""Finds in a syntax tree what could turn data into code."""

import ast
from collections.abc import Iterator

MODULES = {
    *("pickle", "_pickle", "cPickle", "dill", "cloudpickle", "jsonpickle", "marshal", "shelve"),
    *("runpy", "code", "codeop", "imp", "pkgutil", "zipimport", "yaml", "ctypes", "copyreg"),
}
"""What is not to be imported at all."""

BUILTINS = {"eval", "exec", "compile", "__import__", "breakpoint"}

ATTRIBUTES = {
    *("import_module", "exec_module", "load_module", "reload", "spec_from_file_location"),
    *("create_subprocess_shell", "system", "popen"),
}
"""Called on whatever module they come from."""

HARMLESS = {"resources", "metadata"}
"""What `importlib` has besides."""


def findings(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Each rule that is broken, and in which line."""
    for node in ast.walk(tree):
        for rule in _rules(node):
            yield rule, getattr(node, "lineno", 0)


def _rules(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.Import(names=names):
            yield from (f"import {each.name}" for each in names if _is_forbidden(each.name))
        case ast.ImportFrom(module=str(module), names=names):
            yield from _from(module, names)
        case ast.Call(func=ast.Name(id=name)):
            yield from _called(name, node.args)
        case ast.Call(func=ast.Attribute(attr=name)) if name in ATTRIBUTES:
            yield name
        case ast.Name(id=name) if name in BUILTINS or name == "__builtins__":
            yield name
        case ast.keyword(arg="shell"):
            yield "shell="
        case _:
            return


def _from(module: str, names: list[ast.alias]) -> Iterator[str]:
    if module == "importlib":
        yield from (f"import importlib.{each.name}" for each in names if not _is_plain(each))
    elif _is_forbidden(module) or module == "builtins":
        yield f"import {module}"


def _is_plain(name: ast.alias) -> bool:
    """`import_module` under its own name, whose calls are looked at, or data of packages."""
    return name.asname is None and name.name in ("import_module", *HARMLESS)


def _called(name: str, arguments: list[ast.expr]) -> Iterator[str]:
    """With a name that is written there it is as good as an import or an attribute."""
    match name, arguments:
        case "import_module", [ast.Constant(value=str())]:
            return
        case "getattr", [_, ast.Constant(value=str()), *_]:
            return
        case (("import_module" | "getattr"), _):
            yield f"{name}(computed)"
        case _:
            return


def _is_forbidden(module: str) -> bool:
    top, _, rest = module.partition(".")
    return top in MODULES or (top == "importlib" and rest not in HARMLESS)
