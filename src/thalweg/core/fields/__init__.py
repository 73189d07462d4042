"""Networks that are fields of time and place, their part in closed form, and a way to reach their features."""

from thalweg.core.fields.affine import Affine, AffineMLP
from thalweg.core.fields.features import Tap, block_at, tap
from thalweg.core.fields.mlp import MLP, build

__all__ = ["MLP", "Affine", "AffineMLP", "Tap", "block_at", "build", "tap"]
