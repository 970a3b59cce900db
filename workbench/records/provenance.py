"""Where a run came from: code, environment, hardware, who and where."""

from __future__ import annotations

import getpass
import os
import platform
import shlex
import socket
import subprocess
import sys
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

from .digests import bytes_digest, json_digest

_GIT_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeState:
    """The state of the code in git.

    Attributes:
        commit: 40 hexadecimal digits; empty outside git, without git, or before a first commit.
        branch: Empty when detached or unknown.
        dirty: Whether files differ from the commit, or are new and not ignored.
        diff_digest: Digest of those differences; empty when clean.
        root: Top folder of the checkout; empty outside git.

    Example:
        >>> CodeState().commit
        ''
    """

    commit: str = ""
    branch: str = ""
    dirty: bool = False
    diff_digest: str = ""
    root: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """The software that ran.

    Attributes:
        python: Version.
        platform: Operating system and processor type.
        torch: Version, empty when not installed.
        packages: Version of each installed distribution, by name.
        packages_digest: Digest of ``packages``.

    Example:
        >>> environment().python == platform.python_version()
        True
    """

    python: str
    platform: str
    torch: str
    packages: dict[str, str] = field(default_factory=dict)
    packages_digest: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """The machine that ran.

    Attributes:
        cpu: Model name, or the processor type.
        cores: Cores this process may use.
        memory_bytes: Physical memory; 0 when unknown.
        gpus: Name of each GPU.

    Example:
        >>> hardware().cores >= 1
        True
    """

    cpu: str
    cores: int
    memory_bytes: int
    gpus: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Everything about where a run came from.

    Attributes:
        code: State of the code.
        environment: The software.
        hardware: The machine.
        user: Name of the account.
        host: Name of the machine.
        command: The command line, quoted for a shell.
        folder: Working folder.

    Example:
        >>> provenance().tags()["wb.python"] == platform.python_version()
        True
    """

    code: CodeState
    environment: Environment
    hardware: Hardware
    user: str
    host: str
    command: str
    folder: str

    def tags(self) -> dict[str, str]:
        """Return it as the tags of a run (the list of packages by its digest only)."""
        tags = {
            "wb.python": self.environment.python,
            "wb.platform": self.environment.platform,
            "wb.torch": self.environment.torch,
            "wb.packages": self.environment.packages_digest,
            "wb.cpu": self.hardware.cpu,
            "wb.cores": str(self.hardware.cores),
            "wb.memory_gib": f"{self.hardware.memory_bytes / 2**30:.1f}",
            "wb.gpus": ", ".join(self.hardware.gpus),
            "wb.user": self.user,
            "wb.host": self.host,
            "wb.command": self.command,
            "wb.git.dirty": str(self.code.dirty).lower() if self.code.commit else "",
            "wb.git.diff": self.code.diff_digest,
            "mlflow.source.name": source_name(self.command),
            "mlflow.source.git.commit": self.code.commit,
            "mlflow.source.git.branch": self.code.branch,
        }
        return {key: value for key, value in tags.items() if value}


def source_name(command: str) -> str:
    """Return the command without paths: MLflow's UI shows only what follows the last slash.

    Example:
        >>> source_name("/usr/bin/wb run a/pipeline.yaml data.path=b/c.csv")
        'wb run pipeline.yaml data.path=c.csv'
    """
    words = (
        f"{head}{mark}{Path(tail).name}" for head, mark, tail in map(_setting, command.split())
    )
    return " ".join(words)


def _setting(word: str) -> tuple[str, str, str]:
    head, mark, tail = word.partition("=")
    return (head, mark, tail) if mark else ("", "", word)


def provenance(folder: str | Path = ".", argv: list[str] | None = None) -> Provenance:
    """Return where this process comes from.

    Args:
        folder: A folder of the code.
        argv: The command line; this process's own when not given.

    Example:
        >>> provenance(argv=["wb", "run", "a b"]).command
        "wb run 'a b'"
    """
    return Provenance(
        code=code_state(folder),
        environment=environment(),
        hardware=hardware(),
        user=user_name(),
        host=socket.gethostname(),
        command=shlex.join(sys.argv if argv is None else argv),
        folder=str(Path(folder).absolute()),
    )


def code_state(folder: str | Path = ".") -> CodeState:
    """Return the state of the git checkout that holds ``folder``; an empty one without git.

    The digest of the differences covers changed files (also staged) and the contents of new ones.

    Example:
        >>> code_state("/").commit
        ''
    """
    root = _git(folder, "rev-parse", "--show-toplevel").strip()
    if not root:
        return CodeState()
    commit = _git(root, "rev-parse", "--verify", "--quiet", "HEAD").strip()
    status = _git(root, "status", "--porcelain", "--untracked-files=all", "-z")
    return CodeState(
        commit=commit,
        branch=_git(root, "symbolic-ref", "--quiet", "--short", "HEAD").strip(),
        dirty=bool(status),
        diff_digest=_diff_digest(root, commit) if status else "",
        root=root,
    )


def environment() -> Environment:
    """Return the software of this process; nothing is imported for it.

    Example:
        >>> environment().packages_digest.startswith("sha256:")
        True
    """
    packages = {
        str(item.metadata["Name"]).lower().replace("_", "-"): item.version
        for item in metadata.distributions()
        if item.metadata["Name"]
    }
    return Environment(
        python=platform.python_version(),
        platform=f"{platform.system()} {platform.release()} {platform.machine()}",
        torch=packages.get("torch", ""),
        packages=dict(sorted(packages.items())),
        packages_digest=json_digest(packages),
    )


def hardware() -> Hardware:
    """Return the machine, without importing torch.

    Example:
        >>> hardware().memory_bytes >= 0
        True
    """
    return Hardware(
        cpu=_cpu_name(),
        cores=_cores(),
        memory_bytes=_memory_bytes(),
        gpus=_gpus(),
    )


def _diff_digest(root: str, commit: str) -> str:
    differences = _git(root, "diff", "--binary", "--no-ext-diff", commit) if commit else ""
    new = _git(root, "ls-files", "--others", "--exclude-standard", "-z").split("\0")
    if not commit:
        new += _git(root, "ls-files", "-z").split("\0")
    contents = [[name, _size_and_time(Path(root) / name)] for name in sorted(filter(None, new))]
    return json_digest([bytes_digest(differences.encode("utf-8", "surrogateescape")), contents])


def _size_and_time(path: Path) -> str:
    # New files may be data of any size: small ones count by content, large ones by size and time.
    try:
        if path.is_file() and path.stat().st_size <= 1 << 20:
            return bytes_digest(path.read_bytes())
        return f"{path.stat().st_size} {path.stat().st_mtime_ns}"
    except OSError:
        return "unreadable"


def _git(folder: str | Path, *arguments: str) -> str:
    return _output(["git", "-C", str(folder), *arguments], {"GIT_OPTIONAL_LOCKS": "0"})


def _output(command: list[str], variables: dict[str, str] | None = None) -> str:
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            timeout=_GIT_SECONDS,
            check=False,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **(variables or {})},
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode("utf-8", "surrogateescape") if done.returncode == 0 else ""


def user_name() -> str:
    """Return the account's name, ``unknown`` when it has none.

    Example:
        >>> bool(user_name())
        True
    """
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a user id without a name, as in some containers
        return "unknown"


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            if line.lower().startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _memory_bytes() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 0


def _gpus() -> tuple[str, ...]:
    listed = _output(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"])
    return tuple(line.strip() for line in listed.splitlines() if line.strip())
