"""Samples of a few series as they arrive, with what happens in the field."""

from hypothesis import strategies as st

from unit.core.windows.reference import STALE, Sample, Tick

NAMES = ("gauge", "requests_total", "large", "late")
_ODD = st.sampled_from([STALE, float("nan"), float("inf"), -float("inf")])
_BASE_MS = 1_700_000_000_000


def values(name: str) -> st.SearchStrategy[float]:
    """Whole numbers, so that sums do not depend on their order; now and then no number."""
    offset = 5e9 if name == "large" else 0.0
    whole = st.integers(-50, 50).map(lambda i: offset + i)
    if name.endswith("_total"):
        whole = st.integers(0, 60).map(float)
    return st.one_of(whole, whole, whole, whole, _ODD)


@st.composite
def series(draw: st.DrawFn, name: str) -> list[Sample]:
    """One series in order of arrival: mostly forward, with repeats, steps back, gaps and absurd times."""
    delay = 90_000 if name == "late" else 500
    t = _BASE_MS + draw(st.integers(0, 20_000))
    out: list[Sample] = []
    moves = st.one_of(
        st.integers(1, 15_000),
        st.integers(1, 15_000),
        st.just(0),
        st.integers(-25_000, -1),
        st.integers(20_000, 900_000),
    )
    for _ in range(draw(st.integers(1, 25))):
        t = max(_BASE_MS, t + draw(moves))
        shown = draw(st.sampled_from([t] * 20 + [-5, 1 << 60]))
        out.append(Sample(shown, draw(values(name)), t + delay))
    return out


@st.composite
def arrivals(draw: st.DrawFn) -> list[tuple[str, Sample]]:
    """All series in any interleaving, each in its order."""
    left = {name: draw(series(name)) for name in NAMES}
    out = []
    while left:
        name = draw(st.sampled_from(sorted(left)))
        take = draw(st.integers(1, 6))
        out += [(name, sample) for sample in left[name][:take]]
        left[name] = left[name][take:]
        if not left[name]:
            del left[name]
    return out


@st.composite
def requests(draw: st.DrawFn) -> list[list[tuple[str, Sample]] | Tick]:
    """Arrivals cut into requests, some of them sent twice, with ticks between."""
    todo = draw(arrivals())
    out: list[list[tuple[str, Sample]] | Tick] = []
    now_ms = _BASE_MS
    while todo:
        n = draw(st.integers(1, 12))
        request, todo = todo[:n], todo[n:]
        # A frame has one arrival time.
        received_ms = max(s.received_ms for _, s in request)
        request = [(name, s._replace(received_ms=received_ms)) for name, s in request]
        out.append(request)
        if draw(st.integers(0, 4)) == 0:
            out.append(request)
        if draw(st.booleans()):
            now_ms = max(now_ms + 1, received_ms + draw(st.integers(-5_000, 60_000)))
            out.append(Tick(now_ms))
    return out
