"""Timestamps as people write them."""

import numpy as np
import pytest

from openanomaly.adapters.recordings.times import Style, TimeError, parse, show, style_of

MOMENT_MS = 1_769_846_400_000  # 2026-01-31 08:00:00 UTC


@pytest.mark.parametrize(
    ("text", "style", "more_ms"),
    [
        ("1769846400", "s", 0),
        ("1769846400.25", "s", 250),
        ("1.7698464e9", "s", 0),
        ("1769846400000", "ms", 0),
        ("1769846400000499", "us", 0),
        ("1769846400000000000", "ns", 0),
        ("2026-01-31T08:00:00Z", "iso", 0),
        ("2026-01-31 08:00:00", "iso", 0),
        ("2026-01-31 08:00", "iso", 0),
        ("2026-01-31T08:00:00.125", "iso", 125),
        ("2026-01-31T08:00:00.125999Z", "iso", 126),
        ("2026-01-31T10:00:00+02:00", "iso", 0),
        ("2026-01-31T00:00:00-08:00", "iso", 0),
        ("2026-01-31", "iso", -8 * 3600_000),
        ("0", "s", -MOMENT_MS),
    ],
)
def test_a_moment(text: str, style: Style, more_ms: int) -> None:
    assert style_of(text) == style
    found = parse([text, text], style).tolist()
    if text.endswith("999Z"):  # numpy cuts, datetime rounds: half a millisecond is nobody's step
        assert abs(found[0] - MOMENT_MS - more_ms) <= 1
    else:
        assert found == [MOMENT_MS + more_ms] * 2


@pytest.mark.parametrize(
    "text", ["", "now", "NaT", "nan", "inf", "1e30", "31.01.2026", "1/31/2026", "2026-13-01", "x"]
)
def test_what_is_no_moment(text: str) -> None:
    with pytest.raises(TimeError, match="is no timestamp"):
        style_of(text)
    for style, good in (("iso", "2026-01-31"), ("s", "5")):
        with pytest.raises(TimeError) as caught:
            parse([good, text], style)  # type: ignore[arg-type]
        assert caught.value.at == 1


def test_zones_may_differ_from_line_to_line() -> None:
    texts = ["2026-01-31T08:00:00Z", "2026-01-31T10:00:00+02:00", "2026-01-31T08:00:00"]
    assert parse(texts, "iso").tolist() == [MOMENT_MS] * 3


@pytest.mark.parametrize("style", ["s", "ms", "us", "ns", "iso"])
@pytest.mark.parametrize("more_ms", [0, 250])
def test_what_is_shown_is_read_again(style: Style, more_ms: int) -> None:
    moments = np.array([MOMENT_MS, MOMENT_MS + more_ms])
    shown = show(moments, style)
    assert style_of(shown[0]) == style
    assert parse(shown, style).tolist() == moments.tolist()
