"""What centring does to a law, and the components of variance, against formulas and draws."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import stats

from jaynes_callbacks.counts.two_way import Layout, two_way
from jaynes_callbacks.statistics import LOGNORMAL, fit_family, gap, log_moments, occupied_bins
from jaynes_callbacks.statistics.two_way import (
    Spread,
    core_standard_error,
    cumulant_factor,
    gaussian_core_gaps,
    variance_components,
)

Array = np.ndarray


def _gap(counts: torch.Tensor) -> torch.Tensor:
    binned = occupied_bins(counts)
    return gap(binned, fit_family(LOGNORMAL, binned, log_moments(binned)))


def _centred(logs: Array, layout: Layout) -> Array:
    """Residuals of draws ``[draws, rows, columns, positions]``, by plain means."""
    found = logs
    if layout.centres_rows or layout.centres_columns:
        found = found - found.mean((1, 2, 3), keepdims=True)
    if layout.centres_rows:
        found = found - found.mean((2, 3), keepdims=True)
    if layout.centres_columns:
        found = found - found.mean((1, 3), keepdims=True)
    return found


# Cumulants ------------------------------------------------------------------------------


@pytest.mark.parametrize(("rows", "columns"), [(16, 16), (20, 64), (512, 300)])
def test_factors_of_cumulants_by_their_formulas(rows: int, columns: int) -> None:
    """κ₂: Π(n − 1)/n, κ₃: Π(n − 1)(n − 2)/n², κ₄: Π(n − 1)((n − 1)³ + 1)/n⁴."""
    layout, sizes = Layout(rows, columns, 1), (rows, columns)
    second = math.prod((n - 1) / n for n in sizes)
    third = math.prod((n - 1) * (n - 2) / n**2 for n in sizes)
    fourth = math.prod((n - 1) * ((n - 1) ** 3 + 1) / n**4 for n in sizes)
    assert cumulant_factor(layout, 2) == pytest.approx(second, rel=1e-12)
    assert cumulant_factor(layout, 3) == pytest.approx(third, rel=1e-12)
    assert cumulant_factor(layout, 4) == pytest.approx(fourth, rel=1e-12)


@pytest.mark.parametrize(
    "layout",
    [Layout(16, 17, 1), Layout(6, 40, 1), Layout(40, 6, 1), Layout(8, 3, 9), Layout(64, 1, 16)],
)
def test_factors_of_cumulants_by_the_hat_matrix(layout: Layout) -> None:
    """A residual is a row of I − H times the values: a cumulant takes the sum of its powers."""
    row, column, _ = np.indices(layout).reshape(3, -1)
    parts = [np.ones((len(row), 1))]
    if layout.centres_rows:
        parts.append(np.eye(layout.rows)[row])
    if layout.centres_columns:
        parts.append(np.eye(layout.columns)[column])
    if len(parts) == 1:
        residual = np.eye(len(row))[0]
    else:
        design = np.concatenate(parts, axis=1)
        residual = np.eye(len(row))[0] - (design @ np.linalg.pinv(design))[0]
    for order in (2, 3, 4):
        assert cumulant_factor(layout, order) == pytest.approx((residual**order).sum(), rel=1e-9)


@pytest.mark.parametrize("layout", [Layout(16, 20, 1), Layout(16, 4, 9), Layout(4, 60, 1)])
def test_factors_of_cumulants_by_draws(layout: Layout) -> None:
    logs = np.log(np.random.default_rng(0).exponential(size=(4000, *layout)))
    residuals = _centred(logs, layout)
    for order, tolerance in ((2, 0.01), (3, 0.03), (4, 0.1)):
        moments = [np.mean(each**order) for each in (residuals, logs - logs.mean())]
        if order == 4:
            moments = [
                moment - 3 * np.var(each) ** 2
                for moment, each in zip(moments, (residuals, logs), strict=True)
            ]
        assert moments[0] / moments[1] == pytest.approx(
            cumulant_factor(layout, order), rel=tolerance
        )


# Gaussian weights -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "expected"), [(16, 0.122), (25, 0.137), (64, 0.152), (256, 0.160), (576, 0.162)]
)
def test_gaussian_weights_of_so_many_values_a_row(values: int, expected: float) -> None:
    """Found before by an independent programme, from draws; so to its third digit or so."""
    (found,) = gaussian_core_gaps([Layout(10**5, values, 1)])
    assert found == pytest.approx(expected, abs=0.002)


def test_where_no_effect_is_taken_off_it_is_the_half_normal_s() -> None:
    found = gaussian_core_gaps([Layout(1, 10**4, 1), Layout(15, 15, 1), Layout(64, 1, 9)])
    # The exact divergence of |N(0, 1)| from its best lognormal, by the moments of ln|N|.
    variance = math.pi**2 / 8
    entropy = 0.5 * math.log(math.pi / 2) + 0.5 - (-math.log(2) - np.euler_gamma) / 2
    exact = 0.5 * math.log(2 * math.pi * math.e * variance) - entropy
    assert exact == pytest.approx(0.163, abs=0.0005)
    assert found == pytest.approx([exact] * 3, abs=2e-4)


@pytest.mark.parametrize(
    "shape", [(200, 300), (20, 20), (16, 400), (10, 64), (32, 3, 3, 3), (64, 1, 4, 4)]
)
def test_gaussian_weights_of_a_shape_by_draws(shape: tuple[int, ...]) -> None:
    layout, draws = Layout.of(shape), max(20, 200_000 // math.prod(shape))
    groups = []
    for group in range(8):
        source = torch.Generator().manual_seed(1000 + group)
        values = torch.randn(draws // 4, *shape, generator=source)
        groups.append(sum(two_way(each)[0] for each in values))
    gaps = _gap(torch.stack([*groups, sum(groups)]))  # type: ignore[list-item]
    error = gaps[:-1].std().item() / math.sqrt(8)
    assert error < 0.005
    (found,) = gaussian_core_gaps([layout])
    assert found == pytest.approx(gaps[-1].item(), abs=4 * error)


def test_each_shape_is_computed_once_and_returned_in_place() -> None:
    one, other = Layout(100, 16, 1), Layout(100, 64, 1)
    found = gaussian_core_gaps([one, other, one])
    assert found[0] == found[2] != found[1]
    assert gaussian_core_gaps([other]) == [found[1]]
    assert gaussian_core_gaps([]) == []


# Components of variance ---------------------------------------------------------------------


def _components(rows: float, columns: float, rest: float, shape: tuple[int, int], seed: int):  # type: ignore[no-untyped-def]
    source = np.random.default_rng(seed)
    logs = rest * source.standard_normal(shape)
    logs += rows * source.standard_normal((shape[0], 1))
    logs += columns * source.standard_normal(shape[1])
    layout = Layout.of(shape)
    effects = [
        logs.mean(1) - logs.mean() if layout.centres_rows else None,
        logs.mean(0) - logs.mean() if layout.centres_columns else None,
    ]
    residuals = logs - logs.mean()
    residuals -= effects[0][:, None] if effects[0] is not None else 0
    residuals -= effects[1] if effects[1] is not None else 0
    spreads = [
        Spread(np.array([np.nan if own is None else (own**2).sum()]), np.array([float(len_)]))
        for own, len_ in zip(effects, shape, strict=True)
    ]
    return variance_components(
        np.array([float(logs.size)]), np.array([(residuals**2).mean()]), *spreads
    )


@pytest.mark.parametrize(
    ("rows", "columns", "rest", "shape"),
    [
        (0.5, 1.0, 1.1, (80, 60)),
        (0.0, 0.7, 1.1, (20, 16)),
        (0.3, 0.0, 0.2, (16, 40)),
        (1.5, 0.0, 1.0, (10, 64)),
    ],
)
def test_the_components_are_without_bias(
    rows: float, columns: float, rest: float, shape: tuple[int, int]
) -> None:
    found = [_components(rows, columns, rest, shape, seed) for seed in range(200)]
    for name, expected in (("rows", rows), ("columns", columns), ("rest", rest)):
        draws = np.array([getattr(each, name)[0] for each in found])
        error = draws.std() / math.sqrt(len(draws))
        # What would be below zero is set to zero, so that of none at all a little is left.
        slack = draws.std() if expected == 0 else 0
        assert draws.mean() == pytest.approx(expected**2, abs=4 * error + slack + 1e-12), name
    # A ratio, whose mean is not quite that of the parts: of ten rows least of all.
    share = np.mean([each.scale_share[0] for each in found])
    whole = rows**2 + columns**2 + rest**2
    assert share == pytest.approx(1 - rest**2 / whole, abs=0.04)


def test_what_was_not_taken_off_is_no_component() -> None:
    found = _components(1.5, 5.0, 1.0, (10, 64), seed=0)
    assert found.columns[0] == 0  # ten values a column
    assert found.rest[0] > 10


def test_one_way_analysis_of_variance_agrees_with_scipy() -> None:
    """F of the rows is 1 + V_r·C/V_e."""
    source = np.random.default_rng(3)
    logs = source.standard_normal((30, 25)) + source.standard_normal((30, 1))
    own = logs.mean(1) - logs.mean()
    residuals = logs - logs.mean(1, keepdims=True)
    found = variance_components(
        np.array([750.0]),
        np.array([(residuals**2).mean()]),
        Spread(np.array([(own**2).sum()]), np.array([30.0])),
        Spread(np.array([np.nan]), np.array([25.0])),
    )
    expected = stats.f_oneway(*logs).statistic
    assert 1 + 25 * found.rows[0] / found.rest[0] == pytest.approx(expected, rel=1e-12)


def test_components_of_too_few_values_are_nan() -> None:
    nothing = np.array([0.0])
    found = variance_components(
        np.array([50.0]),
        nothing,
        Spread(nothing, np.array([30.0])),
        Spread(nothing, np.array([21.0])),
    )
    assert all(math.isnan(each[0]) for each in (*found, found.scale_share))


# The error of a core's gap ---------------------------------------------------------------------


def _student(source: torch.Generator) -> torch.Tensor:
    chi = torch.randn(5, 120, 80, generator=source).square().mean(0).sqrt()
    return torch.randn(120, 80, generator=source) / chi


@pytest.mark.parametrize("draw", [lambda source: torch.randn(120, 80, generator=source), _student])
def test_the_error_is_the_spread_over_draws(
    draw: Callable[[torch.Generator], torch.Tensor],
) -> None:
    counts, errors = [], []
    for seed in range(60):
        source = torch.Generator().manual_seed(seed)
        scales = torch.randn(120, 1, generator=source).exp()
        values = draw(source) * scales
        found, effects = two_way(values)
        counts.append(found)
        errors.append(core_standard_error(values, effects, found).item())
    spread = _gap(torch.stack(counts)).std().item()
    assert np.mean(errors) == pytest.approx(spread, rel=0.25)


def test_the_error_of_a_large_weight_is_read_from_some_rows() -> None:
    """Those that are read stand for all: not a fifth of what the rows read alone would have."""
    values = torch.randn(4096, 512, generator=torch.Generator().manual_seed(0))
    counts, effects = two_way(values)
    quarter, of_quarter = two_way(values[:256])
    found = core_standard_error(values, effects, counts).item()
    alone = core_standard_error(values[:256], of_quarter, quarter).item()
    assert found == pytest.approx(alone / 4, rel=0.25)


def test_too_few_rows_have_no_error() -> None:
    values = torch.randn(9, 100, generator=torch.Generator().manual_seed(0))
    counts, effects = two_way(values)
    assert core_standard_error(values, effects, counts).isnan()
