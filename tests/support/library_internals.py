"""What of a library is there, and where our code uses private names of libraries: for tests/contract."""

import ast
import importlib
import inspect
import pkgutil
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import cache, reduce
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

ATTRIBUTE = "attribute"


def signature_of(owner: str, name: str) -> str | None:
    """A function's parameters without annotations, which no call notices; ATTRIBUTE; None if there is no such name."""
    module, _, classes = owner.partition(":")
    try:
        holder: Any = reduce(getattr, filter(None, classes.split(".")), importlib.import_module(module))
    except (ImportError, AttributeError):
        return None
    value = inspect.getattr_static(holder, name, None)
    if inspect.isroutine(value):
        return str(inspect.Signature([_bare(each) for each in inspect.signature(value).parameters.values()]))
    is_there = value is not None or (
        inspect.isclass(holder) and any(name in attributes(each) for each in holder.__mro__)
    )
    return ATTRIBUTE if is_there else None


def _bare(parameter: inspect.Parameter) -> inspect.Parameter:
    default = ... if repr(parameter.default).startswith("<") and parameter.default is not parameter.empty else None
    plain = parameter.replace(annotation=parameter.empty)
    return plain if default is None else plain.replace(default=default)


@cache
def attributes(owner: type) -> frozenset[str]:
    """What the class has, and what its methods assign to `self`."""
    names = {*vars(owner), *inspect.get_annotations(owner)}
    with suppress(OSError, TypeError):  # Written in C, or made at run time: there is no source.
        names.update(re.findall(r"\bself\.(\w+)(?:: [^=\n]+)? = ", inspect.getsource(owner)))
    return frozenset(names)


class _Class(NamedTuple):
    """The private names that a class of ours defines, and those that it uses of itself."""

    defined: set[str]
    used: set[str]


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def modules_of(*packages: str) -> Iterator[ModuleType]:
    for package in map(importlib.import_module, packages):
        yield package
        for each in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            yield importlib.import_module(each.name)


def reaches_in(modules: list[ModuleType]) -> set[tuple[str, str]]:
    """Module and name of each use of a private name that none of these modules defines."""
    ours = {module.__name__: ast.parse(Path(str(module.__file__)).read_text()) for module in modules}
    found = {(module, name) for module, tree in ours.items() for name in _imported(tree) | _of_other_objects(tree)}
    for module in modules:
        for cls in (each for each in vars(module).values() if inspect.isclass(each)):
            if cls.__module__ == module.__name__:
                found |= _inherited(cls, ours)
    return found


def _imported(tree: ast.Module) -> set[str]:
    names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return {part for name in names for part in name.split(".") if is_private(part)}


def _of_other_objects(tree: ast.Module) -> set[str]:
    """Private attributes of anything but `self` and `cls` that no class of the module defines."""
    own = set[str]().union(*(_class(node).defined for node in ast.walk(tree) if isinstance(node, ast.ClassDef)))
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and is_private(node.attr)
        and not _is_self(node.value)
        and node.attr not in own
        and ast.unparse(node) != "os._exit"  # documented
    }


def _inherited(cls: type, ours: dict[str, ast.Module]) -> set[tuple[str, str]]:
    """What this class or our classes below it override of a library's, or use without defining."""
    mine = {each: _class(node) for each in cls.__mro__ if (node := _node(each, ours)) is not None}
    defined = set[str]().union(*(each.defined for each in mine.values()))
    foreign = set[str]().union(
        *(
            attributes(each)
            for each in cls.__mro__
            if each not in mine and each.__module__.partition(".")[0] not in sys.stdlib_module_names
        )
    )
    return {
        (each.__module__, name)
        for each, names in mine.items()
        for name in (names.defined & foreign) | (names.used - defined)
    }


def _node(cls: type, ours: dict[str, ast.Module]) -> ast.ClassDef | None:
    tree = ours.get(cls.__module__)
    nodes = ast.walk(tree) if tree else ()
    return next((node for node in nodes if isinstance(node, ast.ClassDef) and node.name == cls.__name__), None)


def _class(node: ast.ClassDef) -> _Class:
    """An annotation alone defines a field of a dataclass or a model; elsewhere it only gives the name a type."""
    has_fields = bool(node.decorator_list or node.keywords) or any("Model" in ast.unparse(each) for each in node.bases)
    has_fields = has_fields or any(ast.unparse(each) == "NamedTuple" for each in node.bases)
    defined, used = set[str](), set[str]()
    for each in node.body:
        match each:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                defined.add(name)
            case ast.Assign(targets=targets):
                defined.update(target.id for target in targets if isinstance(target, ast.Name))
            case ast.AnnAssign(target=ast.Name(id=name), value=value) if value is not None or has_fields:
                defined.add(name)
    for inner in ast.walk(node):
        if isinstance(inner, ast.Attribute) and _is_self(inner.value):
            (defined if isinstance(inner.ctx, ast.Store) else used).add(inner.attr)
    return _Class(set(filter(is_private, defined)), set(filter(is_private, used)))


def _is_self(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in {"self", "cls"}
