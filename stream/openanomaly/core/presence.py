"""When a series has gone: one rule for the windows that count series and for the page that shows them."""

CENSUS_EVERY_MS = 300_000
"""Windows tell a census as often also where nothing closes: who reads only the newest records finds one."""
_PATIENCE_STEPS = 5
_LEAST_PATIENCE_MS = 60_000


def patience_ms(step_ms: int) -> int:
    """A series without a step for so long, while others have some, has gone."""
    return max(_PATIENCE_STEPS * step_ms, _LEAST_PATIENCE_MS)
