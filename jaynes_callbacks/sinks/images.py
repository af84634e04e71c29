"""Images into loggers, by what a logger can do and not by what it is called."""

from typing import Any

import numpy as np

__all__ = ["Pixels", "send_image", "shows_images"]

#: Height × width × RGB.
Pixels = np.ndarray[Any, np.dtype[np.uint8]]


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
