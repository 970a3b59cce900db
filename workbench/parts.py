"""Find a callable by ``module:name``, and say clearly what is wrong when it is not there."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from workbench.errors import ConfigurationError


def resolve(path: str, *, what: str = "callable") -> Any:
    """Return the object named ``module:attribute``.

    Raises:
        ConfigurationError: The form is wrong, the module or attribute does not exist, or the
            module raises while it is imported.

    Example:
        >>> resolve("math:sqrt")(9.0)
        3.0
    """
    module_name, colon, attribute = path.partition(":")
    if not colon or not module_name or not attribute:
        raise ConfigurationError(
            f"{what} is {path!r}; allowed: 'module:name'; write for example 'train:build'"
        )
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and not f"{module_name}.".startswith(f"{error.name}."):
            raise ConfigurationError(
                f"{what} {path!r}: its module needs {error.name!r}, which is not installed; "
                f"install it, or mend the import"
            ) from error
        raise ConfigurationError(
            f"{what} {path!r}: there is no module {module_name!r}; give one that can be imported "
            f"from the pipeline's folder or the environment"
        ) from error
    except (Exception, SystemExit) as error:  # a user's module may raise anything, and leave
        raise ConfigurationError(
            f"{what} {path!r}: importing {module_name!r} raised {_sentence(error)}; "
            "mend the module, or name another"
        ) from error
    for name in attribute.split("."):
        if not hasattr(found, name):
            raise ConfigurationError(
                f"{what} {path!r}: module {module_name!r} has no {attribute!r}; "
                f"it has {', '.join(_public(found)) or 'nothing public'}"
            )
        found = getattr(found, name)
    return found


@contextmanager
def search_path(folders: Sequence[str]) -> Iterator[None]:
    """Put ``folders`` first on ``sys.path`` inside the block.

    Example:
        >>> with search_path(["elsewhere"]):
        ...     sys.path[0]
        'elsewhere'
    """
    before = list(sys.path)
    sys.path[:0] = [folder for folder in folders if folder not in before]
    try:
        yield
    finally:
        sys.path[:] = before


def _public(found: Any) -> list[str]:
    return [name for name in dir(found) if not name.startswith("_")][:8]


def _sentence(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
