"""Draw docs/images/instrument_*.png: the curves of every instrument in one run of the study.

python -m experiments.train experiment=instruments model=cnn seed=1
python docs/instrument_pictures.py "multirun/instruments/model=cnn,seed=1"
"""

import sys
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image

from jaynes_callbacks import figures
from jaynes_callbacks.records.frame import Frame
from jaynes_callbacks.records.parts import read_parts
from jaynes_callbacks.sinks.dataset import instrument_folders

IMAGES = Path(__file__).parent / "images"
WIDTH = 900


def keep(figure: Figure, name: str) -> None:
    """Save a figure with few colours, at the width of a page."""
    image = Image.fromarray(figures.rendered(figure)).convert("RGB")
    image = image.resize(
        (WIDTH, round(image.height * WIDTH / image.width)), Image.Resampling.LANCZOS
    )
    target = IMAGES / f"instrument_{name}.png"
    image.quantize(64).save(target, optimize=True)
    print(f"{target}: {target.stat().st_size // 1024} KiB")  # noqa: T201


def main(run: Path) -> None:
    """Draw the magnitudes' gaps, the other instruments' curves and the map of coalitions."""
    dataset = run / "jaynes"
    keep(figures.gap_over_steps(read_parts(dataset, counts=False)), "magnitudes")
    for name, folder in instrument_folders(dataset).items():
        keep(figures.columns_over_steps(read_parts(folder, counts=False)), name)
        if name == "coalitions":
            keep(figures.coalition_map(_last(read_parts(folder))), "coalitions_map")


def _last(frame: Frame) -> Frame:  # type: ignore[type-arg]
    """Return the rows of the last step."""
    return frame.take((frame["step"] == frame["step"].max()).nonzero()[0])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
