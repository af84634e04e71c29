"""Contributions against games of all coalitions, shares against closed forms and numpy."""

from collections.abc import Callable
from itertools import combinations
from math import comb, log

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.special import erf
from torch import Tensor

from jaynes_callbacks.counts.counting import count
from jaynes_callbacks.statistics import occupied_bins, totals
from jaynes_callbacks.statistics.energy import (
    EnergyUnknown,
    contributions,
    energy_figures,
    gini,
    gini_of_bins,
    share_from,
)

Worth = Callable[[frozenset[int]], float]


def values_by_enumeration(players: int, worth: Worth) -> tuple[np.ndarray, np.ndarray]:
    """Return Shapley and Banzhaf values by their definitions, over all 2ⁿ coalitions."""
    shapley, banzhaf = np.zeros(players), np.zeros(players)
    for player in range(players):
        others = [each for each in range(players) if each != player]
        for size in range(players):
            for chosen in combinations(others, size):
                added = worth(frozenset({*chosen, player})) - worth(frozenset(chosen))
                shapley[player] += added / (players * comb(players - 1, size))
                banzhaf[player] += added / 2 ** (players - 1)
    return shapley, banzhaf


@pytest.mark.parametrize("activation", [torch.relu, torch.tanh])
def test_contributions_are_shapley_and_banzhaf_values(
    activation: Callable[[Tensor], Tensor], generator: torch.Generator
) -> None:
    before, here = 5, 4
    weight = torch.randn(here, before, generator=generator).double()
    bias = torch.randn(here, generator=generator).double()
    inputs = torch.randn(before, generator=generator).double().relu()
    z = weight @ inputs + bias
    y = activation(z)
    energies = z * y

    def both_layers(coalition: frozenset[int]) -> float:
        own = [each for each in coalition if each < here]
        earlier = [each - here for each in coalition if each >= here]
        pairs = sum(weight[i, j] * y[i] * inputs[j] for i in own for j in earlier)
        return float(sum(bias[i] * y[i] for i in own) + pairs)

    phi = contributions(energies, bias * y)
    of_earlier = inputs * (weight.T @ y) / 2
    for values in values_by_enumeration(here + before, both_layers):
        np.testing.assert_allclose(values, torch.cat([phi, of_earlier]), atol=1e-13)
    assert float(phi.sum() + of_earlier.sum()) == pytest.approx(float(energies.sum()), rel=1e-13)

    def this_layer(coalition: frozenset[int]) -> float:
        return float(sum(y[i] * (weight[i] @ inputs + bias[i]) for i in coalition))

    for values in values_by_enumeration(here, this_layer):
        np.testing.assert_allclose(values, energies, atol=1e-13)


# Shares -------------------------------------------------------------------------------------

LAWS = {
    "exponential": (stats.expon(), 0.5),
    "lognormal": (stats.lognorm(0.8), erf(0.4)),
    "chi square": (stats.chi2(1), 2 / np.pi),
}


def _row(values: np.ndarray) -> tuple[Tensor, Tensor]:
    row = torch.from_numpy(np.asarray(values, dtype=np.float64))[None]
    return row, torch.ones_like(row, dtype=torch.bool)


def _quantiles(law: object, number: int = 40_000) -> np.ndarray:
    return law.ppf((np.arange(number) + 0.5) / number)  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", LAWS)
def test_gini_of_known_laws(name: str) -> None:
    law, expected = LAWS[name]
    values = _quantiles(law)
    assert gini(*_row(values)).item() == pytest.approx(expected, abs=3e-4)
    counts = count(torch.from_numpy(values)).counts[None]
    found = gini_of_bins(occupied_bins(counts), totals(counts).zeros)
    assert found.item() == pytest.approx(expected, abs=5e-4)
    # A share p of zeros leaves 1 − p of the coefficient's complement.
    counts[0, 0] = counts.sum()
    found = gini_of_bins(occupied_bins(counts), totals(counts).zeros)
    assert found.item() == pytest.approx(0.5 + 0.5 * expected, abs=5e-4)


