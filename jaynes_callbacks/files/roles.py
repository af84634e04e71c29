"""What a weight does in its network, by its name and shape, so that rows can be grouped."""

import re
from typing import Literal

__all__ = ["ROLES", "Role", "role"]

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

#: The first that is found in a name, from its end, decides.
_NAMES: tuple[tuple[Role, str], ...] = (
    ("norm", r"norm|\bln(\d*|_\w+)\b|\bbn\d*\b"),
    ("embedding", r"embed|\bw[tp]e\b|\bpos_emb|relative_attention_bias|token_embd"),
    (
        "attention",
        r"attn|attention|\b[qkvo]_?(proj|lin)\b|\b(query|key|value)\b|qkv|\bin_proj_weight\b"
        r"|\bto_[qkv]\b|\b[qkv]\b",
    ),
    (
        "mlp",
        r"mlp|ffn|feed_?forward|\bfc\d+\b|c_fc|(gate|up|down)_proj|intermediate|\bexperts?\b"
        r"|\blayer\.\d+\.output\b|\bclassifier\.\d|\bhidden\d*\b",
    ),
    ("convolution", r"conv"),
    (
        "head",
        r"lm_head|\bclassifier(\.\w*proj)?\.weight$|\bhead\b|\blogits\b|^output\.|\b(fc|score)\.weight$",
    ),
)
_KERNEL_DIMENSIONS = (3, 4, 5)


def role(name: str, shape: tuple[int, ...]) -> Role:
    """The role of a weight.

    A tensor of three to five dimensions is a convolution, unless its name says otherwise; a plain
    matrix of which the name says nothing is `other`.

    >>> role("model.layers.0.self_attn.q_proj.weight", (4096, 4096))
    'attention'
    >>> role("lm_head.weight", (32000, 4096))
    'head'
    """
    lower = name.lower()
    head = re.search(dict(_NAMES)["head"], lower)
    if head and len(shape) == 2:
        return "head"
    for found, pattern in _NAMES:
        if found != "head" and re.search(pattern, lower):
            return found
    return "convolution" if len(shape) in _KERNEL_DIMENSIONS else "other"
