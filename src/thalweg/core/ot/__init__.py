"""Solvers of optimal transport behind `thalweg.core.couplings`: exact, entropic, unbalanced; and how plans are thinned.

`exact` certifies an optimal plan by its dual; `entropic` finds potentials of a regularised one, with exact or relaxed
marginals; `unbalanced` says on which scale populations may grow; `thinning` keeps a few entries that stand for all.
"""

from thalweg.core.ot import entropic, exact, thinning, unbalanced

__all__ = ["entropic", "exact", "thinning", "unbalanced"]
