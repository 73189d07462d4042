"""Tests of two arms with few replicates each: of means, of shares; and what is done with many p values.

A *unit* is a replicate of an arm. Cells are never units: those of one replicate share its fate. `means` and `shares`
compare the arms in many features or groups at once, and three units of an arm are enough because the spread of each
borrows from that of all others (`moderation`). `pvalues` adjusts the p values, or makes one of several.
"""

from thalweg.core.comparison import means, moderation, pvalues, shares

__all__ = ["means", "moderation", "pvalues", "shares"]