def test_gini_is_the_mean_difference_by_twice_the_mean(generator: torch.Generator) -> None:
    values = torch.randn(3, 17, generator=generator).double().square()
    known = torch.rand(3, 17, generator=generator) < 0.7
    found = gini(values, known)
    for row, (own, kept) in enumerate(zip(values, known, strict=True)):
        x = own[kept].numpy()
        n = len(x)
        difference = np.abs(x[:, None] - x).sum() / (n * (n - 1))
        assert found[row].item() == pytest.approx(difference / (2 * x.mean()), rel=1e-12)


def test_gini_of_extremes() -> None:
    values = torch.tensor([[1.0, 1, 1], [0, 0, 3], [0, 0, 0], [5, 5, 5], [1, 0, -2]]).double()
    known = torch.ones(5, 3, dtype=torch.bool)
    known[3, 1:] = False
    assert gini(values, known).tolist()[:2] == [0.0, 1.0]
    assert gini(values, known)[2:].isnan().all()


def test_shares_of_the_strong_of_known_laws() -> None:
    exponential, lognormal = _row(_quantiles(stats.expon())), _row(_quantiles(stats.lognorm(0.8)))
    for quantile in (0.25, 0.5):
        rest = 1 - quantile
        found = share_from(*exponential, quantile).item()
        assert found == pytest.approx(rest - rest * log(rest), abs=5e-4)
        found = share_from(*lognormal, quantile).item()
        assert found == pytest.approx(stats.norm.cdf(0.8 - stats.norm.ppf(quantile)), abs=5e-4)


@pytest.mark.parametrize("number", [1, 2, 5, 8, 13])
def test_the_threshold_is_numpys_quantile(number: int, generator: torch.Generator) -> None:
    values, known = _row(torch.rand(number, generator=generator).double().numpy())
    padded = torch.cat([torch.full((1, 4), 9.0).double(), values], 1)
    counted = torch.cat([torch.zeros(1, 4, dtype=torch.bool), known], 1)
    for quantile in (0.25, 0.5):
        strong = values >= np.quantile(values.numpy(), quantile)
        expected = (values[strong].sum() / values.sum()).item()
        found = share_from(padded, counted, quantile).item()
        assert found == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("samples", [64, 256])
def test_equal_neurons_have_unequal_means_by_chance(
    samples: int, generator: torch.Generator
) -> None:
    z = torch.randn(samples, 4000, 1, generator=generator).double().relu().square()
    found = energy_figures(*_sums(z, None))
    cv = found.sample_cv.item()
    s = cv / np.sqrt(samples)
    assert found.of_energy.gini.item() == pytest.approx(cv / np.sqrt(np.pi * samples), rel=0.06)
    assert found.of_energy.strong.item() == pytest.approx(0.75 + 0.318 * s, abs=0.1 * s)
    assert found.of_energy.top_half.item() == pytest.approx(0.5 + 0.399 * s, abs=0.1 * s)
    assert (stats.norm.pdf(stats.norm.ppf([0.25, 0.5]))).round(3).tolist() == [0.318, 0.399]


# Figures ------------------------------------------------------------------------------------


