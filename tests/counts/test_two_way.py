"""Scales of rows and columns against numpy's least squares; what is left does not know them."""

import importlib.util
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from jaynes_callbacks.counts import two_way as passes
from jaynes_callbacks.counts.grid import CODES, FIRST_NONFINITE, codes
from jaynes_callbacks.counts.two_way import (
    Effects,
    Layout,
    core_counts,
    core_rows,
    effects_of,
    empty_sums,
    log_sums,
    two_way,
)

HAS_NUMBA = importlib.util.find_spec("numba") is not None
needs_numba = pytest.mark.skipif(not HAS_NUMBA, reason="the extra `fast` is not installed")
SHAPES = [(40, 30), (17, 80), (20, 6, 3, 3), (18, 4, 5), (80, 16), (16, 17)]


def _weights(shape: tuple[int, ...], zeros: float = 0.0, seed: int = 0) -> Tensor:
    """Gaussian weights with scales of rows and columns, some of them zero."""
    source = torch.Generator().manual_seed(seed)
    values = torch.randn(shape, generator=source)
    by_row = torch.randn(shape[0], generator=source).view(-1, *[1] * (len(shape) - 1))
    by_column = torch.randn(shape[1], generator=source).view(-1, *[1] * (len(shape) - 2))
    values = values * by_row.exp() * (0.7 * by_column).exp()
    return values * (torch.rand(shape, generator=source) >= zeros)


def _least_squares(values: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Fitted ln|w| and residuals of every value that is not zero, by numpy's dense solution."""
    rows, columns = values.shape[:2]
    matrix = values.double().flatten(2).numpy() if values.dim() > 2 else values.double().numpy()
    matrix = matrix.reshape(rows, columns, -1)
    row, column, _ = np.nonzero(matrix)
    logs = np.log(np.abs(matrix[np.nonzero(matrix)]))
    layout, parts = Layout.of(values.shape), [np.ones((len(logs), 1))]
    if layout.centres_rows:
        parts.append(np.eye(rows)[row])
    if layout.centres_columns:
        parts.append(np.eye(columns)[column])
    design = np.concatenate(parts, axis=1)
    fitted = design @ np.linalg.lstsq(design, logs, rcond=None)[0]
    return fitted, logs - fitted


def _fitted(values: Tensor, effects: Effects) -> np.ndarray:
    """What the effects make of the values that are not zero, in the same order."""
    rows, columns = values.shape[:2]
    whole = (effects.mean + effects.rows)[:, None, None] + effects.columns[None, :, None]
    taken = values.reshape(rows, columns, -1) != 0
    return whole.expand(taken.shape)[taken].numpy()


# Least squares --------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
def test_without_zeros_the_effects_are_those_of_least_squares(shape: tuple[int, ...]) -> None:
    values = _weights(shape)
    counts, effects = two_way(values)
    fitted, residuals = _least_squares(values)
    np.testing.assert_allclose(_fitted(values, effects), fitted, atol=2e-6)
    assert abs(effects.rows.sum()) < 1e-9
    assert abs(effects.columns.sum()) < 1e-9
    expected = torch.bincount(codes(torch.from_numpy(residuals).exp().float()), minlength=CODES)
    # Rounding may move a value over the edge of its bin, hardly any and not far.
    assert int((counts - expected).abs().sum()) <= 4
    assert counts.sum() == values.numel()


@pytest.mark.parametrize("shape", [(60, 50), (40, 10, 3, 3)])
@pytest.mark.parametrize(("zeros", "atol"), [(0.1, 0.001), (0.5, 0.01), (0.8, 0.1)])
def test_with_zeros_a_few_rounds_come_near_least_squares(
    shape: tuple[int, ...], zeros: float, atol: float
) -> None:
    values = _weights(shape, zeros)
    counts, effects = two_way(values)
    fitted, residuals = _least_squares(values)
    np.testing.assert_allclose(_fitted(values, effects), fitted, atol=atol)
    ours = np.log(values[values != 0].abs().double().numpy()) - _fitted(values, effects)
    # The sum of squares is as good as at its least.
    assert (ours**2).sum() <= (residuals**2).sum() * 1.002
    assert counts[0] == (values == 0).sum()
    assert counts.sum() == values.numel()


def test_more_rounds_end_at_least_squares(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passes, "_ROUNDS", 60)
    values = _weights((60, 50), 0.7)
    np.testing.assert_allclose(
        _fitted(values, two_way(values)[1]), _least_squares(values)[0], atol=1e-5
    )


def test_a_single_scale_is_the_geometric_mean() -> None:
    values = torch.tensor([[2.0, 8.0], [0.5, -2.0]]).repeat(1, 8)
    _, effects = two_way(values)
    assert effects.mean.item() == pytest.approx(math.log(2))
    assert effects.rows.tolist() == pytest.approx([math.log(2), -math.log(2)])
    assert not effects.columns.any()


# Which effects there are ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "rows", "columns"),
    [
        ((16, 16), True, True),
        ((15, 16), True, False),
        ((16, 15), False, True),
        ((15, 15), False, False),
        ((10, 512), True, False),
        ((64, 1, 3, 3), False, False),
        ((64, 1, 4, 4), True, False),
        ((64, 2, 3, 3), True, True),
        ((1, 512), False, False),
        ((512, 1), False, False),
    ],
)
def test_an_effect_needs_sixteen_values(shape: tuple[int, ...], rows: bool, columns: bool) -> None:
    layout = Layout.of(shape)
    assert (layout.centres_rows, layout.centres_columns) == (rows, columns)
    _, effects = two_way(_weights(shape))
    assert bool(effects.rows.any()) == rows
    assert bool(effects.columns.any()) == columns


