import numpy as np
import pytest
from matplotlib.collections import LineCollection

from jaynes_callbacks.figures import microstructure_map
from jaynes_callbacks.instruments.record import Record, Records
from jaynes_callbacks.statistics import landmarks


def test_paths_go_from_open_to_filled_circles(history: Records) -> None:
    axes = microstructure_map(history).axes[0]
    (paths,) = [part for part in axes.collections if isinstance(part, LineCollection)]
    for path in paths.get_segments():
        np.testing.assert_allclose(path, [(-1, 2), (-0.5, 1), (-1 / 3, 2 / 3)])
    starts, ends = axes.collections[-2:]
    np.testing.assert_allclose(np.asarray(starts.get_offsets())[0], (-1, 2))
    np.testing.assert_allclose(np.asarray(ends.get_offsets())[0], (-1 / 3, 2 / 3))


def test_landmarks_and_the_curves_through_them(history: Records) -> None:
    axes = microstructure_map(history).axes[0]
    marks = {text.get_text(): text.xy for text in axes.texts}
    assert marks == dict(landmarks())
    gamma, student = (line for line in axes.lines if len(line.get_xdata()) > 100)
    for line, names in ((gamma, ("lognormal", "Laplace", "Gaussian")), (student, ("Cauchy",))):
        curve = np.stack([line.get_xdata(), line.get_ydata()], axis=1)
        for name in names:
            assert np.abs(curve - marks[name]).sum(axis=1).min() < 0.2, name


def test_a_kind_of_which_nothing_is_known_leaves_the_others_their_ticks() -> None:
    rows = [
        Record(name="a", log_skew=-1.0, log_kurtosis=2.0),
        Record(kind="iota", name="relu"),
    ]
    figure = microstructure_map(rows)
    assert "nothing measured" in [text.get_text() for text in figure.axes[1].texts]
    for axes in figure.axes:
        assert len(axes.get_xticks()) > 1


def test_what_lies_far_out_is_drawn_at_the_edge() -> None:
    rows = [Record(name="a", step=step, log_skew=-99.0, log_kurtosis=1e6) for step in (0, 1)]
    axes = microstructure_map(rows).axes[0]
    place = np.asarray(axes.collections[-1].get_offsets())[0]
    assert place == pytest.approx((axes.get_xlim()[0], axes.get_ylim()[1]))
