"""Labelled images in memory, as LightningDataModules."""

from experiments.data.digits import Digits
from experiments.data.hub import HubImages
from experiments.data.images import ImageDataModule, Split, Splits

__all__ = ["Digits", "HubImages", "ImageDataModule", "Split", "Splits"]