# What the core does not know --------------------------------------------------------------


def _near(found: Tensor, expected: Tensor, moved: int) -> None:
    assert found.sum() == expected.sum()
    assert int((found - expected).abs().sum()) <= 2 * moved


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("scale", [0.5, 1.5, 5.0])
def test_scales_of_rows_and_columns_leave_the_core(shape: tuple[int, ...], scale: float) -> None:
    layout, values = Layout.of(shape), _weights(shape).double()
    scaled = values.clone()
    source = torch.Generator().manual_seed(9)
    if layout.centres_rows:
        by_row = torch.randn(shape[0], generator=source).double().mul(scale).exp()
        scaled *= by_row.view(-1, *[1] * (len(shape) - 1))
    if layout.centres_columns:
        by_column = torch.randn(shape[1], generator=source).double().mul(scale).exp()
        scaled *= by_column.view(-1, *[1] * (len(shape) - 2))
    assert scale < 1 or (scaled - values).abs().max() > 1
    _near(two_way(scaled)[0], two_way(values)[0], moved=3)


def test_powers_of_two_leave_every_count() -> None:
    values = _weights((64, 48))
    by_row = 2.0 ** torch.arange(-20, 44)[:, None]
    by_column = 2.0 ** torch.arange(-30, 18)
    _near(two_way(values * by_row * by_column)[0], two_way(values)[0], moved=1)


def test_with_zeros_scales_leave_the_core_where_rounds_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passes, "_ROUNDS", 60)
    values = _weights((60, 50), 0.7)
    scaled = values * torch.linspace(-3, 3, 60).exp()[:, None] * torch.linspace(4, -4, 50).exp()
    _near(two_way(scaled)[0], two_way(values)[0], moved=2)


def test_a_factor_of_single_weights_does_not_leave_it() -> None:
    values = _weights((64, 48))
    factors = torch.randn(64, 48, generator=torch.Generator().manual_seed(1)).exp()
    assert int((two_way(values * factors)[0] - two_way(values)[0]).abs().sum()) > 200


# One result, however it is read -----------------------------------------------------------


