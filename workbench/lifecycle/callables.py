"""The user's callables by name: find them, check them, and digest the code they are made of."""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from workbench.errors import ConfigurationError


def load_callable(call: str, search_path: Sequence[str] = (), *, setting: str = "") -> Any:
    """Return the callable ``module:name``; folders of ``search_path`` are looked in first.

    A module whose file changed since it was imported, or that was imported from another folder,
    is imported again.

    Raises:
        ConfigurationError: The module or the name does not exist, or the import fails.

    Example:
        >>> load_callable("math:sqrt")(9.0)
        3.0
    """
    what = f"{setting} is {call!r}" if setting else repr(call)
    module_name, _, name = call.partition(":")
    if not module_name or not name:
        raise ConfigurationError(f'{what}; write "module:function", such as "prepare:load"')
    module = _import(module_name, search_path, what)
    found: Any = module
    for part in name.split("."):
        if not hasattr(found, part):
            public = [key for key, value in vars(module).items() if _is_own(value, module_name)]
            raise ConfigurationError(
                f"{what}, but {module_name} has no {name}; "
                f"it has: {', '.join(sorted(public)) or 'no functions'}"
            )
        found = getattr(found, part)
    if not callable(found):
        raise ConfigurationError(f"{what}, but that is a {type(found).__name__}; give a function")
    return found


def code_digest(call: str, search_path: Sequence[str] = ()) -> str:
    """Return a digest of the code behind ``module:name``.

    The module's file, and every module it imports (also inside functions) that lies in its own
    folder or below a folder of ``search_path``; libraries are not followed. Read from the source:
    nothing is imported.

    Example:
        >>> code_digest("workbench.examples.digits.model:build") == code_digest(
        ...     "workbench.examples.digits.model:other_name")
        True
    """
    digest = hashlib.sha256()
    for file in code_files(call, search_path):
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def code_files(call: str, search_path: Sequence[str] = ()) -> list[Path]:
    """Return the source files that :func:`code_digest` covers, the module's own first.

    Example:
        >>> [file.name for file in code_files("workbench.examples.digits.model:build")][0]
        'model.py'
    """
    module_name = call.partition(":")[0]
    start = _find(module_name, search_path)
    if start is None:
        return []
    depth = len(module_name.split(".")) - (0 if start.name != "__init__.py" else -1)
    roots = [*map(Path, search_path), start.parents[depth - 1]]
    within = [start.parent, *map(Path, search_path)]
    seen: dict[Path, None] = {start: None}
    queue = [start]
    while queue:
        for file in _imported(queue.pop(0), roots):
            if file not in seen and _is_users(file, within):
                seen[file] = None
                queue.append(file)
    first, *others = seen
    return [first, *sorted(others)]


def code_paths(call: str, search_path: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the files or top folders to ship with a model so that ``call`` can be imported.

    Empty when the module is installed, as in ``workbench.examples``.

    Example:
        >>> code_paths("workbench.examples.digits.model:build")
        ()
    """
    tops: dict[str, None] = {}
    for file in code_files(call, search_path):
        for folder in search_path:
            if file.is_relative_to(folder):
                tops[str(Path(folder) / file.relative_to(folder).parts[0])] = None
                break
    return tuple(tops)


def _import(module_name: str, search_path: Sequence[str], what: str) -> Any:
    for folder in reversed(search_path):
        if folder not in sys.path:
            sys.path.insert(0, folder)
    _forget_if_stale(module_name, search_path)
    importlib.invalidate_caches()
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and (module_name == error.name or module_name.startswith(f"{error.name}.")):
            folders = ", ".join(search_path) or "the current folder and the installed packages"
            raise ConfigurationError(
                f"{what}, but there is no module {module_name}; looked in {folders}"
            ) from None
        raise ConfigurationError(f"{what}, but importing {module_name} needs {error}") from error
    except (Exception, SystemExit) as error:  # whatever the user's module raises is configuration
        raise ConfigurationError(
            f"{what}, but importing {module_name} raised {type(error).__name__}: {error}"
        ) from error
    file = getattr(module, "__file__", None)
    if file and Path(file).exists():
        _imported_at[module_name] = _fingerprint(Path(file))
    return module


_imported_at: dict[str, tuple[str, str]] = {}


def _fingerprint(file: Path) -> tuple[str, str]:
    return str(file.resolve()), hashlib.sha256(file.read_bytes()).hexdigest()


def _forget_if_stale(module_name: str, search_path: Sequence[str]) -> None:
    expected = _find(module_name, search_path)
    known = _imported_at.get(module_name)
    if expected is None or known is None or known == _fingerprint(expected):
        return
    for file in code_files(module_name, search_path):
        for name, module in sys.modules.copy().items():  # other threads import
            if getattr(module, "__file__", None) == str(file):
                del sys.modules[name]
    sys.modules.pop(module_name, None)


def _find(module_name: str, search_path: Sequence[str]) -> Path | None:
    for folder in search_path:
        file = _module_file(Path(folder), module_name)
        if file:
            return file
    try:
        spec = importlib.util.find_spec(module_name)
    except (ImportError, ValueError):
        return None
    return Path(spec.origin) if spec and spec.origin and spec.origin.endswith(".py") else None


def _module_file(root: Path, module_name: str) -> Path | None:
    base = root.joinpath(*module_name.split("."))
    for file in (base.with_suffix(".py"), base / "__init__.py"):
        if file.is_file():
            return file
    return None


def _imported(file: Path, roots: Sequence[Path]) -> Iterator[Path]:
    try:
        tree = ast.parse(file.read_bytes())
    except SyntaxError:
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [(0, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            inner = [".".join(filter(None, (node.module, alias.name))) for alias in node.names]
            names = [
                (node.level, name) for name in (*([node.module] if node.module else []), *inner)
            ]
        else:
            continue
        for level, name in names:
            bases = [file.parents[level - 1]] if level else roots
            yield from (found for root in bases if (found := _module_file(root, name)))


def _is_users(file: Path, within: Sequence[Path]) -> bool:
    if "site-packages" in file.parts:
        return False
    return any(file.is_relative_to(folder) for folder in within)


def _is_own(value: Any, module_name: str) -> bool:
    return callable(value) and getattr(value, "__module__", None) == module_name


AnyCall = Callable[..., Any]