def _sums(z: Tensor, bias_products: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the sums of `counts.energies` of Z, samples × neurons × places."""
    of_neurons, energy = z.sum(-1), z.sum((1, 2))
    number = float(len(z))
    known = 0.0 if bias_products is None else number
    samples = torch.tensor(
        [number, 0, z.numel(), energy.sum(), energy.square().sum(), known], dtype=torch.float64
    )
    columns = [
        torch.full((z.shape[1],), number).double(),
        (z != 0).any(-1).sum(0).double(),
        of_neurons.sum(0),
        of_neurons.square().sum(0),
        torch.zeros(z.shape[1]).double() if bias_products is None else bias_products,
    ]
    # Padding, as in a table of more places than a layer has neurons.
    neurons = torch.cat([torch.stack(columns, -1), torch.zeros(3, 5).double()])
    return samples[None], neurons[None]


def test_figures_are_numpys(generator: torch.Generator) -> None:
    z = torch.randn(50, 6, 3, generator=generator).double().square()
    z[:, 2] = 0
    products = torch.randn(6, generator=generator).double()
    found = energy_figures(*_sums(z, products))
    energy, of_neurons = z.sum((1, 2)).numpy(), z.sum(-1).numpy()
    assert (found.samples.item(), found.left_out.item()) == (50, 0)
    assert (found.neurons.item(), found.dead.item()) == (6, 1)
    assert found.energy.item() == pytest.approx(energy.mean(), rel=1e-12)
    assert found.energy_std.item() == pytest.approx(energy.std(ddof=1), rel=1e-9)
    assert found.unit.item() == pytest.approx(z.mean().item(), rel=1e-12)
    assert found.unit_std.item() == pytest.approx(energy.std(ddof=1) / 18, rel=1e-9)
    mean, alive = of_neurons.mean(0), [0, 1, 3, 4, 5]
    cv = of_neurons.std(0, ddof=1)[alive] / mean[alive]
    assert found.sample_cv.item() == pytest.approx(np.median(cv), rel=1e-9)
    phi = (mean + products.numpy() / 50) / 2
    assert found.phi_share.item() == pytest.approx(phi.sum() / mean.sum(), rel=1e-12)
    for shares, values in ((found.of_energy, mean), (found.of_phi, phi)):
        assert shares.gini.item() == pytest.approx(gini(*_row(values)).item(), rel=1e-12)
        assert shares.strong.item() == pytest.approx(share_from(*_row(values), 0.25).item())
        assert shares.top_half.item() == pytest.approx(np.sort(values)[3:].sum() / values.sum())
    assert found.unknown.item() == 0


@pytest.mark.parametrize(
    ("shape", "factor", "products", "unknown", "missing"),
    [
        ((1, 6, 1), 1.0, 0.0, EnergyUnknown.ONE_SAMPLE, ["energy_std", "unit_std", "sample_cv"]),
        ((9, 6, 1), 0.0, 0.0, EnergyUnknown.NO_ENERGY, ["sample_cv", "phi_share"]),
        ((9, 1, 1), 1.0, 0.0, EnergyUnknown.ONE_NEURON, []),
        ((9, 6, 1), 1.0, None, EnergyUnknown.NO_BIAS, ["phi_share"]),
        ((9, 6, 1), 1.0, -1e3, EnergyUnknown.NEGATIVE_SUM, []),
    ],
    ids=["one sample", "no energy", "one neuron", "no bias", "negative sum"],
)
def test_what_is_not_known_says_so(
    shape: tuple[int, ...],
    factor: float,
    products: float | None,
    unknown: EnergyUnknown,
    missing: list[str],
) -> None:
    z = factor * torch.rand(shape, generator=torch.Generator().manual_seed(3)).double()
    given = None if products is None else torch.full(shape[1:2], products).double()
    found = energy_figures(*_sums(z, given))
    assert EnergyUnknown(found.unknown.item()) == unknown
    assert unknown.reason
    for name in ("energy_std", "unit_std", "sample_cv", "phi_share"):
        assert getattr(found, name).isnan().item() == (name in missing), name
    assert found.of_energy.strong.isnan().item() == (unknown is EnergyUnknown.NO_ENERGY)
    of_phi = (EnergyUnknown.NO_ENERGY, EnergyUnknown.NO_BIAS, EnergyUnknown.NEGATIVE_SUM)
    assert found.of_phi.strong.isnan().item() == (unknown in of_phi)
    assert found.of_energy.gini.isnan().item() == (
        unknown in (EnergyUnknown.NO_ENERGY, EnergyUnknown.ONE_NEURON)
    )


def test_equal_samples_have_no_spread(generator: torch.Generator) -> None:
    # What is left of their squares is a rounding error, of either sign.
    for z in torch.rand(40, 1, 4, 1, generator=generator).double():
        found = energy_figures(*_sums(z.expand(30, 4, 1), None))
        assert (found.energy_std.item(), found.sample_cv.item()) == (0.0, 0.0)


def test_nothing_is_known_of_no_streams() -> None:
    found = energy_figures(torch.zeros(0, 6).double(), torch.zeros(0, 7, 5).double())
    assert len(found.energy) == len(found.of_phi.gini) == 0
