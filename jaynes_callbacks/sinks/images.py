"""Figures as images: into files, and into loggers by what they can do, not by what they are."""

import re
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imsave

from jaynes_callbacks.records.atomic import put

__all__ = ["Pixels", "file_name", "rendered", "save", "send_image", "shows_images"]

#: Height × width × RGB.
Pixels = np.ndarray[Any, np.dtype[np.uint8]]

_LONGEST_FILE_NAME = 80


def rendered(figure: Figure) -> Pixels:
    """The figure's pixels, drawn without a window and without pyplot."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    rgba = np.asarray(canvas.buffer_rgba())  # type: ignore[no-untyped-call]
    return np.ascontiguousarray(rgba[..., :3])


def save(pixels: Pixels, path: Path) -> None:
    """Write a PNG file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    put(path, lambda temporary: imsave(temporary, pixels, format="png"))


def file_name(tag: str) -> str:
    """A file name of harmless characters, no two alike on any file system.

    >>> file_name("log_density_weight/net.0.weight")
    'log_density_weight-net.0.weight.png'
    >>> file_name("log_density_weight/../../Net")
    'log_density_weight-..-..-Net-7ab149.png'
    """
    plain = tag.replace("/", "-", 1)
    safe = re.sub(r"[^A-Za-z0-9._-]", "-", plain)[:_LONGEST_FILE_NAME]
    if safe == plain and plain == plain.lower():
        return f"{safe}.png"
    return f"{safe}-{sha256(tag.encode(errors='surrogatepass')).hexdigest()[:6]}.png"


def shows_images(logger: Any) -> bool:
    """Whether a logger has ``log_image`` (as W&B's) or its writer ``add_image`` (TensorBoard's)."""
    return hasattr(logger, "log_image") or hasattr(_writer(logger), "add_image")


def send_image(logger: Any, tag: str, pixels: Pixels, step: int) -> None:
    """Show one image under a tag at a step."""
    if hasattr(logger, "log_image"):
        # Lightning's loggers put the step beside the image; W&B's own counter is left alone.
        logger.log_image(key=tag, images=[pixels], step=step)
    else:
        _writer(logger).add_image(tag, pixels, global_step=step, dataformats="HWC")


def _writer(logger: Any) -> Any:
    return getattr(logger, "experiment", None)
