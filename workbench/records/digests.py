"""SHA-256 digests of contents, for telling whether two things are the same."""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from workbench.errors import ConfigurationError, DataContractError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_CHUNK_BYTES = 1 << 20


def bytes_digest(content: bytes) -> str:
    """Return ``sha256:`` and the digest of some bytes.

    Example:
        >>> bytes_digest(b"")[:20]
        'sha256:e3b0c44298fc1'
    """
    return "sha256:" + hashlib.sha256(content).hexdigest()


def file_digest(path: str | Path) -> str:
    """Return the digest of a file's bytes, whatever its name.

    Raises:
        DataContractError: There is no such file, or it cannot be read.

    Example:
        >>> file_digest(__file__) == bytes_digest(Path(__file__).read_bytes())
        True
    """
    digest = hashlib.sha256()
    try:
        with Path(path).open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
    except OSError as error:
        raise DataContractError(
            f"{path} cannot be read: {error.strerror}; give a file that exists"
        ) from error
    return "sha256:" + digest.hexdigest()


def folder_digest(path: str | Path) -> str:
    """Return the digest of the files under a folder: relative names (sorted) and contents.

    Empty folders, permissions and times do not count; a link counts as what it points at.

    Raises:
        DataContractError: There is no such folder, or a file in it cannot be read.

    Example:
        >>> folder_digest("no/such/folder")
        Traceback (most recent call last):
        workbench.errors.DataContractError: no/such/folder is no folder; ...
    """
    folder = Path(path)
    if not folder.is_dir():
        raise DataContractError(f"{path} is no folder; give a folder that exists")
    names = sorted(
        entry.relative_to(folder).as_posix() for entry in _files(folder) if entry.is_file()
    )
    return json_digest([[name, file_digest(folder / name)] for name in names])


def path_digest(path: str | Path) -> str:
    """Return the digest of a file or of a folder.

    Example:
        >>> path_digest(__file__) == file_digest(__file__)
        True
    """
    return folder_digest(path) if Path(path).is_dir() else file_digest(path)


def json_digest(value: Any) -> str:
    """Return the digest of a value of plain JSON types, whatever the order of its keys.

    Raises:
        ConfigurationError: The value is not of plain JSON types.

    Example:
        >>> json_digest({"a": 1, "b": [2.5, None]}) == json_digest({"b": [2.5, None], "a": 1})
        True
    """
    try:
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(
            f"no digest of {type(value).__name__}: {error}; use numbers, texts, lists, dictionaries"
        ) from error
    return bytes_digest(text.encode())


def array_digest(array: npt.NDArray[Any] | np.generic) -> str:
    """Return the digest of an array's type, shape and values, whatever its memory layout.

    Objects count by their ``repr``.

    Example:
        >>> import numpy as np
        >>> grid = np.arange(6).reshape(2, 3)
        >>> array_digest(grid) == array_digest(np.asfortranarray(grid))
        True
        >>> array_digest(grid) == array_digest(grid.astype("int32"))
        False
    """
    import numpy as np

    solid = np.asarray(array, order="C")
    native = solid.dtype.newbyteorder("<")
    digest = hashlib.sha256(f"{native.str}{list(solid.shape)}".encode())
    if solid.dtype.hasobject:
        digest.update(json.dumps([repr(item) for item in solid.ravel()]).encode())
    else:
        digest.update(np.ascontiguousarray(solid, dtype=native).tobytes())
    return "sha256:" + digest.hexdigest()


def source_digest(function: Callable[..., Any] | ModuleType | str) -> str:
    """Return the digest of the file that a function, class or module is written in.

    The whole file counts, since a function calls its neighbours; what the file imports does not.

    Args:
        function: A callable, a module, or the dotted name of a module (which is not imported).

    Raises:
        ConfigurationError: It is not written in a file (typed at a prompt, or built in).

    Example:
        >>> source_digest(source_digest) == file_digest(__file__)
        True
    """
    path = _source_file(function)
    if path is None or not path.is_file():
        raise ConfigurationError(
            f"{function!r} is not written in a file; put it in a module: then a change is noticed"
        )
    return file_digest(path)


def _source_file(function: Callable[..., Any] | ModuleType | str) -> Path | None:
    if isinstance(function, str):
        spec = importlib.util.find_spec(function)
        return Path(spec.origin) if spec is not None and spec.origin else None
    unwrapped = inspect.unwrap(function) if callable(function) else function
    while hasattr(unwrapped, "func"):  # functools.partial
        unwrapped = unwrapped.func
    try:
        return Path(inspect.getfile(unwrapped))
    except TypeError:
        module = sys.modules.get(type(unwrapped).__module__)
        file = getattr(module, "__file__", None)
        return Path(file) if file and type(unwrapped).__module__ != "builtins" else None


def _files(folder: Path) -> Iterator[Path]:
    # rglob does not open linked folders; a data folder may well be links.
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _files(entry)
        else:
            yield entry
