"""Small networks for small images: images in, logits out."""

from experiments.models.cnn import CNN
from experiments.models.mlp import MLP
from experiments.models.resnet import ResNet
from experiments.models.transformer import Transformer

__all__ = ["CNN", "MLP", "ResNet", "Transformer"]
