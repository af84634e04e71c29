"""Figures take records in every form in which users have them, and refuse what they cannot draw."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from jaynes_callbacks.figures import (
    columns_over_steps,
    exponents_over_layers,
    gap_map,
    gap_over_steps,
    laws_over_steps,
    log_density,
    microstructure_map,
    paper_view,
    statistics_map,
    utility_over_magnitude,
)
from jaynes_callbacks.figures.inputs import as_frame
from jaynes_callbacks.instruments.gradients import Gradients
from jaynes_callbacks.instruments.record import Records
from jaynes_callbacks.records.frame import Frame
from jaynes_callbacks.sinks.base import RunContext
from jaynes_callbacks.sinks.dataset import DatasetSink

OF_ONE_STREAM = (log_density, paper_view, utility_over_magnitude)
OF_ALL = (
    columns_over_steps,
    exponents_over_layers,
    gap_map,
    gap_over_steps,
    laws_over_steps,
    microstructure_map,
    statistics_map,
)


@pytest.fixture
def joined(snapshots: list[Records]) -> Records:
    return Records.concatenated(snapshots)


@pytest.fixture
def dataset(snapshots: list[Records], tmp_path: Path) -> Path:
    sink = DatasetSink()
    sink.open(RunContext(directory=tmp_path))
    for records in snapshots:
        sink.write(records, Records())
    assert sink.directory is not None
    return sink.directory


@pytest.mark.parametrize("draw", OF_ONE_STREAM)
def test_records_of_different_streams_are_refused(
    draw: Callable[..., Figure], joined: Records
) -> None:
    with pytest.raises(ValueError, match=r"one stream, got iota net\.1 and weight net\.0\.weight"):
        draw(joined[-1], joined[0])
    with pytest.raises(ValueError, match=r"got 3 \(weight net\.0\.weight, .*choose one with name="):
        draw(joined)
    with pytest.raises(ValueError, match=r"stream 'net\.9', got weight net\.0\.weight"):
        draw(joined, name="net.9")


@pytest.mark.parametrize("draw", OF_ONE_STREAM)
@pytest.mark.sampled(3)
def test_the_last_record_of_a_stream_is_drawn_against_the_first(
    draw: Callable[..., Figure], joined: Records, snapshots: list[Records], dataset: Path
) -> None:
    expected = draw(snapshots[-1][0], snapshots[0][0])._repr_png_()  # type: ignore[attr-defined]
    name = snapshots[0][0].name
    for rows in (joined, snapshots, list(joined), dataset, str(dataset)):
        assert draw(rows, name=name)._repr_png_() == expected  # type: ignore[attr-defined]
    only = joined.select(name=name)
    assert draw(only)._repr_png_() == expected  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="must have counts, which a DataFrame"):
        draw(joined.to_pandas(), name=name)


@pytest.mark.parametrize("draw", OF_ALL)
@pytest.mark.sampled(3)
def test_a_network_is_drawn_of_any_form(
    draw: Callable[..., Any], joined: Records, snapshots: list[Records], dataset: Path
) -> None:
    expected = draw(joined)._repr_png_()
    assert expected.startswith(b"\x89PNG")
    frame = joined.to_pandas()
    reindexed = frame.set_index(np.arange(len(frame)) + 7)  # as filtering leaves it
    for rows in (
        snapshots,
        list(joined),
        dataset,
        frame,
        frame.assign(note="mine"),
        reindexed,
    ):
        assert draw(rows)._repr_png_() == expected, type(rows)


def test_a_data_frame_of_another_instrument_is_known_by_its_columns(joined: Records) -> None:
    columns = {**joined.columns, "update_ratio": np.full(len(joined), 0.1)}
    frame = as_frame(Frame(Gradients.schema, columns).to_pandas())
    assert frame.schema.instrument == "gradients"
    assert frame["update_ratio"].tolist() == [0.1] * len(joined)


def test_what_holds_no_records_is_refused(tmp_path: Path, joined: Records) -> None:
    with pytest.raises(FileNotFoundError, match=r"no dataset at .*expected a folder jaynes/"):
        gap_map(tmp_path)
    with pytest.raises(TypeError, match=r"a figure takes records: .*got int"):
        gap_map(3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="either frames or rows, got both"):
        gap_map([joined, joined[0]])
    with pytest.raises(ValueError, match="lacks step, kind, name"):
        gap_map(pd.DataFrame({"gap": [0.1]}))
