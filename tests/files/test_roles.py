import math

import numpy as np
import pytest

from jaynes_callbacks.files.roles import ROLES, role, summarise, summarise_roles
from jaynes_callbacks.instruments.record import Record

NAMES = {
    "model.embed_tokens.weight": "embedding",
    "transformer.wte.weight": "embedding",
    "bert.embeddings.word_embeddings.weight": "embedding",
    "token_embd.weight": "embedding",
    "model.layers.3.self_attn.q_proj.weight": "attention",
    "transformer.h.0.attn.c_proj.weight": "attention",
    "bert.encoder.layer.0.attention.output.dense.weight": "attention",
    "encoder.self_attention.in_proj_weight": "attention",
    "blk.0.attn_q.weight": "attention",
    "model.layers.3.mlp.down_proj.weight": "mlp",
    "bert.encoder.layer.0.intermediate.dense.weight": "mlp",
    "bert.encoder.layer.0.output.dense.weight": "mlp",
    "blk.0.ffn_up.weight": "mlp",
    "classifier.3.weight": "mlp",
    "net.hidden1.weight": "mlp",
    "lm_head.weight": "head",
    "classifier.weight": "head",
    "fc.weight": "head",
    "output.weight": "head",
    "net.logits.weight": "head",
    "predictions/kernel": "head",
    "fc1/kernel": "mlp",
    "net.0.weight": "other",
    "lstm.weight_ih_l0": "other",
}


@pytest.mark.parametrize("name", NAMES)
def test_known_architectures(name: str) -> None:
    assert role(name, (64, 32)) == NAMES[name]
    assert NAMES[name] in ROLES


def test_shapes_tell_convolutions() -> None:
    assert role("layer1.0.weight", (64, 32, 3, 3)) == "convolution"
    assert role("layer1.0.conv2.weight", (64, 32, 3, 3)) == "convolution"
    assert role("audio.weight", (64, 32, 5)) == "convolution"


def weight(name: str, gap: float, r2: float, family: str, side: int = 192) -> Record:
    return Record(
        name=name, shape=(side, side), gap=gap, best_family=family, paper_r2=r2, paper_mu=-r2
    )


def test_the_summary_takes_what_the_paper_took() -> None:
    """Weights of 192 × 192 = 36,864 elements count, smaller ones are only in the number."""
    summaries = summarise_roles(
        [
            weight("h.0.mlp.weight", 0.3, 0.9, "uniform"),
            weight("h.0.attn.weight", 0.1, 0.96, "lognormal"),
            weight("h.1.attn.weight", 0.2, 0.98, "half_normal"),
            weight("h.2.attn.weight", math.nan, 0.99, ""),
            weight("h.3.attn.weight", 0.4, 0.91, "lognormal"),
            weight("h.4.attn.weight", 9.0, 0.1, "gamma", side=191),
        ]
    )
    assert [(each.role, each.eligible, each.measured) for each in summaries] == [
        ("attention", 4, 5),
        ("mlp", 1, 1),
        ("total", 5, 6),
    ]
    attention, mlp, total = summaries
    r2 = [0.96, 0.98, 0.99, 0.91]
    assert attention.r2 == pytest.approx((np.mean(r2), np.std(r2, ddof=1)))
    assert attention.mu is not None
    assert attention.mu.mean == pytest.approx(-np.mean(r2))
    assert attention.r2_gaussian is None
    assert attention.gap == pytest.approx(0.2)
    assert attention.families == {"lognormal": 2, "half_normal": 1, None: 1}
    assert mlp.r2 == (0.9, None)
    assert total.gap == pytest.approx(0.25)


def test_the_summary_has_medians_of_cores() -> None:
    cores = [(0.1, 0.2, 0.5), (0.3, 0.4, 0.9), (math.nan, math.nan, math.nan)]
    weights = [
        Record(shape=(192, 192), core_gap=gap, core_gap_gaussian=gaussian, scale_share=share)
        for gap, gaussian, share in cores
    ]
    summary = summarise("group", [*weights, Record(shape=(9, 9), core_gap=5.0)])
    assert summary.role == "group"
    found = (summary.core_gap, summary.core_gap_gaussian, summary.scale_share)
    assert found == pytest.approx((0.2, 0.3, 0.7))


def test_one_role_has_no_total_and_small_weights_no_figures() -> None:
    (summary,) = summarise_roles([weight("conv.weight", 0.1, 0.9, "gamma", side=9)])
    assert summary[:3] == ("convolution", 1, 0)
    assert summary[3:] == (None, None, None, None, None, {}, None, None, None)


def test_a_convolution_that_bears_the_name_of_a_norm() -> None:
    assert role("net/batch_normalization_3/Kernel", (8, 1, 3, 3)) == "convolution"
    assert role("net.norm.weight", (8, 8)) == "norm"
