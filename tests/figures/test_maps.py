import math

import numpy as np

from jaynes_callbacks.figures import gap_map, statistics_map
from jaynes_callbacks.instruments.record import Record, Records


def test_rows_are_streams_and_columns_are_records(history: Records) -> None:
    weights, iota = gap_map(history).axes[:2]
    shown = np.ma.filled(weights.images[0].get_array(), math.nan)
    np.testing.assert_allclose(shown, [[0.4, 0.2, 0.05], [0.2, 0.2, 0.2]])
    assert [label.get_text() for label in iota.get_xticklabels()] == ["0", "10", "20"]
    assert [text.get_text() for text in iota.texts] == ["no gaps"]


def test_a_stream_that_came_later_has_no_earlier_gap(history: Records) -> None:
    late = [*history, Record(name="late.weight", step=20, gap=0.1)]
    shown = np.ma.filled(gap_map(late).axes[0].images[0].get_array(), math.nan)
    np.testing.assert_allclose(shown[2], [math.nan, math.nan, 0.1])


def test_nearer_is_darker(history: Records) -> None:
    image = gap_map(history).axes[0].images[0]
    brightness = image.cmap(image.norm([0.001, 0.02, 0.16, 0.4]))[:, :3].sum(axis=1)
    assert (np.diff(brightness) > 0).all()


def test_a_lognormal_layer_is_dark_and_a_gaussian_one_light(snapshots: list[Records]) -> None:
    gaussian = snapshots[0][0]
    lognormal = gaussian.replace(
        name="lognormal", gap=0.0, rival_gaps={"gamma": 0.0}, q=0.0, log_skew=0.0, log_std=0.5,
        tv=0.0, ks=0.0, paper_r2=1.0, paper_r2_gaussian=1.0, moved=0.0,
    )  # fmt: skip
    shares = statistics_map([gaussian, lognormal]).axes[0].images[0].get_array()
    assert shares[1].max() == 0
    columns = [label.get_text() for label in statistics_map([gaussian]).axes[0].get_xticklabels()]
    assert shares[0][columns.index("gap")] > 0.75
    assert shares[0][columns.index("q")] > 0.9


def test_numbers_stand_in_few_rows_and_not_in_many(snapshots: list[Records]) -> None:
    record = snapshots[0][0]
    few = [text.get_text() for text in statistics_map([record]).axes[0].texts]
    assert few[0] == f"{record.gap:.3f}"
    many = [record.replace(name=f"{number}") for number in range(60)]
    assert not statistics_map(many).axes[0].texts


def test_kinds_that_share_names_are_told_apart() -> None:
    rows = [Record(kind=kind, name=name) for kind in ("gradient", "update") for name in "ab"]

    def names(rows: list[Record]) -> list[str]:
        return [label.get_text() for label in statistics_map(rows).axes[0].get_yticklabels()]

    assert names(rows) == ["gradient  a", "gradient  b", "update  a", "update  b"]
    assert names(rows[1:3]) == ["b", "a"]


def test_what_is_not_known_has_no_number() -> None:
    axes = statistics_map([Record(name="a", gap=0.125)]).axes[0]
    assert [text.get_text() for text in axes.texts] == ["0.125"]
