"""Where a user's function is: in a Python file that is named, or in an installed package."""

from __future__ import annotations

import hashlib
import importlib.metadata
import inspect
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from atlas_tune.errors import UsageError, nearest
from atlas_tune.trajectory.visible import one_line

GROUP = "atlas_tune.selectors"
"""The entry point group in which packages name their selectors."""
_FILE = ".py:"

Function = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Custom:
    """A user's function, ready to be called."""

    name: str
    """How labels name it: ``mine.py:label``, or the entry point's name."""
    function: Function
    code: str
    """A hash of the text of the file that it stands in."""
    path: str
    """That file."""


def is_in_file(name: str) -> bool:
    """Whether a name is one of a function in a file."""
    return _FILE in name


def is_custom(name: str) -> bool:
    """Whether a name is one of a function in a file, or one that an installed package gives."""
    return is_in_file(name) or bool(_entry_points(name))


def custom_names() -> tuple[str, ...]:
    """The names that installed packages give."""
    return tuple(sorted({point.name for point in _entry_points()}))


def located(name: str, base: Path) -> str:
    """The name with its file's path made relative to the working directory.

    Args:
        name: any selector's name; one without a file stays as it is.
        base: the directory that the path is relative to.

    Raises:
        UsageError: there is no such file.
    """
    if not is_in_file(name):
        return name
    path, function = split_name(name)
    found = base / path.expanduser()
    _check_file(found)
    return f"{found}:{function}"


def load_custom(name: str) -> Custom:
    """The function of a name; its file is executed, or its package imported.

    Raises:
        UsageError: no such file, package or function, or it cannot be imported; the message says
            in which line.
    """
    return _from_file(name) if is_in_file(name) else _from_package(name)


def _from_file(name: str) -> Custom:
    path, function = split_name(name)
    _check_file(path)
    text = path.read_bytes()
    code = hashlib.sha256(text).hexdigest()
    module = ModuleType(f"atlas_tune_custom_{code[:12]}")
    module.__file__ = str(path)
    # Under its name while it runs and after: dataclasses look their module up.
    sys.modules[module.__name__] = module
    beside = str(path.parent.resolve())
    sys.path.insert(0, beside)  # so that it can import what lies beside it
    try:
        # What was hashed is what is run: no compiled file of an older text comes in.
        exec(compile(text, str(path), "exec"), module.__dict__)
    except (Exception, SystemExit) as error:
        raise UsageError(
            f"The selector {name} cannot be imported: {place_of(error, str(path))}"
        ) from error
    finally:
        with suppress(ValueError):  # it may have changed the path itself
            sys.path.remove(beside)
    return Custom(f"{path.name}:{function}", _function(module, function, path), code, str(path))


def _from_package(name: str) -> Custom:
    points = _entry_points(name)
    if len({(point.value, point.dist and point.dist.name) for point in points}) > 1:
        packages = sorted(point.dist.name if point.dist else point.value for point in points)
        raise UsageError(
            f"The selector '{name}' is given by {' and by '.join(packages)}: remove one of them, "
            "or name the function's file."
        )
    try:
        function = points[0].load()
    except (Exception, SystemExit) as error:
        raise UsageError(
            f"The selector '{name}' ({points[0].value}) cannot be imported: {place_of(error, '')}"
        ) from error
    if not callable(function):
        raise UsageError(f"The selector '{name}' ({points[0].value}) is not a function.")
    path = _file_of(function)
    text = Path(path).read_bytes() if path else points[0].value.encode()
    version = points[0].dist.version if points[0].dist else ""
    return Custom(name, function, hashlib.sha256(version.encode() + b"\n" + text).hexdigest(), path)


def _entry_points(name: str | None = None) -> list[importlib.metadata.EntryPoint]:
    points = importlib.metadata.entry_points(group=GROUP)
    return [point for point in points if name is None or point.name == name]


def _file_of(function: Function) -> str:
    """The file in which a function stands; empty where that cannot be told (compiled code)."""
    try:
        return inspect.getsourcefile(inspect.unwrap(function)) or ""
    except TypeError:
        return ""


def split_name(name: str) -> tuple[Path, str]:
    """The file and the function of a name like ``./mine.py:label``.

    Raises:
        UsageError: it names no function.
    """
    file, _, function = name.rpartition(":")
    if not file.endswith(".py") or not function.isidentifier():
        raise UsageError(
            f"The selector '{name}' names no function: write the file, a colon and the function, "
            "as in ./mine.py:label."
        )
    return Path(file), function


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise UsageError(f"There is no file {path}, which a selector names. Check the path.")


def _function(module: ModuleType, name: str, path: Path) -> Function:
    found = getattr(module, name, None)
    if callable(found):
        return found  # type: ignore[no-any-return]
    functions = [
        key
        for key, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == module.__name__
    ]
    what = "is not a function" if found is not None else "does not exist"
    hint = f": {nearest(name, functions)}" if functions else "."
    raise UsageError(f"The selector {path}:{name} {what}{hint}")


def place_of(error: BaseException, path: str) -> str:
    """File, line and first line of an exception: the deepest line within the user's own file."""
    told = one_line(str(error).split("\n", 1)[0]) or "no message"
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}: {type(error).__name__}: {error.msg}"
    frames = list(traceback.extract_tb(error.__traceback__))
    frames = [frame for frame in frames if frame.filename == path] or frames
    where = f"{frames[-1].filename}:{frames[-1].lineno}: " if frames else ""
    return f"{where}{type(error).__name__}: {told}"
