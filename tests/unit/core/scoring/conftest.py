"""Both ways to score."""

from compiled import each_way

__all__ = ["each_way"]
