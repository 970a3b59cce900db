"""A policy by name or by ``module:Class``: what is built, and one line for each mistake."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from workbench.decision import Keep, SetBatchSize
from workbench.engine import Engine
from workbench.errors import ConfigurationError
from workbench.parts import search_path
from workbench.policies import (
    POLICIES,
    GrowWithNoise,
    Schedule,
    WatchOnly,
    build_policy,
    policy_path,
)
from workbench.policy import Policy, StatefulPolicy, View, policy_name

MINE = '''
"""Policies of a user."""

from dataclasses import dataclass

from workbench import Decision, Keep, SetBatchSize, View


@dataclass(frozen=True, kw_only=True)
class DoubleAt:
    """Double the batch at one step."""

    step: int = 100

    def __post_init__(self):
        if self.step < 0:
            raise ValueError("step must be 0 or more")

    def decide(self, view: View) -> Decision:
        if view.step == self.step:
            return SetBatchSize(2 * view.batch_size_global, reason=f"step {self.step}")
        return Keep()


class NoDecide:
    """Not a policy."""


INSTANCE = DoubleAt()
'''

VIEW = View(step=7, epoch=0, samples=56, workers=1, batch_size_global=8)


@pytest.fixture
def mine(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "my_policies.py").write_text(MINE)
    with search_path([str(tmp_path)]):
        yield "my_policies"
    sys.modules.pop("my_policies", None)


def message(name: str, options: dict[str, Any] | None = None) -> str:
    with pytest.raises(ConfigurationError) as caught:
        build_policy(name, options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "options", "policy"),
    [
        ("grow_with_noise", {"max_batch_size": 512}, GrowWithNoise(max_batch_size=512)),
        ("schedule", {"at": "100:128", "by": "epoch"}, Schedule(at={100: 128}, by="epoch")),
        ("none", None, WatchOnly()),
        ("workbench.policies:WatchOnly", {}, WatchOnly()),
    ],
)
def test_a_name_and_its_options_give_the_policy(name: str, options: Any, policy: Any) -> None:
    assert build_policy(name, options) == policy


def test_the_table_holds_each_policy_under_its_own_name() -> None:
    assert {name: policy_name(kind) for name, kind in POLICIES.items()} == {  # type: ignore[arg-type]
        name: name for name in POLICIES
    }


@pytest.mark.parametrize("name", POLICIES)
def test_every_name_has_a_path_by_which_a_worker_finds_the_same_class(name: str) -> None:
    needed: dict[str, dict[str, Any]] = {
        "grow_with_noise": {"max_batch_size": 8},
        "schedule": {"at": "1:8"},
    }
    options = needed.get(name)
    assert policy_path(name).startswith("workbench.policies.")
    assert build_policy(policy_path(name), options) == build_policy(name, options)
    assert policy_path(policy_path(name)) == policy_path(name)


def test_the_policies_of_the_table_are_policies_without_memory() -> None:
    built = [GrowWithNoise(max_batch_size=8), Schedule(at={1: 8}), WatchOnly()]
    assert all(isinstance(policy, Policy) for policy in built)
    assert not any(isinstance(policy, StatefulPolicy) for policy in built)


@pytest.mark.parametrize("step", [0, 1, 10**6])
def test_watch_only_keeps_whatever_it_sees(step: int) -> None:
    view = View(step=step, epoch=0, samples=8 * step, workers=1, batch_size_global=8)
    assert WatchOnly().decide(view) == Keep()


def test_a_users_own_class_is_found_built_and_asked(mine: str) -> None:
    policy = build_policy(f"{mine}:DoubleAt", {"step": 7})
    assert policy_name(policy) == "DoubleAt"
    assert Engine(policies=(policy,)).policies[0].decide(VIEW) == SetBatchSize(  # type: ignore[call-arg]
        16, reason="step 7"
    )


def test_an_unknown_name_lists_those_allowed() -> None:
    assert message("grow") == (
        "policy is 'grow'; allowed: grow_with_noise, schedule, none, or 'module:Class' of your own"
    )


def test_a_missing_option_is_named_with_those_allowed() -> None:
    assert message("grow_with_noise") == (
        "policy grow_with_noise: missing a required argument: 'max_batch_size'; given: {}; "
        "allowed options: max_batch_size (needed), ratio"
    )


def test_an_unknown_option_is_named_with_those_allowed() -> None:
    assert message("schedule", {"at": "1:8", "every": 3}) == (
        "policy schedule: got an unexpected keyword argument 'every'; "
        "given: {'at': '1:8', 'every': 3}; allowed options: at (needed), by"
    )


def test_a_policy_without_options_says_so() -> None:
    assert message("none", {"step": 1}).endswith("given: {'step': 1}; allowed options: none")


def test_an_impossible_value_keeps_the_policys_own_words() -> None:
    assert message("grow_with_noise", {"max_batch_size": -4}).startswith(
        "grow_with_noise: max_batch_size is -4; allowed: a whole number, 1 or more"
    )


def test_an_error_of_a_users_class_is_told_as_a_setting(mine: str) -> None:
    assert message(f"{mine}:DoubleAt", {"step": -1}) == (
        "policy my_policies:DoubleAt: step must be 0 or more; given: {'step': -1}; "
        "allowed options: step"
    )


@pytest.mark.parametrize(
    ("attribute", "said"),
    [
        ("Nothing", "module 'my_policies' has no 'Nothing'; it has "),
        ("NoDecide", "has no decide(view); add the method, as docs/policies/own.md shows"),
        ("INSTANCE", "is a DoubleAt; allowed: a class with decide(view)"),
    ],
)
def test_a_path_to_something_else_says_what_it_is(mine: str, attribute: str, said: str) -> None:
    assert said in message(f"{mine}:{attribute}")


@pytest.mark.parametrize(
    "path", ["builtins:int", "builtins:len", "math:pi", "os:path", "no_such:P"]
)
def test_a_path_to_no_policy_at_all_is_still_one_clear_line(path: str) -> None:
    assert message(path).startswith(f"policy {path}") or message(path).startswith("policy 'no_such")
