"""Scores as plain functions on arrays."""

from thalweg.metrics._metrics import energy_distance, mmd, variance_ratio, wasserstein

__all__ = ["energy_distance", "mmd", "variance_ratio", "wasserstein"]
