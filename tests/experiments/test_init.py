import math
from functools import partial

import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from experiments import init
from experiments.models import CNN

#: Every law with scipy's distribution of |X|, where X has mean 0 and variance 1.
LAWS = {
    "normal": (init.normal, stats.halfnorm()),
    "uniform": (init.uniform, stats.uniform(0, math.sqrt(3))),
    "laplace": (init.laplace, stats.expon(scale=math.sqrt(0.5))),
    "student_t": (partial(init.student_t, dof=5.0), None),
    "lognormal": (
        partial(init.lognormal, sigma=0.65),
        stats.lognorm(0.65, scale=math.exp(-(0.65**2))),
    ),
    "orthogonal": (init.orthogonal, None),
    # Its cut at 4.34 standard deviations is not seen in so few draws.
    "paper": (init.paper_lognormal, stats.lognorm(0.65, scale=math.exp(-(0.65**2)))),
}


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(11)


@pytest.mark.parametrize("law", LAWS)
def test_every_law_has_the_same_variance(law: str) -> None:
    draws = LAWS[law][0](torch.empty(1000, 1000)).double()
    assert draws.shape == (1000, 1000)
    assert abs(draws.mean()) < 0.01
    assert abs(draws.var() - 1) < 0.02


@pytest.mark.parametrize("law", [law for law, (_, truth) in LAWS.items() if truth])
def test_magnitudes_follow_the_law(law: str) -> None:
    draw, truth = LAWS[law]
    draws = draw(torch.empty(100, 200)).flatten()
    assert stats.kstest(draws.abs().numpy(), truth.cdf).pvalue > 0.01
    assert abs((draws > 0).double().mean() - 0.5) < 0.02


def test_student_t_is_scaled_to_unit_variance() -> None:
    draws = init.student_t(torch.empty(100, 200), dof=5.0).flatten() / math.sqrt(3 / 5)
    assert stats.kstest(draws.numpy(), stats.t(5).cdf).pvalue > 0.01


def test_the_papers_lognormal_ends_at_its_maximum() -> None:
    """With μ' = −0.5 the cut is at 1.42 standard deviations, and its law known by quadrature."""
    draws = init.paper_lognormal(torch.empty(300, 400), mu=-0.5, sigma=0.65).abs().double()
    mean = -0.5 - 0.65**2
    truth = stats.truncnorm(-math.inf, -mean / 0.65, loc=mean, scale=0.65)
    rms = math.sqrt(truth.expect(lambda x: math.exp(2 * x)))
    assert draws.max() <= 1 / rms
    assert draws.max() > 0.999 / rms
    # Near the cut values are dense: of 120,000 the scatter of a mean square is far below 0.01.
    assert abs(draws.square().mean() - 1) < 0.01
    assert stats.kstest((draws * rms).log().flatten()[:20_000].numpy(), truth.cdf).pvalue > 0.01


def test_the_papers_figures_of_the_papers_start() -> None:
    """A layer so begun shows the paper's σ'; its μ' as far as its largest weight is the law's."""
    from jaynes_callbacks import analyse

    (record,) = analyse(init.paper_lognormal(torch.empty(1000, 1000)))
    assert record.paper_sigma == pytest.approx(0.65, abs=0.01)
    assert record.paper_mu == pytest.approx(-2.4, abs=0.1)
    assert record.gap < 0.001


@pytest.mark.parametrize("shape", [(32, 128), (128, 32), (16, 8, 3, 3)])
def test_orthogonal_rows_or_columns(shape: tuple[int, ...]) -> None:
    draws = init.orthogonal(torch.empty(*shape)).flatten(1).double()
    small, large = sorted(draws.shape)
    gram = draws @ draws.T if draws.shape[0] == small else draws.T @ draws
    torch.testing.assert_close(gram, large * torch.eye(small).double(), atol=1e-3, rtol=0)


@pytest.mark.parametrize("law", LAWS)
def test_every_layer_gets_the_variance_two_over_fan_in(law: str) -> None:
    net = CNN((3, 16, 16), 10, channels=(64, 64), width=512)
    init.he_scaled(net, law=LAWS[law][0])
    layers = [layer for layer in net if isinstance(layer, nn.Linear | nn.Conv2d)]
    assert len(layers) == 6
    for layer in layers:
        fan_in = layer.weight[0].numel()
        weights = layer.weight.detach().double()
        # Six standard errors of a variance whose law has a kurtosis as high as t₅'s, 9.
        tolerance = 6 * math.sqrt(8 / weights.numel())
        assert abs(weights.square().mean() * fan_in / 2 - 1) < tolerance
        assert layer.bias is not None
        assert not layer.bias.any()


def test_he_scaled_leaves_other_layers_alone() -> None:
    norm = nn.BatchNorm1d(4)
    init.he_scaled(nn.Sequential(nn.Linear(4, 4, bias=False), norm), law=init.normal)
    assert torch.equal(norm.weight, torch.ones(4))


def test_keep_keeps() -> None:
    layer = nn.Linear(8, 8)
    before: Tensor = layer.weight.detach().clone()
    init.keep(layer)
    assert torch.equal(layer.weight, before)


def test_the_same_seed_draws_the_same_weights() -> None:
    def weights() -> Tensor:
        torch.manual_seed(3)
        layer = nn.Linear(16, 16)
        init.he_scaled(layer, law=LAWS["lognormal"][0])
        return layer.weight

    assert torch.equal(weights(), weights())


@pytest.mark.parametrize(
    ("law", "sentence"),
    [
        (partial(init.lognormal, sigma=0.0), "sigma must be a number above 0, got 0.0"),
        (partial(init.paper_lognormal, mu=1.0), r"mu must be below sigma² = 0\.4225, got 1\.0"),
        (partial(init.student_t, dof=2.0), "dof must be a number above 2, got 2.0"),
    ],
)
def test_impossible_parameters_are_named(law: init.Law, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        init.he_scaled(nn.Linear(4, 4), law=law)
