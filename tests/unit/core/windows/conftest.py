"""Both ways to keep windows; a module with another plan has an `each_way` of its own."""

from compiled import each_way

__all__ = ["each_way"]
