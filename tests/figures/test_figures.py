import subprocess
import sys
import threading
from collections.abc import Callable, Sequence

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.text import Text

from jaynes_callbacks.counts.grid import log_edges
from jaynes_callbacks.figures import (
    DARK,
    LIGHT,
    Look,
    gap_over_steps,
    log_density,
    paper_view,
    rendered,
    utility_over_magnitude,
)
from jaynes_callbacks.figures import curves as figure_curves
from jaynes_callbacks.figures.curves import (
    LogHistogram,
    family_curves,
    fitted_parameters,
    log_histogram,
    size_weighted,
)
from jaynes_callbacks.figures.look import family_style, printable
from jaynes_callbacks.instruments.distribution import counts_of, recompute
from jaynes_callbacks.instruments.record import Record, Records
from jaynes_callbacks.statistics import (
    FAMILIES,
    GENERALIZED_GAMMA,
    LOGNORMAL,
    Binned,
    Family,
    Fit,
    LogMoments,
    fit_families,
    fit_family,
    log_moments,
    occupied_bins,
)

NAN = float("nan")
OF_A_RECORD = (paper_view, log_density)
LOOKS = pytest.mark.parametrize("look", [LIGHT, DARK], ids=["light", "dark"])

Array = "np.ndarray[tuple[int, ...], np.dtype[np.float64]]"


def counted(codes: list[int], counts: list[int]) -> Record:
    """A record of given counts in which no figure could be computed."""
    return Record(
        name="odd.weight",
        n=sum(counts),
        status="too few bins; paper protocol: too few bins",
        codes=np.array(codes, dtype=np.int64),
        counts=np.array(counts, dtype=np.int64),
    )


DEGENERATE = {
    "nothing counted": Record(),
    "zeros only": counted([0], [100]),
    "infinities only": counted([4080, 4090], [3, 4]),
    "one value": counted([2000], [1]),
    "a million in one bin": counted([2000], [10**15]),
    "the two ends of the grid": counted([1, 4079], [5, 5]),
    "no maximum": counted([2000, 2010, 2020], [5, 9, 5]),
}


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text) if isinstance(text, Text)]


def drawn_whole(figure: Figure) -> None:
    """Every letter is on the page."""
    rendered(figure)
    page = figure.bbox.padded(1.0)
    # Ticks beyond the limits have labels that are not drawn.
    ticks = {
        label
        for axes in figure.axes
        for axis in (axes.xaxis, axes.yaxis)
        for label in axis.get_ticklabels(which="both")
    }
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        if text.get_visible() and text.get_text() and text not in ticks:
            box = text.get_window_extent()
            assert page.x0 <= box.x0, text.get_text()
            assert box.x1 <= page.x1, text.get_text()
            assert page.y0 <= box.y0, text.get_text()
            assert box.y1 <= page.y1, text.get_text()


@LOOKS
@pytest.mark.parametrize("draw", OF_A_RECORD)
@pytest.mark.sampled(3)
def test_a_record_is_drawn_against_its_start(
    draw: Callable[..., Figure], look: Look, snapshots: list[Records]
) -> None:
    for start, end in zip(snapshots[0], snapshots[-1], strict=True):
        figure = draw(end, start, look=look)
        assert isinstance(figure, Figure)
        drawn_whole(figure)
        assert figure.get_facecolor() == mpl.colors.to_rgba(look.page)
        assert any("step 0 to 20" in text for text in texts(figure))
        named = [text.get_text() for text in figure.legends[0].get_texts()]
        assert any(text.endswith("step 0") for text in named)
        assert any(text.endswith("step 20") for text in named)


def each_by_one(cases: Sequence[str]) -> pytest.MarkDecorator:
    """Draw the cases in turn by one and by the other figure of a record, in slow tests by both."""
    return pytest.mark.parametrize(
        ("draw", "case"),
        [
            pytest.param(draw, case, marks=[pytest.mark.slow] * ((place + number) % 2))
            for place, draw in enumerate(OF_A_RECORD)
            for number, case in enumerate(cases)
        ],
    )


