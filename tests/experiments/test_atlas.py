"""The atlas of networks in wheels: fetched, checked, measured, skipped, and shown in tables."""

import hashlib
import warnings
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from experiments import atlas
from experiments.atlas_page import gaussian_times_scales

HOME = Path(__file__).parents[2]
ATLAS = HOME / "experiments" / "atlas"
MEMBER = "tiny/net.npz"
Place = Callable[..., Path]


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def network_file() -> bytes:
    source = np.random.default_rng(7)
    file = BytesIO()
    arrays = {
        "fc": source.normal(size=(80, 64)),
        "attn": np.exp(1.5 * source.normal(size=(80, 64))),
        "basis": np.ones((64, 64)),
        "small": source.normal(size=(10, 10)),
    }
    np.savez(file, **arrays)
    return file.getvalue()


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """Put a package of one network where pip looks for it; return a list that names it."""
    folder = tmp_path / "index"
    folder.mkdir()
    content = network_file()
    wheel = folder / "tiny_net-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(MEMBER, content)
        archive.writestr("tiny_net-1.0.dist-info/METADATA", "Name: tiny-net\nVersion: 1.0\n")
        archive.writestr("tiny_net-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.chdir(tmp_path)

    def listed(of_wheel: str = digest(wheel.read_bytes()), of_file: str = digest(content)) -> Path:
        network = {"name": "Tiny", "kind": "test", "about": "two layers", "member": MEMBER,
                   "sha256": of_file, "exclude": ["basis"]}  # fmt: skip
        entry = {"package": "tiny-net==1.0", "sha256": of_wheel, "licence": "MIT",
                 "networks": [network]}  # fmt: skip
        path = tmp_path / "list.yaml"
        path.write_text(yaml.safe_dump([entry]))
        return path

    return listed


def run(listed: Path, *options: str) -> int:
    return atlas.main(["--list", str(listed), "--output", "out", "--cache", "cache", *options])


def test_networks_in_wheels_become_tables_once(
    place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(place()) == 0
    assert "Tiny: 3 weights" in capsys.readouterr().out
    weights = pd.read_csv("out/weights.csv").set_index("name")
    assert set(weights.index) == {"fc", "attn", "small"}
    assert weights["best_family_2"].to_dict() | {"small": ""} == {
        "fc": "half_normal", "attn": "lognormal", "small": "",
    }  # fmt: skip
    assert weights.loc["attn", ["role", "shape"]].tolist() == ["attention", "80x64"]
    law = dict(each.split("=") for each in str(weights["law_parameters"]["attn"]).split("; "))
    assert float(law["sigma"]) == pytest.approx(1.5, abs=0.05)
    assert weights["law_gap"]["attn"] == weights["gap"]["attn"]
    assert weights["law_gap"]["fc"] == weights["gap_best_rival"]["fc"]
    (network,) = pd.read_csv("out/networks.csv").to_dict("records")
    assert (network["weights"], network["large"], network["near_lognormal"]) == (3, 2, 1)
    assert network["gap"] == pytest.approx(weights.loc[["fc", "attn"], "gap"].median(), rel=1e-4)
    assert "| Tiny | test | 3 | 2 |" in Path("out/tables.md").read_text()
    # The second time nothing is fetched.
    before = Path("out/weights.csv").read_bytes()
    monkeypatch.setenv("PIP_FIND_LINKS", "nowhere")
    assert run(place(), "--no-pictures") == 0
    assert "Tiny" not in capsys.readouterr().out
    assert Path("out/weights.csv").read_bytes() == before
    assert not list(Path("cache").glob("*/*.whl"))


@pytest.mark.parametrize("which", ["of_wheel", "of_file"])
def test_another_file_than_the_one_named_is_refused(
    place: Place, which: str, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = digest(b"another")
    assert run(place(**{which: wrong})) == 1
    said = capsys.readouterr().err
    assert f"is refused: expected sha256 {wrong}, got " in said
    assert not Path("out").exists()
    assert not list(Path("cache/rows").iterdir())


def test_a_file_of_which_a_part_cannot_be_read_is_named(
    place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def partly(*_: object, **__: object) -> None:
        warnings.warn("fc cannot be read", stacklevel=1)

    monkeypatch.setattr("jaynes_callbacks.measure_checkpoint", partly)
    assert run(place()) == 1
    assert "experiments.atlas: Tiny: fc cannot be read" in capsys.readouterr().err
    assert not Path("out").exists()


def test_a_wheel_that_cannot_be_had_is_named(
    place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", str(Path("nowhere").absolute()))
    assert run(place()) == 1
    assert "pip cannot download tiny-net==1.0: ERROR" in capsys.readouterr().err


def test_the_curve_of_rescaled_gaussians() -> None:
    # Gaps of samples of 4e8 values, beside the closed form at 0.
    known = {0.0: 0.1630, 0.5: 0.0855, 0.75: 0.0496, 1.0: 0.0277, 1.25: 0.0153, 2.0: 0.0028}
    for sd, gap in known.items():
        assert gaussian_times_scales(sd) == pytest.approx(gap, abs=1e-4)


def test_the_page_says_what_the_tables_hold() -> None:
    weights = pd.read_csv(ATLAS / "weights.csv")
    large = weights[weights["n"] >= atlas.FEWEST]
    near = large[large["gap"] < 0.02]
    lognormal = near[near["best_family_2"] == "lognormal"]
    core_near = large[(large["core_gap"] < 0.02) & (large["taken_off"] == "rows columns")]
    sure = near[near["gap"] + 2 * near["gap_se"] < 0.02]
    small = weights[weights["n"] < atlas.FEWEST]
    best = large["best_family_2"].value_counts()
    known = large[large["taken_off"] == "rows columns"]
    below = known[known["gap"] < 0.05]
    scales = (known["sd_rows"] ** 2 + known["sd_columns"] ** 2) ** 0.5
    expected = [gaussian_times_scales(each) for each in scales[scales < 1.5]]
    beside = known["gap"][scales < 1.5] - expected
    eligible = large[large["n"] >= 36_864]
    by_scale = known[known["scale_share"] > 0.5]
    t_cores = (large["core_best_family"] == "half_student_t").sum()
    other = large[(large["best_family_2"] == "lognormal") & (large["gap"] >= 0.02)]["gap"]
    assert set(lognormal["network"]) == {"BlazePose"}
    assert set(core_near["network"]) == {"IM2Deep"}
    assert set(by_scale[by_scale["gap"] < 0.02]["network"]) == {"BlazePose"}
    assert set(near["core_best_family"]) == {"half_student_t"}
    assert len(core_near) == 2
    page = " ".join((ATLAS / "README.md").read_text().split())
    for claim in (
        f"Of {len(large)} weights of at least 4096 values, {len(near)} have a gap below 0.02",
        f"For {len(lognormal)} of these {len(near)}",
        f"gaps of {near['core_gap'].min():.3f} to {near['core_gap'].max():.3f}, and",
        f"all {len(weights)} weights of two or more dimensions",
        f"{weights['n'].sum() / 1e6:.0f} million values in {weights['network'].nunique()} networks "
        f"of {weights['kind'].nunique()} kinds",
        f"Of the {len(below)} weights with a gap below 0.05 whose rows and columns both have "
        f"scales, {(below['core_gap'] > below['gap']).sum()} have",
        f"these {len(below)} is {below['core_gap'].median():.3f}, half of the "
        f"{below['core_gap_gaussian'].median():.3f} of Gaussian",
        f"For {t_cores} of the {len(large)} cores the best law is Student t",
        f"describes {(large['core_best_family'] == 'lognormal').sum()} cores best",
        f"For the {len(expected)} weights with scales",
        f"is {beside.abs().median():.3f} nats, the median difference {beside.median():.3f}",
        f"of {len(by_scale)} weights of which more than half of the variance is scales, "
        f"{(by_scale['gap'] < 0.02).sum()} have",
        f"Student t for {best['half_student_t']}, generalized normal for "
        f"{best['generalized_normal']}",
        f"lognormal for {best['lognormal']}, uniform for {best['uniform']}",
        f"{len(eligible)} weights of at least 36,864 values, which the paper would not leave out, "
        f"{(eligible['paper_r2'] >= 0.93).sum()} have",
        f"would pass {(eligible['paper_r2_gaussian'] >= 0.93).sum()} times",
        f"{len(other)} of the {best['lognormal']} weights with it have gaps of {other.min():.3f} "
        f"to {other.max():.3f}",
        f"{len(small)} of fewer than 4096 values",
        f"{(small['gap'] < 0.02).sum()} of them have a gap below",
        f"{len(sure)} of the {len(near)} weights is below it",
    ):
        assert claim in page, claim


def test_the_list_and_the_tables_are_of_the_same_networks() -> None:
    wheels = atlas.read_list(HOME / "experiments" / "atlas.yaml")
    listed = {network.name: wheel.package for wheel in wheels for network in wheel.networks}
    networks = pd.read_csv(ATLAS / "networks.csv").set_index("network")
    assert networks["package"].to_dict() == listed
    page = (ATLAS / "README.md").read_text()
    roles = (ATLAS / "tables.md").read_text().partition("## Roles")[2].splitlines()[4:11]
    for line in roles:
        assert line.rsplit("|", 3)[0].strip() in page, "the page's table of roles is another"
    for picture in ATLAS.glob("*.png"):
        assert picture.name in page
        assert picture.stat().st_size < 150_000
