"""Fixtures of flows that are known or killed."""

from known_flows import cells, killed, known

__all__ = ["cells", "killed", "known"]
