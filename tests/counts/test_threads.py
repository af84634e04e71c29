from collections.abc import Iterator
from threading import current_thread

import pytest
import torch

from jaynes_callbacks import analyse
from jaynes_callbacks.counts.threads import one_thread, side_by_side
from jaynes_callbacks.instruments import distribution as measured


@pytest.fixture(params=[1, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """Torch works with so many; afterwards with as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_a_failure_gives_the_threads_back(threads: int) -> None:
    with pytest.raises(KeyError), one_thread():
        raise KeyError
    with pytest.raises(ZeroDivisionError):
        side_by_side(lambda item: 1 / item, [1, 0], threads=2)
    assert torch.get_num_threads() == threads


def test_fits_work_in_one_thread_and_the_run_in_its_own(
    threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    log_moments = measured.statistics.log_moments

    def spy(*arguments: object) -> object:
        seen.append(torch.get_num_threads())
        return log_moments(*arguments)

    monkeypatch.setattr(measured.statistics, "log_moments", spy)
    analyse(torch.randn(50, 40, generator=torch.Generator().manual_seed(0)))
    assert set(seen) == {1}
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("number", [1, 2, 5])
def test_items_keep_their_order_and_each_thread_has_one_of_torchs(number: int) -> None:
    found = side_by_side(lambda item: (item, torch.get_num_threads()), range(20), number)
    assert found == [(item, 1) for item in range(20)]


def test_the_threads_compute_as_this_one_does() -> None:
    def state(_: int) -> tuple[bool, bool, bool]:
        here = current_thread().name.startswith("jaynes-fit")
        return here, torch.is_grad_enabled(), torch.is_inference_mode_enabled()

    assert side_by_side(state, [0], 2) == [(True, True, False)]
    with torch.no_grad():
        assert side_by_side(state, [0], 2) == [(True, False, False)]
    with torch.inference_mode():
        assert side_by_side(state, [0], 2) == [(True, False, True)]


def test_no_thread_is_started_while_python_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    # As `atexit` finds it: Python then starts no thread, and a pool raises RuntimeError.
    main = threading.main_thread()
    monkeypatch.setattr(threading, "main_thread", lambda: SimpleNamespace(is_alive=lambda: False))
    assert side_by_side(lambda _: threading.current_thread(), range(3), threads=2) == [main] * 3
