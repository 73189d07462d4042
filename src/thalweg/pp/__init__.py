"""Preprocessing: representations and weights before a fit."""

from thalweg.pp._standardize import standardize

__all__ = ["standardize"]