@pytest.mark.parametrize("draw", OF_A_RECORD)
@pytest.mark.parametrize("case", DEGENERATE)
@pytest.mark.sampled(3)
def test_records_without_figures_are_drawn(
    case: str, draw: Callable[..., Figure], snapshots: list[Records]
) -> None:
    record, measured = DEGENERATE[case], snapshots[0][0]
    drawn_whole(draw(record))
    drawn_whole(draw(measured, record.replace(name=measured.name)))


@each_by_one(list(DEGENERATE))
@pytest.mark.sampled(3)
def test_activations_without_figures_are_drawn(
    draw: Callable[..., Figure], case: str, snapshots: list[Records]
) -> None:
    iota = DEGENERATE[case].replace(kind="iota", max=1.0, rms=0.5)
    drawn_whole(draw(iota, snapshots[0][0].replace(kind="iota", name=iota.name)))


@pytest.mark.parametrize("draw", OF_A_RECORD)
def test_what_is_missing_is_said(draw: Callable[..., Figure], bare: Record) -> None:
    said = "\n".join(texts(draw(bare)))
    assert "no values" in said
    assert "no fit: empty" in said


HOSTILE = [
    "../x", "层.权重", "$\\frac{1}$", "$x$ $", "_orig_mod.fc", "a" * 300, "%s {0}",
    "new\nline\0", "",
]  # fmt: skip


@each_by_one(HOSTILE)
@pytest.mark.sampled(4)
def test_hostile_names_are_drawn(
    draw: Callable[..., Figure], case: str, snapshots: list[Records]
) -> None:
    record = snapshots[0][0].replace(name=case)
    drawn_whole(draw(record, record))


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.sampled(4)
def test_hostile_names_are_drawn_in_legends(name: str, snapshots: list[Records]) -> None:
    record = snapshots[0][0].replace(name=name)
    figure = gap_over_steps(Records([record, record.replace(step=1)]))
    drawn_whole(figure)
    legend_texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend_texts == [f"weight  {printable(name)}"]


def test_names_keep_both_their_ends() -> None:
    name = "model.encoder." + "layers." * 40 + "7.weight"
    short = printable(name, longest=30)
    assert len(short) == 29
    assert short.startswith("model.encoder.")
    assert short.endswith("7.weight")
    assert printable("$a$") == r"\$a\$"
    assert printable("a\tb") == r"a\tb"


def test_nothing_global_is_touched(snapshots: list[Records]) -> None:
    before = dict(mpl.rcParams)
    for draw in OF_A_RECORD:
        rendered(draw(snapshots[1][0], snapshots[0][0]))
    rendered(gap_over_steps(snapshots[0]))
    assert dict(mpl.rcParams) == before


