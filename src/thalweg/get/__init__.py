"""Tidy data out of an AnnData."""

from thalweg.get._get import history, intervals

__all__ = ["history", "intervals"]
