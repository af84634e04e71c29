import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import StepLR

from experiments.optimizers import MuonWithAdamW


def network() -> nn.Sequential:
    torch.manual_seed(5)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))


def trained(net: nn.Module, *optimizers: torch.optim.Optimizer, steps: int = 3) -> None:
    images = torch.randn(20, 6, generator=torch.Generator().manual_seed(8))
    for _ in range(steps):
        net.zero_grad()
        net(images).square().sum().backward()
        for optimizer in optimizers:
            optimizer.step()


def test_one_optimizer_does_what_two_would() -> None:
    together, apart = network(), network()
    trained(together, MuonWithAdamW(together.parameters(), lr=0.01))
    matrices = [p for p in apart.parameters() if p.ndim == 2]
    biases = [p for p in apart.parameters() if p.ndim == 1]
    muon = torch.optim.Muon(matrices, lr=0.01, weight_decay=0.01, adjust_lr_fn="match_rms_adamw")
    trained(apart, muon, torch.optim.AdamW(biases, lr=0.01, weight_decay=0.01))
    for one, other in zip(together.parameters(), apart.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_scheduler_reaches_both() -> None:
    net = network()
    optimizer = MuonWithAdamW(net.parameters(), lr=0.01)
    scheduler = StepLR(optimizer, step_size=1, gamma=0.0)
    trained(net, optimizer)
    scheduler.step()
    before = [p.detach().clone() for p in net.parameters()]
    trained(net, optimizer)
    assert all(torch.equal(p, q) for p, q in zip(net.parameters(), before, strict=True))


def test_a_checkpoint_is_gone_on_with() -> None:
    whole, halves = network(), network()
    trained(whole, MuonWithAdamW(whole.parameters(), lr=0.01), steps=4)
    first = MuonWithAdamW(halves.parameters(), lr=0.01)
    trained(halves, first, steps=2)
    second = MuonWithAdamW(halves.parameters(), lr=0.5)
    second.load_state_dict(first.state_dict())
    trained(halves, second, steps=2)
    for one, other in zip(whole.parameters(), halves.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_without_a_matrix_there_is_nothing_for_muon() -> None:
    with pytest.raises(ValueError, match="a parameter of two dimensions, got none: use adamw"):
        MuonWithAdamW(nn.BatchNorm1d(4).parameters())


def test_a_torch_without_muon_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.optim, "Muon")
    with pytest.raises(RuntimeError, match=r"has no torch\.optim\.Muon, which came with 2\.9"):
        MuonWithAdamW(network().parameters())
