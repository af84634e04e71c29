"""Optimizers that torch lacks: multiplicative updates, and Muon for a whole network."""

from experiments.optimizers.exponentiated_gradient import ExponentiatedGradient
from experiments.optimizers.gibrat import Gibrat
from experiments.optimizers.madam import Madam
from experiments.optimizers.muon import MuonWithAdamW

__all__ = ["ExponentiatedGradient", "Gibrat", "Madam", "MuonWithAdamW"]
