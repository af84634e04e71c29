"""What a new family needs: a class with ln f alone, or one with derivatives written by hand."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from jaynes_callbacks.counts.counting import count_
from jaynes_callbacks.counts.grid import CODES
from jaynes_callbacks.counts.threads import side_by_side
from jaynes_callbacks.statistics import (
    FAMILY_BY_NAME,
    Binned,
    Family,
    Fit,
    LogMoments,
    Parameter,
    SmoothFamily,
    Status,
    fit_family,
    gap,
    log_moments,
    occupied_bins,
)
from jaynes_callbacks.statistics.quadrature import LogDensity


class ValueAlone(SmoothFamily):
    """A law of the package, by its ln f alone."""

    def __init__(self, by_hand: SmoothFamily) -> None:
        self.by_hand = by_hand
        self.name, self.parameters = by_hand.name, by_hand.parameters  # type: ignore[misc]
        self.skew_limit, self.rough_start = by_hand.skew_limit, by_hand.rough_start  # type: ignore[misc]

    def start(self, binned: Binned, moments: LogMoments) -> Tensor:
        return self.by_hand.start(binned, moments)

    def log_value(self, parameters: Tensor, x: Tensor) -> Tensor:
        return self.by_hand.log_density(parameters, x).value


class Rayleigh(SmoothFamily):
    """The Weibull with c = 2, as somebody would write it who knows nothing of the engine."""

    name = "rayleigh"
    label = "Rayleigh"
    parameters = (Parameter("scale", "w", "Rayleigh's scale"),)

    def start(self, binned: Binned, moments: LogMoments) -> Tensor:
        return moments.rms[:, None]

    def log_value(self, parameters: Tensor, x: Tensor) -> Tensor:
        y = 2 * (x - parameters.log())
        return y - y.exp() + torch.log(torch.tensor(2.0, dtype=torch.float64))


#: The laws of the package with derivatives by hand.
SMOOTH = [
    family
    for family in FAMILY_BY_NAME.values()
    if isinstance(family, SmoothFamily) and type(family).log_density != SmoothFamily.log_density
]


@pytest.fixture(scope="module")
def binned() -> Binned:
    source = torch.Generator().manual_seed(9)
    normal = torch.randn(5, 30_000, generator=source)
    values = [
        normal[0],
        (0.6 * normal[1]).exp(),
        normal[2] / normal[3].abs(),
        (0.02 * normal).exp(),
    ]
    counts = torch.zeros(len(values), CODES, dtype=torch.int64)
    for row, each in enumerate(values):
        count_(each, counts, row)
    return occupied_bins(counts)


def fitted(family: Family, binned: Binned) -> Fit:
    return fit_family(family, binned, log_moments(binned))


def assert_same_optimum(found: Fit, expected: Fit, binned: Binned) -> None:
    assert torch.equal(found.status, expected.status)
    assert (expected.status == Status.CONVERGED).sum() >= 2
    torch.testing.assert_close(
        found.parameters, expected.parameters, rtol=1e-9, atol=1e-9, equal_nan=True
    )
    torch.testing.assert_close(
        gap(binned, found), gap(binned, expected), rtol=0, atol=1e-12, equal_nan=True
    )


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("family", SMOOTH, ids=lambda family: family.name)
@pytest.mark.sampled(3)
def test_ln_f_alone_finds_the_optimum_of_derivatives_by_hand(
    family: SmoothFamily, mode: type, binned: Binned
) -> None:
    with mode():
        assert_same_optimum(fitted(ValueAlone(family), binned), fitted(family, binned), binned)


@pytest.mark.parametrize("family", SMOOTH, ids=lambda family: family.name)
def test_derived_scores_are_those_by_hand(family: SmoothFamily, binned: Binned) -> None:
    parameters = family.start(binned, log_moments(binned))
    ours = ValueAlone(family).log_density(parameters, binned.middle)
    by_hand = family.log_density(parameters, binned.middle)
    torch.testing.assert_close(ours.value, by_hand.value, rtol=1e-9, atol=1e-9)
    for derived, expected in zip(ours.score, by_hand.score, strict=True):
        torch.testing.assert_close(derived, expected, rtol=1e-8, atol=1e-8)


def test_a_law_from_outside_is_fitted_like_its_relative(generator: torch.Generator) -> None:
    values = torch.randn(2, 50_000, generator=generator).square().sum(0).sqrt()
    counts = torch.zeros(1, CODES, dtype=torch.int64)
    count_(values, counts, 0)
    binned = occupied_bins(counts)
    fit = fitted(Rayleigh(), binned)
    assert fit.status.tolist() == [Status.CONVERGED]
    # Of the Weibull (c/λ)(w/λ)^(c−1) exp(−(w/λ)^c): λ = √2 of unit Gaussian components.
    assert fit.parameters.item() == pytest.approx(2**0.5, abs=0.02)
    assert gap(binned, fit).item() < 5e-4
    assert Rayleigh().columns == ("fit_rayleigh_scale",)


def test_families_that_are_derived_at_the_same_time_do_not_meet(binned: Binned) -> None:
    """torch's forward differentiation has one level in a process, where threads mix tangents."""
    families = [ValueAlone(family) for family in SMOOTH] * 3
    parameters = [family.start(binned, log_moments(binned)) for family in families]

    def scores(pair: tuple[SmoothFamily, Tensor]) -> LogDensity:
        return pair[0].log_density(pair[1], binned.middle)

    pairs = list(zip(families, parameters, strict=True))
    for found, pair in zip(side_by_side(scores, pairs, 4), pairs, strict=True):
        for together, alone in zip(found.score, scores(pair).score, strict=True):
            assert torch.equal(together, alone)


