import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig

from experiments.errors import ConfigError
from experiments.result import FILE, Result, finished, flat, identity, newest_dataset, versions

Compose = Callable[..., DictConfig]


def result(cfg: DictConfig, **changes: object) -> Result:
    values = {"metrics": {"val/accuracy": 0.5}, "dataset": "jaynes", "seconds": 1.5, "choices": {}}
    return Result(config=identity(cfg), versions=versions(), **{**values, **changes})  # type: ignore[arg-type]


def test_what_is_written_is_read_again(compose: Compose, tmp_path: Path) -> None:
    written = result(compose(), choices={"init": "paper"})
    written.write(tmp_path)
    assert Result.read(tmp_path) == written
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


def test_a_metric_that_is_not_finite_is_still_json(compose: Compose, tmp_path: Path) -> None:
    result(compose(), metrics={"loss": math.nan, "gap": math.inf}).write(tmp_path)
    assert json.loads((tmp_path / FILE).read_text(), parse_constant=pytest.fail)["metrics"] == {
        "loss": None,
        "gap": None,
    }
    assert math.isnan(Result.read(tmp_path).metrics["loss"])


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"metrics": {}, "more": 1}'])
def test_another_file_of_that_name_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / FILE).write_text(content)
    with pytest.raises(ValueError, match=r"result\.json is no result of a run \(.*remove it"):
        Result.read(tmp_path)


def test_a_run_is_finished_where_its_result_is(compose: Compose, tmp_path: Path) -> None:
    cfg = compose("seed=3", "data=mnist")
    assert finished(cfg, tmp_path) is None
    written = result(cfg)
    written.write(tmp_path)
    assert finished(cfg, tmp_path) == written


def test_places_do_not_make_another_run(compose: Compose, tmp_path: Path) -> None:
    written = result(compose("data=mnist"))
    written.write(tmp_path)
    elsewhere = compose(
        "data=mnist", f"data.path={tmp_path}", "optimized_metric=null", output=tmp_path / "other"
    )
    assert finished(elsewhere, tmp_path) == written


def test_another_configuration_is_not_taken_for_finished(compose: Compose, tmp_path: Path) -> None:
    result(compose()).write(tmp_path)
    with pytest.raises(ConfigError, match=r"another configuration.* data\.batch_size, seed; rem"):
        finished(compose("seed=2", "data.batch_size=7"), tmp_path)


def test_a_key_that_came_later_counts(compose: Compose, tmp_path: Path) -> None:
    result(compose()).write(tmp_path)
    with pytest.raises(ConfigError, match=r"differs in trainer\.limit_train_batches;"):
        finished(compose("+trainer.limit_train_batches=3"), tmp_path)


def test_flat_leaves() -> None:
    assert flat({"a": {"b": {"c": 1}, "d": [1, {"e": 2}]}, "f": None, "g": {}}) == {
        "a.b.c": 1,
        "a.d": [1, {"e": 2}],
        "f": None,
    }


def test_the_newest_dataset_is_the_runs_own(tmp_path: Path) -> None:
    import os

    assert newest_dataset(tmp_path) is None
    for age, name in enumerate(("jaynes-1", "jaynes", "jaynes-2")):
        (tmp_path / name).mkdir()
        part = tmp_path / name / "part-000000000000.parquet"
        part.touch()
        os.utime(part, ns=(10**18 - age, 10**18 - age))
    (tmp_path / "jaynes-figures").mkdir()
    assert newest_dataset(tmp_path) == "jaynes-1"


def test_versions_name_what_computes() -> None:
    import torch

    found = versions()
    assert found["torch"] == torch.__version__
    assert all(found.values())
