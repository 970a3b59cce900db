"""The largest eigenvalue by products alone, against spectra chosen and exact ones."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.adaptors.torch.probes.eigenvalue import Eigenvalue, largest_eigenvalue


def solve(
    matrix: torch.Tensor, *, iterations: int = 300, tolerance: float = 1e-3, seed: int = 0
) -> Eigenvalue:
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn(len(matrix), generator=generator, dtype=matrix.dtype)
    rounding = 100 * torch.finfo(matrix.dtype).eps
    return largest_eigenvalue(
        lambda v: matrix @ v, start, iterations=iterations, tolerance=tolerance, rounding=rounding
    )


def symmetric(spectrum: list[float], seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    square = torch.randn(len(spectrum), len(spectrum), generator=generator, dtype=torch.float64)
    turn = torch.linalg.qr(square).Q
    matrix: torch.Tensor = turn @ torch.diag(torch.tensor(spectrum, dtype=torch.float64)) @ turn.T
    return matrix


SPECTRA = {
    "negative dominates": [-100.0, -50.0, 0.0, 1.0, 2.0],
    "all negative": [-9.0, -4.0, -2.0, -1.0],
    "equal top": [3.0, 3.0, 3.0, 1.0, -3.0],
    "top and bottom of one size": [5.0, -5.0, 1.0, 0.0],
    "close top": [2.0, 1.999, 1.0, -1.0],
    "lonely top over a flat bulk": [1.5] + [1.0] * 200,
    "largest is zero": [0.0, -1.0, -2.0],
    "one number": [-3.0],
}


@pytest.mark.parametrize("name", SPECTRA)
@pytest.mark.parametrize("seed", range(3))
def test_the_most_positive_eigenvalue_is_found(name: str, seed: int) -> None:
    spectrum = SPECTRA[name]
    found = solve(symmetric(spectrum, seed), seed=seed, tolerance=1e-5)
    size = max(map(abs, spectrum))
    assert found.converged
    assert found.value == pytest.approx(max(spectrum), abs=2e-5 * size)
    assert found.products <= 60


@given(
    spectrum=st.lists(st.integers(-10_000, 10_000).map(lambda n: n / 100), min_size=1, max_size=24),
    seed=st.integers(0, 2**16),
    scale=st.sampled_from([1e-9, 1.0, 1e9]),
)
@settings(max_examples=120, deadline=None)
def test_what_the_residual_promises_holds_for_any_spectrum(
    spectrum: list[float], seed: int, scale: float
) -> None:
    matrix = scale * symmetric(spectrum, seed)
    exact = torch.linalg.eigvalsh(matrix)
    rounding = 1e-12 * float(exact.abs().max())
    found = solve(matrix, seed=seed + 1)
    nearest = float((exact - found.value).abs().min())
    assert nearest <= found.residual + rounding
    assert found.value <= float(exact[-1]) + rounding
    assert found.converged
    assert found.products <= 300


def test_a_zero_matrix_has_the_eigenvalue_zero_and_no_residual() -> None:
    found = solve(torch.zeros(7, 7))
    assert (found.value, found.residual, found.converged, found.products) == (0.0, 0.0, True, 1)


def test_too_few_products_are_not_taken_for_an_answer() -> None:
    matrix = symmetric([2.0, 1.999, *torch.linspace(-2, 1.99, 60).tolist()])
    found = solve(matrix, iterations=3, tolerance=1e-6)
    assert not found.converged
    assert found.products == 3
    assert found.value < 2.0


def test_it_needs_fewer_products_than_shifted_power_iteration() -> None:
    spectrum = [-50.0, *torch.linspace(-40, 0.5, 50).tolist(), 1.0]
    matrix = symmetric(spectrum)
    shifted = matrix + 50.0 * torch.eye(len(spectrum), dtype=torch.float64)
    v = torch.ones(len(spectrum), dtype=torch.float64)
    products = 0
    for products in range(1, 2000):  # noqa: B007
        v = shifted @ v / (shifted @ v).norm()
        value = v @ matrix @ v
        if (matrix @ v - value * v).norm() <= 1e-3 * abs(value):
            break
    found = solve(matrix, tolerance=1e-3)
    assert found.value == pytest.approx(1.0, rel=2e-3)
    assert found.products < products / 3


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_product_that_is_not_finite_ends_without_a_value(bad: float) -> None:
    matrix = torch.eye(4)
    matrix[1, 2] = bad
    found = solve(matrix)
    assert not found.converged
    assert found.value != found.value


def test_float32_keeps_what_the_residual_promises() -> None:
    matrix = symmetric([-30.0, *torch.linspace(-20, 9, 300).tolist(), 10.0]).float()
    exact = torch.linalg.eigvalsh(matrix.double())
    found = solve(matrix)
    assert found.converged
    assert float((exact - found.value).abs().min()) <= found.residual + 1e-5
