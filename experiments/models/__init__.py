"""Small networks for small images: images in, logits out."""

from experiments.models.cnn import CNN
from experiments.models.mlp import MLP

__all__ = ["CNN", "MLP"]
