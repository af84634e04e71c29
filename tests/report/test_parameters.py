import os
from pathlib import Path

import pytest

from jaynes_callbacks.report.parameters import choices_of, parameters_of, varying


def test_lightning_and_hydra_leave_them_near_the_dataset(tmp_path: Path) -> None:
    dataset = tmp_path / "sweep" / "0" / "jaynes"
    dataset.mkdir(parents=True)
    assert parameters_of(dataset, {"hyperparameters": {"lr": 0.1}}) == {"lr": 0.1}
    hydra = tmp_path / "sweep" / "0" / ".hydra"
    hydra.mkdir()
    (hydra / "config.yaml").write_text("model: {net: {width: 64}}\nseed: 3\n")
    assert parameters_of(dataset, {"hyperparameters": {"lr": 0.1}}) == {
        "lr": 0.1,
        "model.net.width": 64,
        "seed": 3,
    }
    (dataset.parent / "hparams.yaml").write_text("lr: 0.2\n")
    assert parameters_of(dataset, {}) == {"lr": 0.2}


@pytest.mark.parametrize("text", ["[1, 2]", "a: !!python/name:os.system x", "a: [", "\x00"])
def test_what_cannot_be_read_says_nothing(text: str, tmp_path: Path) -> None:
    (tmp_path / "hparams.yaml").write_text(text)
    assert parameters_of(tmp_path / "jaynes", {}) == {}


def test_places_on_the_disk_do_not_vary() -> None:
    runs = [
        {"lr": 0.1, "paths.output": "a", "same": 1, "trainer.dirpath": "x"},
        {"lr": 0.2, "paths.output": "b", "same": 1, "only": 2, "trainer.dirpath": "y"},
    ]
    assert varying(runs) == ["lr", "only"]


def test_what_the_command_line_named(tmp_path: Path) -> None:
    assert choices_of(tmp_path / "jaynes") == {}
    (tmp_path / ".hydra").mkdir()
    told = "- init=laplace\n- +model.net.width=64\n- ~logger\n- seed=3\n- a=b=c\n"
    (tmp_path / ".hydra" / "overrides.yaml").write_text(told)
    assert choices_of(tmp_path / "jaynes") == {
        "init": "laplace",
        "model.net.width": "64",
        "logger": "",
        "seed": "3",
        "a": "b=c",
    }


_LAUGHS = "a0: &a0 [ha]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12)
)
_MERGES = "a0: &a0 {x: 1}\n" + "".join(
    f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 10)}]}}\n" for n in range(1, 12)
)


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "text",
    [_LAUGHS, _MERGES, "&a [*a]", "a: &a {b: *a}", "[" * 50_000, "a: b\n" * 100_000],
    ids=["laughs", "merges", "circle", "circle of keys", "deep", "long"],
)
def test_a_small_file_cannot_stand_for_much(text: str, tmp_path: Path) -> None:
    (tmp_path / "hparams.yaml").write_text(text)
    assert parameters_of(tmp_path / "jaynes", {}) == {}


def test_aliases_are_values(tmp_path: Path) -> None:
    (tmp_path / "hparams.yaml").write_text("a: &a {lr: 0.1}\nb: *a\nc: {<<: *a, n: 3}\n")
    found = parameters_of(tmp_path / "jaynes", {})
    assert found == {"a.lr": 0.1, "b.lr": 0.1, "c.lr": 0.1, "c.n": 3}


@pytest.mark.timeout(20)
def test_a_pipe_says_nothing(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "hparams.yaml")
    assert parameters_of(tmp_path / "jaynes", {}) == {}
