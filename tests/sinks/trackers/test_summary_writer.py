"""What TensorBoard reads back of a writer that a user has made."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata
from torch.utils.tensorboard import SummaryWriter

from jaynes_callbacks.instruments.record import Records


def test_a_writer_gets_what_it_gets_through_lightning(
    snapshots: list[Records], deliver: Callable[..., Any], tmp_path: Path
) -> None:
    def own(step: int) -> None:
        writer.add_scalar("loss", 1.0, global_step=step)

    with SummaryWriter(tmp_path) as writer:
        deliver(snapshots, writer, between=own)
    events = EventAccumulator(str(tmp_path), dict.fromkeys(("images", "tensors"), 0)).Reload()
    curve = [(event.step, event.value) for event in events.Scalars("gap_weight/net.0.weight")]
    assert curve == [(records[0].step, pytest.approx(records[0].gap)) for records in snapshots]
    histogram = events.Histograms("ln_magnitude_weight/net.0.weight")[-1].histogram_value
    assert histogram.num == snapshots[-1][0].n
    assert histogram.sum / histogram.num == pytest.approx(snapshots[-1][0].log_mean)
    assert [image.step for image in events.Images("equilibrium/gap_map")] == [20]
    assert len(events.Tensors("custom_scalars__config__")) == 1
    assert [event.step for event in events.Scalars("loss")] == [0, 10, 20]
    assert metadata.EXPERIMENT_TAG not in events.summary_metadata
