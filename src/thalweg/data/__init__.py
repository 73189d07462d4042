"""From an AnnData to snapshots: the one border at which input is checked."""

from thalweg.data.representation import find_representation, read_representation
from thalweg.data.sampler import IntervalBatch, IntervalSampler
from thalweg.data.snapshots import Snapshots, read_snapshots
from thalweg.data.times import parse_times

__all__ = [
    "IntervalBatch",
    "IntervalSampler",
    "Snapshots",
    "find_representation",
    "parse_times",
    "read_representation",
    "read_snapshots",
]
