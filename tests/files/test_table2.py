"""The networks of the paper's Table II: their rows, and what stands for each in files."""

import math
import zipfile
from pathlib import Path

import numpy as np
import pytest

from jaynes_callbacks.files import CheckpointError, Limits
from jaynes_callbacks.files.roles import Spread
from jaynes_callbacks.files.table2 import NETWORKS, Network, network_files, rows_of
from jaynes_callbacks.instruments.record import Record
from jaynes_callbacks.statistics.published import TABLE_TWO

BY_KEY = {network.key: network for network in NETWORKS}
BLAZEPOSE, VGG16 = BY_KEY["blazepose"], BY_KEY["vgg16"]


def weight(name: str, value: float, shape: tuple[int, ...] = (192, 200)) -> Record:
    return Record(
        name=name,
        shape=shape,
        gap=value,
        core_gap=value + 1,
        core_gap_gaussian=value + 2,
        scale_share=value / 10,
        paper_r2=value,
        paper_mu=-value,
        paper_sigma=2 * value,
    )


def test_networks_are_those_of_the_paper_in_its_order() -> None:
    assert [network.name for network in NETWORKS] == list(TABLE_TWO)


def test_a_network_that_is_not_measured_has_the_paper_s_row_alone() -> None:
    ((name, row),) = rows_of(VGG16, {})
    assert (name, row.eligible, row.r2, row.mu, row.sigma) == (
        "paper",
        16,
        Spread(0.97, 0.01),
        Spread(-2.36, 0.41),
        Spread(0.68, 0.05),
    )
    assert row.gap is row.core_gap is row.scale_share is None


def test_rows_of_parts_and_roles_and_of_gaussian_weights() -> None:
    rows = dict(
        rows_of(
            VGG16,
            {
                "first": [weight("a.conv", 0.1), weight("b.conv", 0.3), weight("c", 9.0, (8, 8))],
                "last": [weight("c.mlp", 0.8, (400, 1000))],
            },
        )
    )
    assert list(rows) == ["paper", "here", "first", "last", "mlp", "convolution", "Gaussian"]
    here, gaussian = rows["here"], rows["Gaussian"]
    assert (here.eligible, here.measured) == (3, 4)
    assert here.r2 == pytest.approx((0.4, np.std([0.1, 0.3, 0.8], ddof=1)))
    assert (here.gap, here.core_gap, here.scale_share) == pytest.approx((0.3, 1.3, 0.03))
    assert rows["first"].gap == pytest.approx(0.2)
    assert rows["mlp"].gap == rows["last"].gap == pytest.approx(0.8)
    assert (gaussian.eligible, gaussian.measured) == (3, 3)
    assert gaussian.gap == pytest.approx(0.163, abs=5e-4)
    assert gaussian.core_gap == pytest.approx(2.3)
    assert gaussian.mu is not None
    # Of 400,000 values the largest is larger than of 38,400.
    assert gaussian.mu.mean == pytest.approx(-1.27, abs=0.01)
    assert gaussian.mu.deviation == pytest.approx(0.063, abs=0.01)


def test_weights_of_which_none_is_large_enough() -> None:
    rows = dict(rows_of(VGG16, {"all": [weight("conv", 0.1, (9, 9))]}))
    assert list(rows) == ["paper", "here", "Gaussian"]
    assert rows["here"].r2 is rows["Gaussian"].r2 is None


def test_members_of_a_wheel_are_there_while_the_block_runs(tmp_path: Path) -> None:
    wheel = tmp_path / "net-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in BLAZEPOSE.members:
            archive.writestr(f"net/modules/{name}", name.encode() * 9)
        archive.writestr("net/other.tflite", b"other")
    with network_files(BLAZEPOSE, str(wheel), Limits()) as parts:
        files = [Path(str(file)) for file in parts.values()]
        assert list(parts) == ["pose_detection", "pose_landmark_full"]
        assert [file.read_bytes() for file in files] == [
            name.encode() * 9 for name in BLAZEPOSE.members
        ]
    assert not any(file.exists() for file in files)


@pytest.mark.parametrize(
    ("content", "size", "said"),
    [
        ({"other.tflite": b""}, 1, r"holds no pose_detection.tflite, of which BlazePose consists"),
        ({name: bytes(1 << 20) for name in BLAZEPOSE.members}, 1000, "--max-expanded"),
        ({}, 0, "cannot be read .*copy or download"),
    ],
)
def test_wheels_that_are_refused(
    content: dict[str, bytes], size: int, said: str, tmp_path: Path
) -> None:
    wheel = tmp_path / "net.whl"
    if size:
        with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, values in content.items():
                archive.writestr(name, values)
    else:
        wheel.write_bytes(b"no archive")
    with (
        pytest.raises(CheckpointError, match=said),
        network_files(BLAZEPOSE, str(wheel), Limits(size or 1)),
    ):
        pass


@pytest.mark.parametrize(
    ("network", "files", "said"),
    [
        (VGG16, (), "holds no checkpoint"),
        (VGG16, ("a.pt", "b.pt"), r"holds 2 checkpoints \(a.pt, b.pt\); name one"),
        (BLAZEPOSE, ("pose_detection.tflite", "a.tflite"), "does not hold pose_detection.tflite"),
    ],
)
def test_a_directory_holds_one_network(
    network: Network, files: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    for name in files:
        (tmp_path / name).write_bytes(b"")
    with (
        pytest.raises(CheckpointError, match=said),
        network_files(network, str(tmp_path), Limits()),
    ):
        pass


def test_a_directory_of_the_members(tmp_path: Path) -> None:
    for name in (*BLAZEPOSE.members, "face.tflite"):
        (tmp_path / name).write_bytes(b"")
    with network_files(BLAZEPOSE, str(tmp_path), Limits()) as parts:
        assert list(parts) == ["pose_detection", "pose_landmark_full"]


def test_gaussian_rows_are_of_the_same_numbers_of_values() -> None:
    one = rows_of(VGG16, {"all": [weight("conv", 0.1, (64, 64, 3, 3))]})
    summary = dict(one)["Gaussian"]
    assert summary.sigma is not None
    assert summary.sigma.deviation is None
    assert math.isclose(summary.sigma.mean, 0.631, abs_tol=0.001)
