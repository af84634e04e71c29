"""Figures that the paper published: its Table II (arXiv 2405.10955)."""

from collections.abc import Mapping
from typing import NamedTuple

__all__ = ["TABLE_TWO", "PublishedRow"]


class PublishedRow(NamedTuple):
    """The row of one network, by the paper's protocol; mean and standard deviation over layers.

    Attributes:
        layers: number of layers that the paper fitted.
        r2: R² of the lognormal curve.
        mu: μ'.
        sigma: σ'.
    """

    layers: int
    r2: tuple[float, float]
    mu: tuple[float, float]
    sigma: tuple[float, float]


#: By the paper's names, in its order.  "BERT-Small" has 109 million parameters: it is BERT base.
TABLE_TWO: Mapping[str, PublishedRow] = {
    "BlazePose": PublishedRow(39, (0.93, 0.02), (-1.74, 0.52), (1.49, 0.60)),
    "Xception": PublishedRow(32, (0.98, 0.01), (-2.87, 0.18), (0.70, 0.05)),
    "VGG16": PublishedRow(16, (0.97, 0.01), (-2.36, 0.41), (0.68, 0.05)),
    "BERT-Small": PublishedRow(75, (0.96, 0.01), (-2.47, 0.95), (0.65, 0.02)),
    "BERT-Large": PublishedRow(144, (0.96, 0.01), (-2.37, 0.98), (0.64, 0.01)),
    "Llama-2-7B": PublishedRow(226, (0.97, 0.01), (-2.96, 0.54), (0.66, 0.05)),
    "Llama-2-13B": PublishedRow(282, (0.94, 0.03), (-3.02, 0.53), (0.67, 0.06)),
}
