"""The bundled examples: what they prepare, and digits run whole by the real framework."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import workbench
from workbench.errors import DataContractError
from workbench.examples.digits.prepare import load as load_digits
from workbench.examples.income import prepare as income
from workbench.lifecycle import load_pipeline, run_pipeline
from workbench.lifecycle.contract import check_contract
from workbench.lifecycle.testing import MemoryWatcher
from workbench.records import MLflowStore

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
EXAMPLES = Path(workbench.__file__).parent / "examples"


def people(rows: int = 300) -> pd.DataFrame:
    random = np.random.default_rng(0)
    columns = {name: random.integers(1, 9, rows) for name in income.CATEGORIES}
    columns |= {name: random.integers(17, 60, rows) for name in income.NUMBERS}
    columns["SEX"] = random.integers(1, 3, rows)
    return pd.DataFrame({**columns, income.LABEL: random.integers(0, 2, rows)})


def test_ink_is_binned_by_the_terciles_of_the_training_rows() -> None:
    prepared = load_digits()
    assert prepared.split is not None
    assert len(prepared.table) == 1797
    shares = prepared.table["ink"][prepared.split == "train"].value_counts(normalize=True)
    assert set(shares.index) == {"low", "medium", "high"}
    assert shares.between(0.32, 0.35).all()


def test_codes_are_numbered_by_the_training_rows_and_unseen_values_are_0(tmp_path: Path) -> None:
    frame = people()
    path = tmp_path / "people.parquet"
    frame.to_parquet(path)
    split = income.load(path=str(path)).split
    assert split is not None
    row = int(np.flatnonzero(split == "test")[0])
    frame.loc[row, "OCCP"] = 999
    frame.to_parquet(path)
    prepared = income.load(path=str(path))
    occupation = prepared.inputs[:, len(income.NUMBERS) + income.CATEGORIES.index("OCCP")]
    assert occupation[row] == 0
    assert (occupation[prepared.split == "train"] > 0).all()


def test_the_model_does_not_see_the_audited_attributes_unless_asked(tmp_path: Path) -> None:
    path = tmp_path / "people.parquet"
    people().to_parquet(path)
    assert income.load(path=str(path)).inputs.shape[1] == 8
    assert income.load(path=str(path), protected_inputs=True).inputs.shape[1] == 10
    assert {"SEX", "RAC1P"} <= set(income.load(path=str(path)).table.columns)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda frame: frame.drop(columns="SCHL"), "column SCHL is missing"),
        (lambda frame: frame.assign(PINCP=None), "label PINCP is empty in 300 of 300 rows"),
    ],
)
def test_income_without_a_column_or_a_label_is_refused(
    tmp_path: Path, change: object, said: str
) -> None:
    path = tmp_path / "people.parquet"
    change(people()).to_parquet(path)  # type: ignore[operator]
    with pytest.raises(DataContractError, match=said):
        income.load(path=str(path))


def test_income_says_what_to_do_when_openml_cannot_be_reached(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def offline(**_: object) -> None:
        raise OSError("network is unreachable")

    monkeypatch.setattr("sklearn.datasets.fetch_openml", offline)
    with pytest.raises(DataContractError, match=r"unreachable.*prepare.path=FILE"):
        income.load()


def test_a_file_that_is_missing_or_no_parquet_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataContractError, match="there is no file"):
        income.load(path=str(tmp_path / "none.parquet"))
    (tmp_path / "text.parquet").write_text("not parquet")
    with pytest.raises(DataContractError, match="is no parquet file"):
        income.load(path=str(tmp_path / "text.parquet"))


@pytest.mark.data
def test_the_census_file_keeps_the_contract_of_the_example(data_folder: Path) -> None:
    prepared = income.load(path=str(data_folder / "acs_income" / "ACSIncome.test.parquet"))
    contract = load_pipeline(EXAMPLES / "income" / "pipeline.yaml").contract
    assert contract is not None
    assert check_contract(prepared.table, contract) > 8
    assert prepared.inputs.shape == (332_900, 8)
    male = prepared.table["SEX"] == 1
    assert prepared.targets[male].mean() == pytest.approx(0.4426, abs=5e-5)


def test_digits_goes_to_deployment_with_an_adaptive_batch_on_the_real_framework(
    tmp_path: Path,
) -> None:
    from workbench.adaptors.torch.framework import TorchFramework
    from workbench.policies import policy_path

    watcher = MemoryWatcher()
    result = run_pipeline(
        load_pipeline(EXAMPLES / "digits" / "pipeline.yaml"),
        workspace=tmp_path,
        store=MLflowStore(tmp_path),
        framework=TorchFramework(policy_path=policy_path),
        watcher=watcher,
    )
    assert result.exit_code == 0, result.message
    assert [stage.status for stage in result.stages] == ["done"] * 7
    assert result.metrics["accuracy"] > 0.95
    grown = [record for record in result.decisions if record.decision.kind == "set_batch_size"]
    assert grown
    assert "noise_scale" in grown[0].decision.reason
    assert (result.model, result.version, result.alias) == ("digits", "1", "champion")
    assert result.stages[2].values["model_format"] == "pt2"
    assert watcher.records[-1].facts.samples == 12 * result.stages[0].values["split"]["train"]
