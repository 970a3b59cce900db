"""Pipelines from YAML and overrides, and the lines that bad ones get."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.errors import ConfigurationError
from workbench.lifecycle.loading import apply_override, load_pipeline, loading_problems
from workbench.lifecycle.pipeline import Pipeline, pipeline_schema, workers_range

TEXT = """name: tiny
prepare: {call: "prepare:load", path: data/rows.csv}
train:
  model: "model:build"
  epochs: 3
evaluate: {metrics: [accuracy]}
audit:
  attributes: [sex]
  gates:
    - {metric: demographic_parity_difference, max: 0.2}
register: {model: tiny}
"""
names = st.from_regex(r"[a-z][a-z_]{0,6}", fullmatch=True)
plain = st.recursive(
    st.integers(-1000, 1000) | st.booleans() | names | st.floats(-1e6, 1e6, allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=6,
)


def as_yaml(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True).removesuffix("...\n").strip()


def written(tmp_path: Path, text: str = TEXT) -> Path:
    path = tmp_path / "pipeline.yaml"
    path.write_text(text)
    return path


def problem(tmp_path: Path, text: str, *overrides: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load_pipeline(written(tmp_path, text), overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@settings(deadline=None, max_examples=60)
@given(
    base=st.dictionaries(names, plain, max_size=3),
    path=st.lists(names, min_size=1, max_size=3),
    value=plain,
)
def test_an_override_sets_its_own_setting_and_nothing_else(
    base: dict[str, Any], path: list[str], value: Any
) -> None:
    before = yaml.safe_dump(base)
    override = f"{'.'.join(path)}={as_yaml(value)}"
    try:
        changed = apply_override(base, override)
    except ConfigurationError:
        node: Any = base
        for name in path[:-1]:
            node = node.get(name, {}) if isinstance(node, dict) else node
        assert not isinstance(node, dict)
        return
    found: Any = changed
    for name in path:
        found = found[name]
    assert found == value
    assert yaml.safe_dump(base) == before
    assert {k: v for k, v in changed.items() if k != path[0]} == {
        k: v for k, v in base.items() if k != path[0]
    }


@settings(deadline=None, max_examples=40)
@given(value=plain)
def test_applying_an_override_twice_is_applying_it_once(value: Any) -> None:
    override = f"a.b={as_yaml(value)}"
    once = apply_override({"a": {"c": 1}}, override)
    assert apply_override(once, override) == once


def test_overrides_reach_into_lists_and_append_at_the_end() -> None:
    settings_ = {"gates": [{"max": 0.2}]}
    assert apply_override(settings_, "gates.0.max=0.01") == {"gates": [{"max": 0.01}]}
    assert apply_override(settings_, "gates.1.max=3") == {"gates": [{"max": 0.2}, {"max": 3}]}
    with pytest.raises(ConfigurationError, match=r"allowed: 0 to 1"):
        apply_override(settings_, "gates.5.max=3")


@pytest.mark.parametrize("override", ["epochs", "=3", "a..b=1", "name.x=1", "a=[1"])
def test_an_impossible_override_is_refused_in_one_line(override: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        apply_override({"name": "tiny"}, override)
    assert override in str(caught.value)
    assert "\n" not in str(caught.value)


def test_numbers_in_scientific_notation_are_numbers(tmp_path: Path) -> None:
    pipeline = load_pipeline(written(tmp_path), ["train.optimizer={name: sgd, lr: 1e-3}"])
    assert pipeline.train.optimizer.part().options == {"lr": 0.001}


@pytest.mark.parametrize(
    ("text", "value"),
    [("1:4", "1:4"), ("no", "no"), ("010", 10), ("0x10", 16), ("true", True), ("1e3", 1000.0)],
)
def test_values_are_read_by_the_rules_of_yaml_1_2(text: str, value: Any) -> None:
    assert apply_override({}, f"a={text}") == {"a": value}


def test_an_unknown_key_names_its_line_the_allowed_ones_and_the_one_meant(tmp_path: Path) -> None:
    said = problem(tmp_path, TEXT.replace("epochs: 3", "epoch: 3"))
    assert said.startswith("pipeline.yaml:5: train.epoch is not a known setting; allowed: model,")
    assert said.endswith("did you mean epochs?")


def test_a_wrong_type_says_what_was_given(tmp_path: Path) -> None:
    said = problem(tmp_path, TEXT.replace("epochs: 3", "epochs: many"))
    assert said.startswith(
        "pipeline.yaml:5: train.epochs is 'many'; input should be a valid integer"
    )


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("train.batch_size=-4", "greater than or equal to 1"),
        ("train.workers=4:1", "MIN:MAX"),
        ("train.workers=0", "a number from 1"),
        ("train.precision=float8", "allowed: float32, bfloat16, float16"),
        ("train.clip_grad_norm=0", "greater than 0"),
        ("train.clip_grad_norm=.nan", "finite number"),
        ("prepare.call=load", "module:function"),
        ("evaluate.metrics=[acuracy]", "did you mean accuracy?"),
        ("prepare.split={test: 0.9, held_back: 0.2}", "below 1"),
        ("train.policies=[{a: {}, b: {}}]", "got 2 names"),
        ("audit.gates.0.attribute=race", "allowed: sex"),
        ("audit.gates=[{metric: x}]", "needs max or min"),
        ("register.model=a/b", "letters, digits"),
        ("contract={columns: {a: {min: 3, max: 1}}}", "min 3 is above max 1"),
        ("evaluate=null", "add evaluate"),
    ],
)
def test_an_impossible_value_gets_one_line_that_names_it(
    tmp_path: Path, override: str, said: str
) -> None:
    assert said in problem(tmp_path, TEXT, override)


def test_a_bad_override_is_located_on_the_command_line(tmp_path: Path) -> None:
    said = problem(tmp_path, TEXT, "train.epochs=0")
    assert said.startswith("command line (train.epochs=0): train.epochs is 0;")


def test_deploy_without_register_says_what_to_add(tmp_path: Path) -> None:
    text = TEXT.replace("register: {model: tiny}", "deploy: {alias: champion}")
    assert "add register" in problem(tmp_path, text)


def test_a_missing_section_is_named(tmp_path: Path) -> None:
    said = problem(tmp_path, "name: tiny\nprepare: {call: 'a:b'}\n")
    assert said == "pipeline.yaml:1: train is missing; add it"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "an empty file"),
        ("- 1\n", "got list"),
        ("name: [1\n", "pipeline.yaml:2: not YAML"),
        (TEXT + "name: again\n", "pipeline.yaml:12: name is given twice, first in line 1"),
    ],
)
def test_a_file_that_is_no_pipeline_says_where_and_why(
    tmp_path: Path, text: str, said: str
) -> None:
    assert said in problem(tmp_path, text)


def test_a_file_that_is_not_there_or_not_text_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="does not exist"):
        load_pipeline(tmp_path / "nothing.yaml")
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_pipeline(binary)


def test_all_problems_are_listed_for_validate(tmp_path: Path) -> None:
    text = TEXT.replace("epochs: 3", "epochs: 0\n  batch_size: 0")
    assert len(loading_problems(written(tmp_path, text))) == 2
    assert loading_problems(written(tmp_path)) == []


def test_paths_follow_the_file_or_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    path = written(tmp_path)
    assert load_pipeline(path).prepare.options["path"] == str(tmp_path / "data/rows.csv")
    given_ = load_pipeline(path, ["prepare.path=rows.csv"]).prepare.options["path"]
    assert given_ == str(elsewhere / "rows.csv")


def test_the_resolved_pipeline_loads_to_the_same_settings(tmp_path: Path) -> None:
    pipeline = load_pipeline(written(tmp_path), ["train.workers=1:4"])
    again = Pipeline.model_validate(yaml.safe_load(yaml.safe_dump(pipeline.plain())))
    assert again.plain() == pipeline.plain()
    assert workers_range(again.train.workers) == (1, 4)


def test_the_schema_forbids_unknown_keys_and_knows_every_section() -> None:
    schema = pipeline_schema()
    assert schema["additionalProperties"] is False
    assert {"prepare", "contract", "train", "evaluate", "audit", "register", "deploy"} <= set(
        schema["properties"]
    )


@pytest.mark.parametrize("name", ["digits", "income"])
def test_bundled_examples_load(name: str) -> None:
    import workbench

    file = Path(workbench.__file__).parent / "examples" / name / "pipeline.yaml"
    assert load_pipeline(file).name == name


@pytest.mark.parametrize("alias", ["a b", "a/b", "latest", "Latest", "v12", ""])
def test_an_alias_that_mlflow_would_refuse_after_training_is_refused_before(
    tmp_path: Path, alias: str
) -> None:
    path = tmp_path / "pipeline.yaml"
    path.write_text(
        "name: x\nprepare: {call: 'a:b'}\ntrain: {model: 'a:b', optimizer: {name: sgd}}\n"
        f"register: {{model: x}}\ndeploy: {{alias: {alias!r}}}\n"
    )
    with pytest.raises(ConfigurationError, match=r"deploy\.alias is"):
        load_pipeline(path, [])