def _sames(found: tuple[Tensor, Effects], expected: tuple[Tensor, Effects], moved: int = 2) -> None:
    _near(found[0], expected[0], moved)
    for ours, theirs in zip(found[1], expected[1], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


def _in_threads(function: Callable[..., Any], *arguments: Any) -> Any:
    with ThreadPoolExecutor(3) as pool:
        return list(pool.map(function, *arguments))


@pytest.mark.parametrize("zeros", [0.0, 0.3])
@pytest.mark.parametrize("slice_size", [1, 1000, 7777])
def test_slices_in_threads_make_the_whole(zeros: float, slice_size: int) -> None:
    values = _weights((90, 40), zeros)
    whole = two_way(values)
    _sames(two_way(values, slice_size=slice_size), whole)
    _sames(two_way(values, slice_size=slice_size, apply=_in_threads), whole)


@pytest.mark.parametrize("shape", [(90, 40), (90, 20, 2)])
def test_only_slices_with_zeros_are_read_again(
    shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And of a slice only the parts that have some."""
    values = _weights(shape)
    values[33, 7] = values[34, 9] = values[71, 0] = 0
    read = []

    def reads(function: Callable[..., Any], *arguments: Any) -> Any:
        read.append((function.__name__, len(arguments[0])))
        return map(function, *arguments)

    monkeypatch.setattr(passes, "_CPU_PART", 80)
    ours = two_way(values, slice_size=400, apply=reads)
    assert [number for name, number in read if name == "_round"] == [2, 2]
    monkeypatch.setattr(passes, "_may_lack", lambda number, values: True)
    _sames(ours, two_way(values, slice_size=400))
    np.testing.assert_allclose(
        _fitted(values, ours[1]), _least_squares(values)[0], rtol=0, atol=1e-6
    )


@needs_numba
@pytest.mark.parametrize("shape", [(90, 1300), (1100, 20), (30, 7, 3, 3)])
@pytest.mark.parametrize("zeros", [0.0, 0.3])
def test_numba_and_torch_agree(
    shape: tuple[int, ...], zeros: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = _weights(shape, zeros)
    special = torch.tensor([math.inf, -math.inf, math.nan, 1e-39, 2.0**-126, 1e30, 2.0**-125])
    values.flatten()[: len(special)] = special
    monkeypatch.setattr(passes, "_compiled_loops", lambda: None)
    sums, by_torch = log_sums(values), two_way(values)
    monkeypatch.undo()
    monkeypatch.setattr(passes, "_WORTH_COMPILING", 0)
    for ours, theirs in zip(log_sums(values), sums, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=2e-6, atol=1e-3)
    _sames(two_way(values), by_torch, moved=10)
    assert by_torch[0][FIRST_NONFINITE:].sum() == 3


def test_parts_of_bounded_size_make_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    values = _weights((90, 40), 0.3)
    whole = two_way(values)
    monkeypatch.setattr(passes, "_CPU_PART", 500)
    _sames(two_way(values), whole)


def test_a_weight_whose_memory_is_not_in_order() -> None:
    values = _weights((50, 80), 0.2)
    _sames(two_way(values.t().contiguous().t()), two_way(values))
    _sames(two_way(values.repeat(1, 2)[:, ::2]), two_way(values[:, ::2].repeat(1, 2)))


@pytest.mark.parametrize(
    ("dtype", "atol"),
    [(torch.float64, 1e-6), (torch.float16, 1e-3), (torch.bfloat16, 1e-2)],
    ids=str,
)
@pytest.mark.parametrize("zeros", [0.0, 0.3])
def test_dtypes(dtype: torch.dtype, atol: float, zeros: float) -> None:
    values = _weights((60, 50), zeros).clamp(-1e4, 1e4)
    values = values.where(values.abs() > 1e-4, 0.0)
    counts, effects = two_way(values.to(dtype))
    _sames((counts, effects), two_way(values.to(dtype).float()), moved=0)
    torch.testing.assert_close(effects.rows, two_way(values)[1].rows, rtol=0, atol=atol)


def test_eight_bits_with_zeros() -> None:
    values = _weights((60, 50), 0.3).to(torch.float8_e4m3fn)
    _sames(two_way(values), two_way(values.float()), moved=0)


def test_float64_beyond_the_range_of_float32_takes_no_part() -> None:
    """In no pass: effects are those of the weight with zeros in these places."""
    values = _weights((40, 30), 0.1).double()
    without = values.clone()
    without[3, 4] = without[7, 7] = 0
    values[3, 4], values[7, 7] = 1e300, 1e-300
    counts, effects = two_way(values)
    _near(
        counts[:FIRST_NONFINITE],
        two_way(without)[0][:FIRST_NONFINITE]
        .clone()
        .index_add_(0, torch.tensor([0]), torch.tensor([-1])),
        moved=0,
    )
    assert counts[FIRST_NONFINITE] == 1
    torch.testing.assert_close(effects, two_way(without)[1])


# Parts of a weight ------------------------------------------------------------------------


def test_sums_of_parts_are_those_of_the_whole() -> None:
    values = _weights((60, 50))
    layout, whole = Layout.of(values.shape), two_way(values)
    sums = empty_sums(layout, torch.device("cpu"))
    for top, left in ((0, 0), (0, 20), (35, 0), (35, 20)):
        part = values[top : 35 if not top else 60, left : 20 if not left else 50]
        own = log_sums(part)
        rows, columns = slice(top, top + len(part)), slice(left, left + part.shape[1])
        sums.rows[rows] += own.rows
        sums.row_n[rows] += own.row_n
        sums.columns[columns] += own.columns
        sums.column_n[columns] += own.column_n
    effects = effects_of(sums, layout)
    rows = effects.mean + effects.rows
    counts = core_counts(values[:35], rows[:35], effects.columns)
    counts += core_counts(values[35:], rows[35:], effects.columns)
    _sames((counts, effects), whole)


@pytest.mark.parametrize("shape", [(40, 30), (20, 6, 3, 3)])
def test_every_third_row_of_the_core(shape: tuple[int, ...]) -> None:
    values = _weights(shape)
    _, effects = two_way(values)
    _, residuals = _least_squares(values)
    expected = np.exp(residuals).reshape(shape[0], -1)[::3]
    np.testing.assert_allclose(core_rows(values, effects, 3).flatten(1).abs(), expected, rtol=1e-5)


# Hardly anything --------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (3, 4, 0)])
def test_no_values(shape: tuple[int, ...]) -> None:
    counts, effects = two_way(torch.zeros(shape))
    assert not counts.any()
    assert (len(effects.rows), len(effects.columns)) == shape[:2]
    assert not effects.rows.any()


def test_all_zeros_stay_zeros() -> None:
    counts, effects = two_way(torch.zeros(20, 30))
    assert counts[0] == 600
    for each in effects:
        assert not each.any()


def test_one_row_loses_its_mean_only() -> None:
    values = _weights((1, 400))
    counts, effects = two_way(values)
    expected = values.abs() / values.abs().double().log().mean().exp()
    _near(counts, torch.bincount(codes(expected.float()).flatten(), minlength=CODES), moved=1)
    assert not effects.rows.any()
    assert not effects.columns.any()


def test_a_row_and_a_column_of_zeros_have_no_scale() -> None:
    values = _weights((40, 30))
    values[5], values[:, 7] = 0, 0
    counts, effects = two_way(values)
    assert effects.rows[5] == effects.columns[7] == 0
    assert effects.row_n[5] == effects.column_n[7] == 0
    keep = values[[row for row in range(40) if row != 5]]
    keep = keep[:, [column for column in range(30) if column != 7]]
    _near(counts[1:], two_way(keep)[0][1:], moved=1)


def test_what_is_not_finite_is_counted_and_takes_no_part() -> None:
    values = _weights((40, 30))
    with_zeros = values.clone()
    for place, value in (((0, 0), math.inf), ((1, 2), -math.inf), ((3, 4), math.nan)):
        values[place], with_zeros[place] = value, 0.0
    counts, effects = two_way(values)
    expected, of_zeros = two_way(with_zeros)
    assert counts[FIRST_NONFINITE:].sum() == 3
    assert torch.equal(counts[1:FIRST_NONFINITE], expected[1:FIRST_NONFINITE])
    torch.testing.assert_close(effects, of_zeros)


@pytest.mark.parametrize(
    ("values", "error", "sentence"),
    [
        (torch.ones(5), ValueError, "rows and columns need two dimensions, got shape \\(5,\\)"),
        (torch.ones(5, 5, dtype=torch.int32), TypeError, "got dtype torch.int32"),
        (torch.ones(5, 5, dtype=torch.complex64), TypeError, "got dtype torch.complex64"),
    ],
)
def test_what_has_no_rows_or_magnitudes_is_refused(
    values: Tensor, error: type[Exception], sentence: str
) -> None:
    with pytest.raises(error, match=sentence):
        two_way(values)