def test_pyplot_is_not_imported() -> None:
    code = (
        "import sys\n"
        "from jaynes_callbacks.instruments.record import Record, Records\n"
        "from jaynes_callbacks.figures import "
        "gap_over_steps, log_density, paper_view, rendered\n"
        "for figure in paper_view(Record()), log_density(Record()), gap_over_steps(Records()):\n"
        "    rendered(figure)\n"
        "sys.exit('matplotlib.pyplot' in sys.modules)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_figures_can_be_drawn_in_a_thread(snapshots: list[Records]) -> None:
    found: list[Figure] = []
    thread = threading.Thread(target=lambda: found.append(log_density(snapshots[0][0])))
    thread.start()
    thread.join()
    rendered(found[0])


# Numbers -----------------------------------------------------------------------------------------


def histogram_of(record: Record) -> LogHistogram:
    histogram = log_histogram(record)
    assert histogram is not None
    return histogram


def binned_of(records: list[Record]) -> tuple[Binned, LogMoments]:
    binned = occupied_bins(counts_of(records))
    return binned.merged(), log_moments(binned)


def codes_of(histogram: LogHistogram) -> tuple[int, int]:
    return int(histogram.codes[0]), int(histogram.codes[-1])


def test_the_histogram_is_a_density_of_the_bulk(snapshots: list[Records]) -> None:
    for record in snapshots[0]:
        histogram = histogram_of(record)
        mass = (histogram.density * np.diff(histogram.edges)).sum()
        assert 0.99 < mass <= 1.0 + 1e-12


def test_few_values_are_drawn_in_wider_bins(measure: Callable[..., Records]) -> None:
    generator = torch.Generator().manual_seed(3)
    many = torch.randn(200_000, generator=generator)
    fine, coarse = measure({"many": many, "few": many[:500]})
    assert np.diff(histogram_of(fine).codes)[0] == 1
    width = np.diff(histogram_of(coarse).codes)[0]
    assert width in (2, 4, 8, 16)
    counts = histogram_of(coarse).density * np.diff(histogram_of(coarse).edges) * 500
    assert np.median(counts[counts > 0.2 * counts.max()]) > 15


def test_curves_are_the_fitted_families(snapshots: list[Records]) -> None:
    record = snapshots[0][0]
    histogram = histogram_of(record)
    curves = {c.family.name: c for c in family_curves(record, histogram, codes_of(histogram))}
    lognormal = curves["lognormal"]
    z = (lognormal.x - record.mu) / record.sigma
    normal = np.exp(-(z**2) / 2) / (record.sigma * np.sqrt(2 * np.pi))
    np.testing.assert_allclose(lognormal.density, normal, atol=1e-3)
    # The values are Gaussian: the half-normal goes through the data, the lognormal does not.
    noise = np.abs(histogram.density - curves["half_normal"].averaged).max()
    assert noise < 0.08 < 0.1 < np.abs(histogram.density - lognormal.averaged).max()


def test_curves_come_in_the_order_of_their_gaps(snapshots: list[Records]) -> None:
    record = snapshots[2][0]
    histogram = histogram_of(record)
    curves = family_curves(record, histogram, codes_of(histogram))
    gaps = {LOGNORMAL.name: record.gap, **record.rival_gaps}
    finite = [curve.gap for curve in curves if not np.isnan(curve.gap)]
    assert finite == sorted(finite)
    assert all(curve.gap == gaps[curve.family.name] for curve in curves)
    assert {curve.family for curve in curves} == set(FAMILIES)


def test_a_record_that_knows_its_fits_is_not_fitted_again(
    snapshots: list[Records], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise AssertionError("fitted again")

    monkeypatch.setattr(figure_curves, "fit_family", fails)
    rows = [record for records in snapshots for record in records]
    for record in rows:
        histogram = histogram_of(record)
        refitted = fit_families(*binned_of([record]))
        drawn = family_curves(record, histogram, codes_of(histogram))
        assert len(drawn) == len(FAMILIES)
        for curve in drawn:
            fit = refitted[curve.family.name]
            edges = log_edges()[slice(*codes_of(histogram))][None]
            upper = log_edges()[histogram.codes[0] + 1 : histogram.codes[-1] + 1][None]
            mass = curve.family.log_mass(fit.parameters, edges, upper).exp()
            density = (mass / (upper - edges))[0].numpy()
            np.testing.assert_allclose(curve.density, density, rtol=1e-9, atol=1e-9)
        log_density(record)


def test_records_of_version_0_1_are_fitted_when_they_are_drawn(snapshots: list[Records]) -> None:
    now = list(snapshots[1])
    # Version 0.1 kept the parameters of the lognormal, and of the generalized gamma only q.
    old = [record.replace(fits={}) for record in now]
    mixed = [old[0], *now[1:]]
    for rows in (old, mixed):
        for family in FAMILIES:
            found, expected = (fitted_parameters(Records(each), family) for each in (rows, now))
            torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)
            assert found.isfinite().all()


def test_what_an_old_record_knows_is_not_fitted_again(
    snapshots: list[Records], monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted: list[tuple[str, int]] = []

    def notes(family: Family, binned: Binned, moments: LogMoments) -> Fit:
        fitted.append((family.name, len(binned.total)))
        return fit_family(family, binned, moments)

    monkeypatch.setattr(figure_curves, "fit_family", notes)
    rows = list(snapshots[1])
    mixed = Records([rows[0].replace(fits={}), *rows[1:]])
    for family in (LOGNORMAL, GENERALIZED_GAMMA):
        fitted_parameters(mixed, family)
    assert fitted == [(GENERALIZED_GAMMA.name, 1)]


def test_the_paper_view_draws_the_figures_of_the_record(snapshots: list[Records]) -> None:
    for record in snapshots[0]:
        points = size_weighted(record)
        assert points is not None
        fit = np.interp(points.x, points.at, points.fit)
        r2 = 1 - ((points.data - fit) ** 2).sum() / ((points.data - points.data.mean()) ** 2).sum()
        if record.kind == "weight":
            assert r2 == pytest.approx(record.paper_r2, abs=0.003)
        # The values are Gaussian: the null goes through them.
        null = np.interp(points.x, points.at, points.gaussian)
        assert np.sqrt(((points.data - null) ** 2).mean()) < 0.03
        area = np.trapezoid(points.gaussian, points.at)
        assert np.trapezoid(points.data, points.x) == pytest.approx(area, rel=0.03)


@pytest.mark.parametrize("known", ["iota", "weights spread over ranks"])
def test_what_is_known_by_its_counts_is_drawn_as_weights_are(
    known: str, measure: Callable[..., Records]
) -> None:
    values = torch.randn(50_000, generator=torch.Generator().manual_seed(5)).abs()
    weight, other = measure({"w": values}, {"y": values})
    if known != "iota":
        (other,) = recompute([weight.replace(paper_counts=weight.paper_counts[:0])])
    ours, theirs = size_weighted(weight), size_weighted(other)
    assert ours is not None
    assert theirs is not None
    assert theirs.end == pytest.approx(ours.end, rel=0.1)
    stretch = other.max / weight.max  # of these the maximum is known to a bin only
    theirs_here = np.interp(ours.x, theirs.x * stretch, theirs.data)
    assert np.abs(theirs_here - ours.data).max() < 0.06
    np.testing.assert_allclose(
        np.interp(ours.at, theirs.at * stretch, theirs.fit), ours.fit, atol=0.02
    )


def test_a_hopeless_family_does_not_set_the_scale(measure: Callable[..., Records]) -> None:
    values = torch.exp(torch.randn(20_000, generator=torch.Generator().manual_seed(2)))
    (record,) = measure({"w": values})
    assert record.rival_gaps["uniform"] > 1
    upper = log_density(record).axes[0]
    assert upper.get_ylim()[1] < 0.6


def test_every_family_has_its_own_line() -> None:
    styles = [family_style(family) for family in FAMILIES]
    for part in ("color", "linestyle"):
        assert len({style[part] for style in styles}) == len(FAMILIES)


def test_lines_are_the_families_own(snapshots: list[Records]) -> None:
    figure = log_density(snapshots[0][0])
    lines = {line.get_color(): line for line in figure.axes[0].lines}
    named = [text.get_text().rsplit("  ", 1)[0] for text in figure.legends[0].get_texts()]
    for family in FAMILIES:
        dashes = mpl.lines.Line2D([], [], linestyle=family.dashes, linewidth=1)
        assert lines[family.color].get_linestyle() == dashes.get_linestyle()
        assert family.label in named


# Words -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "variable", "values", "axis"),
    [
        ("weight", "w", "weights", "ln w"),
        ("iota", "y", "activations", "ln y"),
        ("iota", "z*y", "activations", "ln z·y"),
        ("gradient", "g", "gradients", "ln g"),
        ("update", "Δw", "updates", "ln Δw"),
        ("my $kind$", "$v$", r"my \$kind\$s", r"ln \$v\$"),
    ],
)
@pytest.mark.sampled(5)
def test_kinds_and_variables_are_called_by_their_names(
    kind: str, variable: str, values: str, axis: str, snapshots: list[Records]
) -> None:
    record = snapshots[1][0].replace(kind=kind, variable=variable)
    density, utility = log_density(record), utility_over_magnitude(record)
    assert [axes.get_ylabel() for axes in density.axes] == [f"density of {axis}", "data − fit"]
    assert density.axes[1].get_xlabel() == utility.axes[0].get_xlabel() == axis
    for figure in (density, utility, paper_view(record)):
        drawn_whole(figure)
        assert figure.axes[0].get_title(loc="left").splitlines()[1].endswith(f" {values}, step 10")
    assert gap_over_steps([record]).axes[0].get_ylabel() == f"gap of {values} (nats)"


def test_a_figure_is_rendered_as_it_looks() -> None:
    pixels = rendered(Figure(figsize=(2, 1), dpi=50, facecolor="#ff0000"))
    assert pixels.shape == (50, 100, 3)
    assert pixels.dtype == np.uint8
    assert (pixels == [255, 0, 0]).all()


# History -----------------------------------------------------------------------------------------


def rows(kind: str, streams: int, gaps: list[float]) -> Records:
    return Records(
        Record(kind=kind, name=f"layer.{i}", step=10 * step, gap=gap)  # type: ignore[arg-type]
        for step, gap in enumerate(gaps)
        for i in range(streams)
    )


def paths(figure: Figure, row: int = 0) -> list[list[list[float]]]:
    (lines,) = (a for a in figure.axes[row].collections if isinstance(a, LineCollection))
    return [np.asarray(segment).tolist() for segment in lines.get_segments()]


@LOOKS
@pytest.mark.sampled(2)
def test_gap_over_steps_draws_every_stream(look: Look) -> None:
    history = rows("weight", 2, [0.4, 0.2, 0.1]) + rows("iota", 1, [0.16, 0.01, 0.004])
    figure = gap_over_steps(history, look=look)
    drawn_whole(figure)
    assert len(figure.axes) == 2
    assert paths(figure) == [[[0, 0.4], [10, 0.2], [20, 0.1]]] * 2
    assert paths(figure, 1) == [[[0, 0.16], [10, 0.01], [20, 0.004]]]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "weight  layer.0",
        "weight  layer.1",
        "iota  layer.0",
    ]


