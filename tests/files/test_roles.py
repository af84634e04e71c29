import pytest

from jaynes_callbacks.files.roles import ROLES, role

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
