"""Pipelines with a query: what goes with it, and that the stream leaves them out."""

from typing import Any

import pytest
from pydantic import ValidationError

from openanomaly.agents.ingest import selects
from openanomaly.core.pipelines.pipeline import DEFAULT_SELECTOR, Pipeline
from openanomaly.core.windows.plan import plan

QUERY = "sum by (mode) (rate(node_cpu_seconds_total[1m]))"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"selector": "up"}, "query='sum by .* and selector='up' exclude each other"),
        ({"transform": "rate"}, r"has to say rate\(\) itself"),
        ({"query": ""}, "the query is empty"),
    ],
)
def test_what_does_not_go_with_a_query(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        Pipeline.model_validate({"name": "p", "query": QUERY, **options})


def test_a_pipeline_with_a_query_is_valid_when_written_out() -> None:
    made = Pipeline(name="p", query=QUERY)
    assert made.selector == DEFAULT_SELECTOR
    assert Pipeline.model_validate(made.model_dump(mode="json")) == made


def test_the_stream_leaves_them_out() -> None:
    pulled, pushed = Pipeline(name="pulled", query=QUERY), Pipeline(name="pushed", selector="up")
    block, groups = plan([pulled, pushed])
    assert groups.spec.is_of_groups
    assert [p.name for p in block.pipelines] == ["pushed"]
    assert plan([pulled]) == ()
    other = (("__name__", "node_load1"),)
    assert selects([Pipeline(name="all"), pulled])(other)
    assert not selects([pulled, pushed])(other), "its default selector selects nothing"
