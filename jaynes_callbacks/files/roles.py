"""Group weights by their role in the network, and summarise each group as the paper's Table II."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, median, stdev
from typing import Literal, NamedTuple

from jaynes_callbacks.instruments.record import Record
from jaynes_callbacks.statistics import FEWEST_WEIGHTS

__all__ = [
    "ROLES",
    "Role",
    "RoleSummary",
    "Spread",
    "eligible_weights",
    "role",
    "summarise",
    "summarise_roles",
]

Role = Literal["embedding", "attention", "mlp", "convolution", "norm", "head", "other"]
#: In the order in which tables show them.
ROLES: tuple[Role, ...] = (
    "embedding",
    "attention",
    "mlp",
    "convolution",
    "norm",
    "head",
    "other",
)

#: Patterns of names, lower case; the first role whose pattern is found anywhere decides.
_NAMES: dict[Role, str] = {
    "norm": r"norm|\bln(\d*|_\w+)\b|\bbn\d*\b",
    "embedding": r"embed|\bw[tp]e\b|\bpos_emb|relative_attention_bias|token_embd",
    "attention": (
        r"attn|attention|\b[qkvo]_?(proj|lin)\b|\b(query|key|value)\b|qkv|\bin_proj_weight\b"
        r"|\bto_[qkv]\b|\b[qkv]\b"
    ),
    "mlp": (
        r"mlp|ffn|feed_?forward|\bfc\d+\b|c_fc|(gate|up|down)_proj|intermediate|\bexperts?\b"
        r"|\blayer\.\d+\.output\b|\bclassifier\.\d|\bhidden\d*\b"
    ),
    "convolution": r"conv",
}
#: Of a matrix this pattern decides before all others.
_HEAD = (
    r"lm_head|\bclassifier(\.\w*proj)?\.weight$|\bhead\b|\blogits\b|^output\."
    r"|\b(fc|score)\.weight$|\bpredictions/kernel$"
)
_KERNEL_DIMENSIONS = (3, 4, 5)


def role(name: str, shape: tuple[int, ...]) -> Role:
    """Guess what a weight does in its network.

    A tensor of three to five dimensions is a convolution, unless its name says otherwise; a matrix
    whose name says nothing is `other`.

    Args:
        name: qualified name of the weight.
        shape: its shape.

    Example:
        >>> role("model.layers.0.self_attn.q_proj.weight", (4096, 4096))
        'attention'
        >>> role("lm_head.weight", (32000, 4096))
        'head'
    """
    lower = name.lower()
    if len(shape) == 2 and re.search(_HEAD, lower):
        return "head"
    for found, pattern in _NAMES.items():
        # Converters merge a norm into the convolution before it, and keep the norm's name.
        if re.search(pattern, lower) and not (found == "norm" and len(shape) > 3):
            return found
    return "convolution" if len(shape) in _KERNEL_DIMENSIONS else "other"


class Spread(NamedTuple):
    """Mean and sample standard deviation of some values; no deviation of a single one."""

    mean: float
    deviation: float | None

    @classmethod
    def of(cls, values: Iterable[float]) -> "Spread | None":
        """Summarise the finite values; None if there are none.

        >>> Spread.of([1.0, 3.0, float("nan")])
        Spread(mean=2.0, deviation=1.4142135623730951)
        """
        finite = [value for value in values if math.isfinite(value)]
        if not finite:
            return None
        return cls(fmean(finite), stdev(finite) if len(finite) > 1 else None)


class RoleSummary(NamedTuple):
    """The row of the paper's Table II for the weights of one role, or of another group.

    All figures are of the eligible weights: those of at least 36,864 elements, which the paper did
    not leave out.

    Attributes:
        role: of the weights, ``total``, or what else the group is called.
        measured: number of weights.
        eligible: number of them that are eligible.
        r2: R² of the lognormal curve by the paper's protocol.
        mu: μ', likewise.
        sigma: σ', likewise.
        r2_gaussian: R² that as many Gaussian weights would have.
        gap: median distance to the best lognormal, in nats.
        families: number of weights that each family fits best, the most frequent first; None counts
            those that no family could be fitted to.
        core_gap: median distance without the scales of rows and columns, in nats.
        core_gap_gaussian: median of what Gaussian weights of the same shapes have there.
        scale_share: median share of the variance of ln w that is scales of rows and columns.
    """

    role: str
    measured: int
    eligible: int
    r2: Spread | None
    mu: Spread | None
    sigma: Spread | None
    r2_gaussian: Spread | None
    gap: float | None
    families: Mapping[str | None, int]
    core_gap: float | None = None
    core_gap_gaussian: float | None = None
    scale_share: float | None = None


def summarise_roles(records: Sequence[Record]) -> list[RoleSummary]:
    """Summarise the weights of each role, in the order of `ROLES`, and in total.

    Args:
        records: of the weights of one checkpoint.
    """
    groups: dict[str, list[Record]] = {name: [] for name in ROLES}
    for record in records:
        groups[role(record.name, record.shape)].append(record)
    groups = {name: group for name, group in groups.items() if group}
    if len(groups) > 1:
        groups["total"] = list(records)
    return [summarise(name, group) for name, group in groups.items()]


def summarise(name: str, records: Sequence[Record]) -> RoleSummary:
    """Summarise one group of weights.

    Args:
        name: of the group.
        records: of its weights.
    """
    eligible = eligible_weights(records)
    families = Counter(record.best_family or None for record in eligible)
    return RoleSummary(
        name,
        len(records),
        len(eligible),
        Spread.of(record.paper_r2 for record in eligible),
        Spread.of(record.paper_mu for record in eligible),
        Spread.of(record.paper_sigma for record in eligible),
        Spread.of(record.paper_r2_gaussian for record in eligible),
        _median(record.gap for record in eligible),
        dict(families.most_common()),
        _median(record.core_gap for record in eligible),
        _median(record.core_gap_gaussian for record in eligible),
        _median(record.scale_share for record in eligible),
    )


def eligible_weights(records: Iterable[Record]) -> list[Record]:
    """Return the weights that the paper does not leave out: those of at least 36,864 elements."""
    return [record for record in records if math.prod(record.shape) >= FEWEST_WEIGHTS]


def _median(values: Iterable[float]) -> float | None:
    """Return the median of the finite values; None if there are none."""
    finite = [value for value in values if math.isfinite(value)]
    return median(finite) if finite else None
