"""Preprocessing: representations and weights before a fit."""

from thalweg.flows.growth import BirthDeath
from thalweg.pp._drop_missing import drop_missing
from thalweg.pp._growth import growth
from thalweg.pp._standardize import standardize

__all__ = ["BirthDeath", "drop_missing", "growth", "standardize"]
