"""Preprocessing: representations and weights before a fit."""

from thalweg.pp._drop_missing import drop_missing
from thalweg.pp._standardize import standardize

__all__ = ["drop_missing", "standardize"]
