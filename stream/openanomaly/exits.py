"""Exit statuses of the command line."""

CRASH = 1
"""An error that a restart may cure."""
CONFIG = 2
"""A setting, or something outside that a person must change: a restart cures nothing."""
