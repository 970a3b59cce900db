"""What the words after `wb run` mean: a target, overrides, workers and policies."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from workbench.errors import ConfigurationError, UsageError

QUICKSTART = "digits"
PIPELINE, SCRIPT = "pipeline.yaml", "train.py"
_OVERRIDE = re.compile(r"^[A-Za-z_][\w.-]*=")
_ENGINES = ("local",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What to run: a pipeline's file, or a user's training script."""

    path: Path
    script: bool

    @property
    def name(self) -> str:
        """Name for people: the script's, or that of the pipeline's folder."""
        return self.path.stem if self.script else self.path.parent.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Workers:
    """How many processes: from ``low``, where a job starts, to ``high``.

    Example:
        >>> workers_from("1:4")
        Workers(low=1, high=4)
    """

    low: int
    high: int

    def __str__(self) -> str:
        return str(self.low) if self.low == self.high else f"{self.low}:{self.high}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyChoice:
    """A policy by name with its options, as given by ``--policy``."""

    name: str
    options: dict[str, Any]


def split_words(words: Sequence[str]) -> tuple[str | None, list[str]]:
    """Return the target, if one is given, and the overrides.

    Raises:
        UsageError: A word is neither.

    Example:
        >>> split_words(["income", "train.epochs=3"]), split_words(["train.epochs=3"])
        (('income', ['train.epochs=3']), (None, ['train.epochs=3']))
    """
    target = None
    overrides = list(words)
    if overrides and (not _OVERRIDE.match(overrides[0]) or Path(overrides[0]).exists()):
        target = overrides.pop(0)
    for word in overrides:
        if not _OVERRIDE.match(word):
            raise UsageError(
                f"{word!r} is not an override; allowed after the target: section.key=value, such "
                "as train.epochs=3; a script's own arguments come after --"
            )
    return target, overrides


def find_target(word: str | None) -> Target:
    """Return what ``word`` names: a file, a folder with a pipeline, or a bundled example.

    Raises:
        ConfigurationError: There is nothing of that name.

    Example:
        >>> find_target(None).path.parts[-2:]
        ('digits', 'pipeline.yaml')
    """
    path = Path(word or QUICKSTART)
    if word is not None and path.is_file():
        return _file(path)
    if word is not None and (path / PIPELINE).is_file():
        return Target(path=path / PIPELINE, script=False)
    bundled = examples()
    if str(path) in bundled:
        return bundled[str(path)]
    if path.suffix or len(path.parts) > 1:
        raise ConfigurationError(
            f"{path} does not exist; allowed: a pipeline.yaml, a train.py, or a bundled example "
            f"({', '.join(bundled)})"
        )
    near = get_close_matches(str(path), bundled, n=1)
    hint = f"did you mean {near[0]!r}?" if near else "or give the path of a pipeline.yaml"
    raise ConfigurationError(
        f"there is no pipeline or example {str(path)!r}; allowed: {', '.join(bundled)}; {hint}"
    )


def examples() -> dict[str, Target]:
    """Return the bundled examples by name.

    Example:
        >>> "digits" in examples()
        True
    """
    import workbench

    found = {}
    for folder in sorted((Path(workbench.__file__).parent / "examples").glob("*")):
        for name in (PIPELINE, SCRIPT):
            if (folder / name).is_file() and folder.name not in found:
                found[folder.name] = Target(path=folder / name, script=name == SCRIPT)
    return found


def workers_from(text: str) -> Workers:
    """Return ``N`` or ``MIN:MAX`` as a range.

    Raises:
        ConfigurationError: It is neither, or impossible.

    Example:
        >>> workers_from("2")
        Workers(low=2, high=2)
    """
    numbers = re.fullmatch(r"(\d{1,4})(?::(\d{1,4}))?", text.strip())
    low, high = (int(numbers[1]), int(numbers[2] or numbers[1])) if numbers else (0, 0)
    if not 1 <= low <= high:
        raise ConfigurationError(
            f"--workers is {text!r}; allowed: a number from 1 up, or MIN:MAX; write --workers 2 "
            "or --workers 1:4"
        )
    return Workers(low=low, high=high)


def policy_from(text: str) -> PolicyChoice:
    """Return ``NAME[,k=v...]``; values are JSON where they can be, else text.

    Raises:
        ConfigurationError: A part after the name is not ``k=v``.

    Example:
        >>> policy_from("grow_with_noise,max_batch_size=512").options
        {'max_batch_size': 512}
        >>> policy_from('schedule,at={"100": 256},unit=step').options
        {'at': {'100': 256}, 'unit': 'step'}
    """
    name, *pairs = _split_outside_brackets(text)
    if not name:
        raise ConfigurationError(
            f"--policy is {text!r}; allowed: NAME[,key=value...]; write for example "
            "--policy grow_with_noise,max_batch_size=512"
        )
    options: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key.strip().isidentifier():
            raise ConfigurationError(
                f"--policy {text}: {pair!r} is not key=value; write for example "
                f"--policy {name},max_batch_size=512"
            )
        options[key.strip()] = _value(value.strip())
    return PolicyChoice(name=name, options=options)


def policies_from(texts: Sequence[str]) -> list[PolicyChoice] | None:
    """Return the policies given, in order; ``none`` alone is no policy at all.

    Returns:
        ``None`` when the option was not given, so that the pipeline's own policies stand.

    Raises:
        ConfigurationError: ``none`` is given beside others.

    Example:
        >>> policies_from([]), policies_from(["none"])
        (None, [])
    """
    if not texts:
        return None
    choices = [policy_from(text) for text in texts]
    if any(choice.name == "none" for choice in choices):
        if len(choices) > 1:
            raise ConfigurationError(
                f"--policy none is given beside {len(choices) - 1} other; allowed: none alone "
                "(watch only), or policies; drop one of them"
            )
        return []
    return choices


def overrides_of(workers: Workers | None, policies: Sequence[PolicyChoice] | None) -> list[str]:
    """Return ``--workers`` and ``--policy`` as overrides of a pipeline.

    Example:
        >>> overrides_of(Workers(low=1, high=4), [PolicyChoice(name="p", options={"k": 1})])
        ['train.workers="1:4"', 'train.policies=[{"p": {"k": 1}}]']
    """
    given = []
    if workers is not None:
        # Quoted: YAML 1.1 reads 1:4 as the sexagesimal number 64.
        given.append(f"train.workers={json.dumps(str(workers))}")
    if policies is not None:
        entries = [{choice.name: choice.options} for choice in policies]
        given.append(f"train.policies={json.dumps(entries)}")
    return given


def check_engine(name: str) -> None:
    """Raise unless this version has the engine.

    Raises:
        ConfigurationError: It does not.

    Example:
        >>> check_engine("local")
    """
    if name not in _ENGINES:
        known = "is not built here yet" if name == "horovod" else "does not exist"
        raise ConfigurationError(
            f"--engine {name} {known}; allowed: {', '.join(_ENGINES)}; leave it out"
        )


def _file(path: Path) -> Target:
    if path.suffix not in (".py", ".yaml", ".yml"):
        raise ConfigurationError(
            f"{path} is not a pipeline or a script; allowed: a file ending in .yaml, .yml or .py"
        )
    return Target(path=path, script=path.suffix == ".py")


def _split_outside_brackets(text: str) -> list[str]:
    parts, depth = [""], 0
    for character in text:
        depth += (character in "[{(") - (character in "]})")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts]


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return {"True": True, "False": False, "None": None}.get(text, text)
