"""Selectors choose what PromQL's would, and say where they cannot be read."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openanomaly.core.pipelines.pipeline import DEFAULT_SELECTOR
from openanomaly.core.pipelines.selector import OwnSelector, Selector
from openanomaly.core.series import Labels
from openanomaly.errors import ConfigError


def series(name: str = "up", **labels: str) -> Labels:
    return tuple(sorted({"__name__": name, **labels}.items()))


@pytest.mark.parametrize(
    ("selector", "chosen", "others"),
    [
        ("up", [series(), series(job="a")], [series("upp"), series("down")]),
        ('{__name__="up"}', [series()], [series("down")]),
        ('{"up"}', [series()], [series("down")]),
        ('up{job="a"}', [series(job="a")], [series(), series(job="b"), series("down", job="a")]),
        ('{"up", job="a"}', [series(job="a")], [series("down", job="a")]),
        ('{job!="a"}', [series(), series(job="b")], [series(job="a")]),
        ('{job=""}', [series()], [series(job="a")]),
        ('{job!=""}', [series(job="a")], [series()]),
        # Regular expressions are anchored at both ends, and the dot is any character.
        ('{job=~"a|b"}', [series(job="a"), series(job="b")], [series(job="ab"), series(job="ac"), series()]),
        ('{job=~"a.c"}', [series(job="abc"), series(job="a\nc")], [series(job="abcd"), series(job="ac")]),
        ('{job=~".*"}', [series(), series(job="a")], []),
        ('{job=~".+"}', [series(job="a")], [series()]),
        ('{job!~"a.*"}', [series(), series(job="b")], [series(job="a"), series(job="ab")]),
        ('{job=~"(?i)A"}', [series(job="a"), series(job="A")], [series(job="b")]),
        ('{job=~"\\\\d+"}', [series(job="12")], [series(job="a"), series(job="\\d")]),
        ("{job=~`\\d+`}", [series(job="12")], [series(job="a")]),
        ('{job=~"\\\\pL+"}', [series(job="äb")], [series(job="1")]),
        ('{a="1", b!="2",}', [series(a="1"), series(a="1", b="1")], [series(a="1", b="2"), series()]),
        ('{a=~"x.*",a!="xy"}', [series(a="xz")], [series(a="xy"), series()]),
        # Quotes and escapes.
        ("{a='it\"s'}", [series(a='it"s')], [series(a="its")]),
        ('{a="\\x41\\u00e9\\U0001f600\\101\\n\\\\"}', [series(a="Aé\U0001f600A\n\\")], [series(a="A")]),
        ('{"dotted.name"="x"}', [(("__name__", "up"), ("dotted.name", "x"))], [series()]),
        (" up { job = 'a' , } ", [series(job="a")], [series()]),
        ("{}", [series(), series(job="a")], []),
    ],
)
def test_a_selector_chooses(selector: str, chosen: list[Labels], others: list[Labels]) -> None:
    parsed = Selector.parse(selector)
    assert [labels for labels in chosen if not parsed.matches(labels)] == []
    assert [labels for labels in others if parsed.matches(labels)] == []


@pytest.mark.parametrize(
    ("name", "is_ours"),
    [
        ("anomaly_score", True),
        ("anomaly_rate", True),
        ("yhat", True),
        ("yhat_lower", True),
        ("y", True),
        ("node_load1", False),
    ],
)
def test_our_own_output_is_never_chosen(name: str, is_ours: bool) -> None:
    """It is known by name and the label `for`: either of them alone may be a user's."""
    everything = Selector.parse("{}")
    assert everything.matches(series(name, **{"for": "up"})) is not is_ours
    assert everything.matches(series(name))


def test_the_share_of_a_group_is_known_by_its_pipeline_and_chosen_by_ourselves_alone() -> None:
    share = series("anomaly_rate", pipeline="p", job="a")
    assert not Selector.parse("{}").matches(share)
    assert Selector.parse("{}").matches(series("anomaly_rate", job="a")), "a user's"
    own = OwnSelector.parse('{__name__="anomaly_rate",pipeline="p"}')
    assert own.matches(share)
    assert not own.matches(series("anomaly_rate", pipeline="q", job="a"))


def test_the_default_leaves_out_buckets_of_classic_histograms_only() -> None:
    default = Selector.parse(DEFAULT_SELECTOR)
    assert not default.matches(series("latency_seconds_bucket", le="1"))
    for name in ("latency_seconds_sum", "latency_seconds_count", "bucket", "bucket_bytes"):
        assert default.matches(series(name))


@pytest.mark.parametrize(
    ("selector", "message"),
    [
        ("", "expected a metric name or '{' at position 1, found the end"),
        ("up{", "expected a label name at position 4, found the end"),
        ("up{job}", "expected '=', '!=', '=~' or '!~' at position 7, found '}'"),
        ('up{job=="a"}', "expected a quoted string at position 8, found '='"),
        ('up{job="a}', 'expected a closing " at position 11, found the end'),
        ('up{a="1" b="2"}', "expected ',' or '}' at position 10, found 'b'"),
        ("up[5m]", "expected the end at position 3, found '['"),
        ("sum(up)", "expected the end at position 4, found '('"),
        ('up{job="a"} offset 5m', "expected the end at position 13, found 'o'"),
        ('up{__name__="down"}', "the metric name is given twice"),
        ('{a="\\q"}', "expected an escape sequence at position 6"),
        ('{a="\\x+1"}', "expected 2 digits at position 7"),
        ('{a="\\u12"}', "expected 4 digits at position 7"),
        ('{a="\\400\\8"}', "expected 3 digits"),
        ('{a=~"\\ud800"}', "expected the number of a character at position 8"),
        ('{a="\\U00110000"}', "expected the number of a character"),
        ('{a=~"("}', "cannot parse the regular expression '(' of label 'a': missing )"),
        ('{a=~"a(?=b)"}', "invalid perl operator"),
        ('{a=~"(a)\\\\1"}', "invalid escape sequence"),
    ],
)
def test_what_cannot_be_read_is_told_with_its_place(selector: str, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        Selector.parse(selector)
    assert message in str(raised.value)


def test_no_expression_takes_exponential_time() -> None:
    assert not Selector.parse('{a=~"(a*)*(a|aa)+b"}').matches(series(a="a" * 5000))


@given(st.text(st.sampled_from("up{}=~!\"'`,\\xuU018da+*()[]?.| \n\té"), max_size=30))
def test_any_text_is_a_selector_or_a_configuration_error(text: str) -> None:
    for selector in (text, f'{{a=~"{text}"}}'):
        with contextlib.suppress(ConfigError):
            Selector.parse(selector).matches(series(a="x"))
