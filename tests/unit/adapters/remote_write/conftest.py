"""Both ways to read a request."""

from compiled import each_way

__all__ = ["each_way"]
