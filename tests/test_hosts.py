"""The scripts of docs/hosts.md, run as they stand where their library is installed."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.processes import python

HOME = Path(__file__).parents[1]
PAGE = (HOME / "docs/hosts.md").read_text()
#: What each section of the page needs, beside torch.
NEEDS = {
    "Accelerate": ["accelerate"],
    "PyTorch Ignite": ["ignite"],
    "fastai": ["fastai"],
    "ultralytics": ["ultralytics", "torchvision"],
    "Keras 3 on torch": ["keras"],
}
#: Steps at which the script of each section records: 10 batches of two epochs, or fewer.
STEPS = {
    "Accelerate": [0, 5, 10],
    "PyTorch Ignite": [0, 5, 10, 15, 20],
    "fastai": [0, 5, 10, 15, 20],
    "ultralytics": [0, 1, 2, 3],
    "Keras 3 on torch": [0, 1, 2, 3, 4, 5, 6, 8, 10, 13, 16, 20],
}
KINDS = {"weight", "iota"}
#: Needs GPUs.
NOT_RUN = {"torchtitan"}


def scripts() -> dict[str, list[str]]:
    """The Python blocks of each section of the page."""
    _, *sections = re.split(r"^## (.*)\n", PAGE, flags=re.MULTILINE)
    return {
        heading: re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
        for heading, text in zip(sections[::2], sections[1::2], strict=True)
    }


def run(script: str, folder: Path) -> str:
    """Run a script as a user does, in a folder of its own, without a network."""
    (folder / "script.py").write_text(script)
    environment = {**os.environ, "HOME": str(folder), "PYTHONPATH": str(HOME)}
    done: subprocess.CompletedProcess[str]
    if "ultralytics" in script:
        # It writes elsewhere where it finds pytest: in its environment, or among its modules.
        del environment["PYTEST_CURRENT_TEST"]
        environment |= {"YOLO_OFFLINE": "true", "YOLO_CONFIG_DIR": str(folder)}
        command = [sys.executable, "script.py"]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    else:
        done = python("script.py", cwd=folder, env=environment, painted=False, fitted=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Exception ignored" not in done.stderr
    return done.stdout


def images(folder: Path) -> None:
    """Write a few images of two classes, for ultralytics."""
    import numpy as np
    from PIL import Image

    source = np.random.default_rng(0)
    for part in ("train/a", "train/b", "val/a", "val/b"):
        place = folder / "images" / part
        place.mkdir(parents=True)
        for number in range(32):
            pixels = source.integers(255, size=(32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(place / f"{number}.png")


def test_every_section_opens_with_a_short_script() -> None:
    found = scripts()
    assert found.keys() == NEEDS.keys() | NOT_RUN
    for heading, (first, *_) in found.items():
        assert len(first.splitlines()) < 25, heading
        assert f"| {heading} |" in PAGE
        compile(first, heading, "exec")


@pytest.mark.parametrize("host", NEEDS)
def test_the_script_runs(host: str, tmp_path: Path) -> None:
    for name in NEEDS[host]:
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed")
    script, *others = scripts()[host]
    for other in others:
        (tmp_path / "equilibrium.py").write_text(other)
    if host == "ultralytics":
        images(tmp_path)
    printed = run(script, tmp_path)
    assert "gap" in printed
    (dataset,) = tmp_path.glob("runs/**/jaynes")
    rows: Any = pd.read_parquet(dataset)
    assert sorted(rows.step.unique()) == STEPS[host]
    assert set(rows.kind) == KINDS


#: Trains with evaluation between, with the callback and without it, and compares.
TRAINING = """
import os
os.environ["KERAS_BACKEND"] = "torch"
import sys
import keras, torch
from equilibrium import Equilibrium

keras.utils.set_random_seed(0)
inputs, labels = torch.randn(320, 16), torch.randint(4, (320,))
hidden = [keras.layers.Dense(64, activation="relu"), keras.layers.Dropout(0.2)]
model = keras.Sequential([keras.Input((16,)), *hidden, keras.layers.Dense(4)])
callback = Equilibrium()
losses = []
for watched in (True, False):
    keras.utils.set_random_seed(1)
    model = keras.models.clone_model(model)
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    fitted = model.fit(inputs, labels, epochs=2, verbose=0, validation_data=(inputs, labels),
                       callbacks=[callback] if watched else [])
    losses.append([fitted.history, [each.numpy().tolist() for each in model.weights]])
assert losses[0] == losses[1]
records = callback.recorder.records_of("magnitudes")
counted = {row.step: row.n + row.zeros for row in records if row.kind == "iota"}
# Steps 11 to 13 and 17 to 20, of 32 samples and 64 units each: nothing of the evaluation after 10.
assert (counted[13], counted[20]) == (3 * 32 * 64, 4 * 32 * 64), counted
"""


def test_keras_trains_alike_and_leaves_evaluation_out(tmp_path: Path) -> None:
    if importlib.util.find_spec("keras") is None:
        pytest.skip("keras is not installed")
    _, callback = scripts()["Keras 3 on torch"]
    (tmp_path / "equilibrium.py").write_text(callback)
    run(TRAINING, tmp_path)
