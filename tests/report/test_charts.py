import base64
import io

import numpy as np
import pytest
from PIL import Image

from jaynes_callbacks.instruments.record import Records
from jaynes_callbacks.report import Run
from jaynes_callbacks.report.charts import charts


def pixels(uri: str) -> np.ndarray:
    data = base64.b64decode(uri.removeprefix("data:image/png;base64,"))
    return np.asarray(Image.open(io.BytesIO(data)).convert("L"))


@pytest.mark.painted
def test_each_chart_is_drawn_for_light_and_for_dark_paper(run: Run) -> None:
    found = charts(run)
    assert len(found) == 6
    for chart in found:
        light, dark = pixels(chart.light), pixels(chart.dark)
        assert light.shape == dark.shape == (chart.height, chart.width)
        assert np.median(light) > 200
        assert np.median(dark) < 60
        # Lines and letters stand out from the paper.
        assert light.min() < 120
        assert dark.max() > 150


def test_a_single_look_has_no_course(run: Run) -> None:
    once = charts(Run.measured_once("once", run.end))
    assert [chart.title.split(":")[0] for chart in once] == [
        "Exponents",
        "Every statistic of every stream",
    ]
    assert len(charts(run)) == 6
    assert [chart.title for chart in charts(run, all_of_them=False)] == [
        "The gap of every stream through training"
    ]


def test_nothing_recorded_has_no_charts() -> None:
    assert charts(Run.measured_once("empty", Records())) == []