def test_the_bands_and_all_gaps_are_in_sight() -> None:
    figure = gap_over_steps(rows("weight", 1, [0.9, 0.05]))
    low, high = figure.axes[0].get_ylim()
    assert low < 0.003
    assert high > 0.9
    limits = [line.get_ydata()[0] for line in figure.axes[0].lines]  # type: ignore[index]
    assert limits == [0.003, 0.02, 0.08]
    said = texts(figure)
    assert {"lognormal-like", "near", "far", "not\nlognormal"} <= set(said)


def test_gaps_of_zero_and_below_are_drawn_at_the_floor() -> None:
    figure = gap_over_steps(rows("weight", 1, [0.4, 0.0, -1e-5]))
    assert [y for _, y in paths(figure)[0]] == [0.4, 1e-4, 1e-4]
    assert figure.axes[0].get_ylim()[0] < 1e-4


def test_a_missing_gap_breaks_the_line_only() -> None:
    figure = gap_over_steps(rows("weight", 1, [0.4, NAN, 0.1]))
    drawn_whole(figure)
    assert len(paths(figure)) == 1
    drawn_whole(gap_over_steps(rows("weight", 8, [NAN, NAN])))
    drawn_whole(gap_over_steps(rows("weight", 8, [NAN, 0.3])))


def test_of_many_streams_three_and_the_median_are_named() -> None:
    history = rows("weight", 200, [0.4, 0.2])
    figure = gap_over_steps(history)
    drawn_whole(figure)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "weight  layer.0",
        "weight  layer.100",
        "weight  layer.199",
        "weight  median of 200",
    ]


def test_no_history_is_said() -> None:
    figure = gap_over_steps(Records())
    drawn_whole(figure)
    assert "no records" in texts(figure)