def test_a_class_without_a_density_is_refused() -> None:
    with pytest.raises(TypeError, match="Nothing must define log_value or log_density"):

        class Nothing(SmoothFamily):
            name = "nothing"


def all_columns() -> Iterator[str]:
    for family in FAMILY_BY_NAME.values():
        yield from family.columns


def test_every_parameter_has_a_column_of_its_own() -> None:
    names = list(all_columns())
    assert len(set(names)) == len(names)
    assert {"mu", "sigma", "q", "fit_half_student_t_dof", "fit_weibull_shape"} < set(names)
    own = {"mu", "sigma", "q"}
    assert all(name.startswith("fit_") for name in names if name not in own)
    for family in FAMILY_BY_NAME.values():
        for parameter in family.parameters:
            assert parameter.unit
            assert parameter.meaning


@pytest.mark.parametrize("family", FAMILY_BY_NAME.values(), ids=lambda family: family.name)
def test_parameters_come_back_from_their_columns(family: Family, binned: Binned) -> None:
    fit = fitted(family, binned)
    columns = dict(zip(family.columns, fit.parameters.unbind(-1), strict=True))
    as_lists = {name: column.tolist() for name, column in columns.items()} | {"n": [1, 2, 3, 4]}
    as_arrays = {name: column.numpy() for name, column in columns.items()}
    for table in (as_lists, as_arrays):
        back = family.parameters_from(table)
        torch.testing.assert_close(back, fit.parameters, rtol=0, atol=0, equal_nan=True)
    missing = family.columns[-1]
    with pytest.raises(KeyError, match=f"{missing} is missing"):
        family.parameters_from({name: [1.0] for name in family.columns[:-1]})


def test_every_family_has_a_look_of_its_own() -> None:
    families = FAMILY_BY_NAME.values()
    for look in ("label", "color", "dashes"):
        assert len({getattr(family, look) for family in families}) == len(families)
    assert not any("_" in family.label for family in families)
    assert all(FAMILY_BY_NAME[name].name == name for name in FAMILY_BY_NAME)
