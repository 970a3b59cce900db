"""What the words after `wb run` mean."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.cli.targets import (
    PolicyChoice,
    Workers,
    check_engine,
    examples,
    find_target,
    overrides_of,
    policies_from,
    policy_from,
    split_words,
    workers_from,
)
from workbench.errors import ConfigurationError, UsageError

names = st.from_regex(r"[a-z][a-z_]{0,8}", fullmatch=True)
plain = st.recursive(
    st.integers(-999, 999) | st.booleans() | names,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=5,
)


@settings(deadline=None, max_examples=100)
@given(name=names, options=st.dictionaries(names, plain, max_size=3))
def test_a_policy_written_as_text_is_read_back_the_same(name: str, options: dict) -> None:  # type: ignore[type-arg]
    text = ",".join([name, *(f"{key}={json.dumps(value)}" for key, value in options.items())])
    assert policy_from(text) == PolicyChoice(name=name, options=options)


@settings(deadline=None, max_examples=40)
@given(low=st.integers(1, 99), more=st.integers(0, 99), options=st.dictionaries(names, plain))
def test_workers_and_policies_survive_the_way_through_yaml(
    low: int,
    more: int,
    options: dict,  # type: ignore[type-arg]
) -> None:
    workers = Workers(low=low, high=low + more)
    given_ = overrides_of(workers, [PolicyChoice(name="p", options=options)])
    values = [yaml.safe_load(text.partition("=")[2]) for text in given_]
    assert workers_from(values[0]) == workers
    assert values[1] == [{"p": options}]


@pytest.mark.parametrize("text", ["0", "-1", "two", "4:2", "1:", ":4", "1:2:3", "1.5", ""])
def test_impossible_workers_are_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="MIN:MAX"):
        workers_from(text)


def test_none_is_no_policy_at_all_and_stands_alone() -> None:
    assert policies_from(["none"]) == []
    assert overrides_of(None, []) == ["train.policies=[]"]
    with pytest.raises(ConfigurationError, match="none alone"):
        policies_from(["none", "schedule,at=1:2"])


@pytest.mark.parametrize("text", ["", ",a=1", "grow,512", "grow,a b=1"])
def test_a_policy_that_is_not_name_and_options_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="--policy"):
        policy_from(text)


def test_a_word_with_an_equals_sign_is_an_override_unless_it_is_a_file(outside: Path) -> None:
    assert split_words(["train.epochs=3"]) == (None, ["train.epochs=3"])
    (outside / "a=b.yaml").touch()
    assert split_words(["a=b.yaml", "x=1"]) == ("a=b.yaml", ["x=1"])


def test_a_second_target_is_refused() -> None:
    with pytest.raises(UsageError, match="'income' is not an override"):
        split_words(["digits", "income"])


def test_no_target_is_the_quickstart() -> None:
    assert find_target(None) == examples()["digits"]
    assert not find_target(None).script


def test_a_file_comes_before_an_example_of_the_same_name(outside: Path) -> None:
    (outside / "digits").mkdir()
    (outside / "digits" / "pipeline.yaml").touch()
    assert find_target("digits").path == Path("digits/pipeline.yaml")


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("digit", "did you mean 'digits'"),
        ("nothing", "there is no pipeline or example 'nothing'"),
        ("nowhere/pipeline.yaml", "does not exist"),
        ("data.csv", "does not exist"),
    ],
)
def test_a_target_that_is_not_there_is_named(word: str, said: str, outside: Path) -> None:
    assert outside.exists()
    with pytest.raises(ConfigurationError, match=said):
        find_target(word)


def test_a_file_of_another_kind_is_refused(outside: Path) -> None:
    (outside / "data.csv").touch()
    with pytest.raises(ConfigurationError, match=r"ending in \.yaml, \.yml or \.py"):
        find_target("data.csv")


@pytest.mark.parametrize("engine", ["horovod", "ray"])
def test_an_engine_that_is_not_built_is_refused(engine: str) -> None:
    with pytest.raises(ConfigurationError, match="allowed: local"):
        check_engine(engine)
