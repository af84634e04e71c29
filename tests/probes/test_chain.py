"""Which modules come one right after another, and where a chain is broken."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from jaynes_callbacks.probes.chain import ChainWatch


class Applied(nn.Module):
    """Two layers with something between them."""

    def __init__(
        self, between: Callable[[Tensor], Tensor], end: Callable[[Tensor], Tensor]
    ) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 4), nn.Linear(4, 4)
        self.between, self.end = between, end

    def forward(self, x: Tensor) -> Tensor:
        return self.end(self.last(self.between(self.first(x))))


def _same(x: Tensor) -> Tensor:
    return x


def _watched(model: nn.Module, *inputs: Tensor) -> ChainWatch:
    watch = ChainWatch(model)
    watch.open()
    for x in inputs:
        model(x)
    watch.close()
    assert watch._tail is None
    return watch


def _links(watch: ChainWatch) -> list[tuple[str, bool]]:
    return [(link.name, link.follows) for link in watch.links]


def test_a_chain_of_modules() -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Sequential(nn.Linear(8, 2))
    )
    # The last forward counts.
    watch = _watched(model, torch.ones(3, 1, 4, 4), torch.ones(2, 1, 4, 4))
    assert _links(watch) == [("0", False), ("1", True), ("2", True), ("3.0", True)]
    assert watch.is_whole
    following = watch.following("0")
    assert following is not None
    assert following.name == "1"
    assert watch.following("3.0") is None
    assert watch.following("unknown") is None


@pytest.mark.parametrize(
    ("between", "follows"),
    [
        (_same, True),
        (lambda x: x.view(2, 2, 4), True),
        (lambda x: x.unsqueeze(1), True),
        (torch.relu, False),
        (torch.relu_, False),
        (lambda x: x + 1, False),
        (lambda x: x[:1], False),
        (lambda x: x.detach().clone(), False),
    ],
)
def test_functions_between_modules_break_it(
    between: Callable[[Tensor], Tensor], follows: bool
) -> None:
    watch = _watched(Applied(between, _same), torch.ones(4, 4))
    assert _links(watch) == [("first", False), ("last", follows)]
    assert watch.is_whole


@pytest.mark.parametrize("end", [torch.relu, torch.relu_, lambda x: 2 * x])
def test_functions_at_the_end_leave_it_incomplete(end: Callable[[Tensor], Tensor]) -> None:
    watch = _watched(Applied(_same, end), torch.ones(4, 4))
    assert watch.is_whole is False


def test_parts_of_a_model_that_are_called_alone() -> None:
    model = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)})
    watch = ChainWatch(model)
    watch.open(one_forward=True)
    model["b"](model["a"](torch.ones(1, 2)))
    watch.close()
    assert _links(watch) == [("a", False), ("b", True)]
    assert watch.is_whole is None
    watch.open()
    model["b"](model["a"](torch.ones(1, 2)))
    watch.close()
    assert _links(watch) == [("b", False)]
