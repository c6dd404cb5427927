"""Commands that ask a running process, over its admin API."""
