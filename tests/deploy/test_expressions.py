"""What is said of expressions that name what is not exported: else a dashboard could name anything."""

import pytest

from deploy.expressions import named, unknown

EXPORTED = {
    "requests_total": frozenset({"job", "code"}),
    "seconds_bucket": frozenset({"job", "le"}),
    "up": frozenset({"job", "instance"}),
}


@pytest.mark.parametrize(
    ("expression", "missing"),
    [
        ("up", []),
        ("sum by (job) (rate(requests_total{code=~\"5..\", job!='x{y}'}[5m])) > 0.5e3", []),
        ("histogram_quantile(0.99, sum by (job, le) (rate(seconds_bucket[5m])))", []),
        ("up == 0 and on (job) count by (job) (requests_total)", []),
        ('count_values("score", floor(up * 4))', []),
        ("(count(up > 1) or vector(0)) / count(up)", []),
        ("a / on (job) group_left () sum(up)", ["a", "by (job)"][:1]),
        ("reqests_total", ["reqests_total"]),
        ('sum(reqests_total{code="1"}) + up', ["reqests_total"]),
        ('requests_total{cod="1"}', ["requests_total{cod}"]),
        ("sum by (codee) (requests_total)", ["by (codee)"]),
        ("max(up) by (role)", ["by (role)"]),
        ("sum by (code) (up)", ["by (code)"]),
        ("up unless on (instance, tier) up", ["by (tier)"]),
    ],
)
def test_names_and_labels_that_are_not_exported_are_found(expression: str, missing: list[str]) -> None:
    assert unknown(expression, EXPORTED) == missing


def test_a_metric_that_is_named_repeatedly_has_the_labels_of_all() -> None:
    found = named('a{x="1"} / a{y=~"2|3"} - b')
    assert found.metrics == {"a": {"x", "y"}, "b": frozenset()}
