"""Texts of the formats that the API's description names and JSON Schema does not know.

Schemathesis loads it (SCHEMATHESIS_HOOKS). With them most of what it makes up is valid, and gets past
the first check.
"""

import schemathesis
from hypothesis import strategies as st

_LABEL = st.sampled_from(["job", "instance", "__name__", "le"])
_WORD = st.text("abcxyz_.", min_size=1, max_size=8)
_MATCHER = st.builds("{}{}{!r}".format, _LABEL, st.sampled_from(["=", "!=", "=~", "!~"]), _WORD).map(
    lambda text: text.replace("'", '"')
)
SELECTOR = st.one_of(
    st.sampled_from(["up", "http_requests_total", "node_load1", '{__name__=~"a.+|b"}', "{'a.b', job='ä'}"]),
    st.lists(_MATCHER.filter(lambda text: "__name__" not in text), min_size=1, max_size=3).map(
        lambda matchers: f"up{{{','.join(matchers)}}}"
    ),
)
QUERY = st.sampled_from(["sum by (job) (rate(up[5m]))", "up", "a / b", 'max(x{y="z"})'])
MODEL = st.sampled_from(
    ["auto", "chronos-bolt-nano", "statistical", "./mine.onnx", "amazon/chronos-bolt-small"]
)
ZONE = st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata"])
CSV = st.lists(st.integers(0, 1 << 40), min_size=1, max_size=20, unique=True).map(
    lambda times: "timestamp_ms,up\n" + "".join(f"{time},{time % 7}\n" for time in sorted(times))
)

for _name, _texts in {
    "promql-selector": SELECTOR,
    "promql": QUERY,
    "model": MODEL,
    "time-zone": ZONE,
    "csv": CSV,
    "cursor": _WORD.filter(lambda text: "." not in text),
}.items():
    schemathesis.openapi.format(_name, _texts)
