"""Labelled images in memory, as LightningDataModules."""

from experiments.data.digits import Digits
from experiments.data.hub import HubImages
from experiments.data.images import ImageDataModule, Split, Splits
from experiments.data.teacher import Teacher

__all__ = ["Digits", "HubImages", "ImageDataModule", "Split", "Splits", "Teacher"]
