"""What is taken away from the page: a pipeline's definition, and rules of alerts on its scores."""

import contextlib
import json
import math
import re
import textwrap
from collections.abc import Sequence
from typing import Any

import yaml
from pydantic import ValidationError

from openanomaly.adapters.yaml_documents import document
from openanomaly.core.pipelines.pipeline import Pipeline
from openanomaly.core.pipelines.selector import Selector
from openanomaly.core.scoring.firing import LOOKBACK_MS
from openanomaly.errors import ConfigError

_FILE = "pipeline"
_LONGEST = 100_000
_WRITTEN_S = 5.0
"""What a score may take on its way to the database."""
_RULES = """\
# Alerts on the scores of pipeline {name}, for Prometheus and vmalert.
# In {days:.3g} days of {series:,} series ({title}) the first one would have fired {fired:,} times.
groups:
  - name: {group}
    rules:
      - alert: AnomalousSeries
        expr: {series_expr} > {level:g}
        for: {wait}
        labels: {{severity: info}}
        annotations:
          summary: '{{{{ $labels.for }}}} of {{{{ $labels.job }}}} {{{{ $labels.instance }}}} is anomalous'
          description: >-
            Its score in pipeline {name} has been above {level:g} for {wait}, and is
            {{{{ $value | printf "%.1f" }}}}.
"""
_GROUP_RULE = """
      - alert: AnomalousGroup
        expr: {group_expr} > 1
        for: {wait}
        labels: {{severity: warning}}
        annotations:
          summary: Unusually many series of {groups} are anomalous
          description: >-
            The share of the group's series that are in an episode scores {{{{ $value | printf "%.1f" }}}};
            1 is the edge of what is normal for this group.
"""


def parsed(text: str) -> Pipeline:
    """The pipeline that a YAML document defines.

    Raises:
        ConfigError: it defines none; with line, value and what is allowed.
    """
    if len(text) > _LONGEST:
        raise ConfigError(f"{_FILE}: {len(text):,} characters, at most {_LONGEST:,}")
    with contextlib.suppress(yaml.YAMLError):  # said below
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader=yaml.SafeLoader)):
            raise ConfigError(f"{_FILE}: aliases (*name) are not taken here")
    found = document(text, _FILE)
    if found.problems:
        raise ConfigError("\n".join(found.problems))
    if len(found.defined) != 1:
        raise ConfigError(f"{_FILE}: expected one pipeline, found {len(found.defined)}")
    return found.defined[0].pipeline


def written(pipeline: Pipeline) -> str:
    """The YAML document that defines it: what is not as it is by default."""
    return _text(_tree(pipeline))


def _tree(pipeline: Pipeline) -> dict[str, Any]:
    return pipeline.model_dump(mode="json", exclude_defaults=True, exclude_none=True)


def _text(tree: dict[str, Any]) -> str:
    text: str = yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, width=100)
    return text


def put(text: str, path: Sequence[str], value: Any) -> str:
    """The document with another value of an option; as it was if it defines no pipeline."""
    try:
        tree = _tree(parsed(text))
    except ConfigError:
        return text
    node = tree
    for name in path[:-1]:
        node = node.setdefault(name, {})
    node[path[-1]] = value
    try:
        return written(Pipeline.model_validate(tree))
    except ValidationError:  # said to whoever reads the document
        return _text(tree)


def ask(text: str, asked: str) -> str:
    """The document with another selector, or with another query if `asked` is no selector."""
    try:
        tree = _tree(parsed(text))
    except ConfigError:
        return text
    for name in ("selector", "query"):
        tree.pop(name, None)
    if asked:
        tree["selector" if _is_selector(asked) else "query"] = asked
    return _text(tree)


def _is_selector(text: str) -> bool:
    try:
        Selector.parse(text)
    except ConfigError:
        return False
    return True


def settings(text: str) -> str:
    """A settings file with the pipeline of a document, as it is written there."""
    return "pipelines:\n  - " + textwrap.indent(text.strip("\n"), "    ").lstrip(" ") + "\n"


def rules(
    pipeline: Pipeline, level: float, wait_s: int, *, title: str, days: float, series: int, fired: int
) -> str:
    """Rules of alerts, as a file of Prometheus and vmalert.

    Args:
        level: score that a series has to be above.
        wait_s: how long.
        title, days, series, fired: on what it was tried, and how often it fired there.
    """
    given = {
        "name": pipeline.name,
        "group": json.dumps(f"openanomaly-{pipeline.name}"),
        "series_expr": _seen(pipeline, f'anomaly_score{{pipeline="{pipeline.name}",for!="anomaly_rate"}}'),
        "group_expr": _seen(pipeline, f'anomaly_score{{pipeline="{pipeline.name}",for="anomaly_rate"}}'),
        "level": level,
        "wait": duration(wait_s),
        "title": "".join(c for c in " ".join(title.split()) if c.isprintable()),
        "days": days,
        "series": series,
        "fired": fired,
        "groups": " ".join(f"{{{{ $labels.{label} }}}}" for label in pipeline.group_by),
    }
    text = _RULES.format(**given)
    if pipeline.group_by:
        text += _GROUP_RULE.format(**given)
    return text


def window_s(pipeline: Pipeline) -> int:
    """How far back rules have to look for a score; 0 where they see it without looking back.

    Databases show a sample for five minutes. Where the next one comes later, a rule that waits begins anew.
    """
    comes_s = pipeline.step_s + pipeline.lateness_s
    return math.ceil(2 * pipeline.step_s) if (comes_s + _WRITTEN_S) * 1000 > LOOKBACK_MS else 0


def _seen(pipeline: Pipeline, series: str) -> str:
    window = window_s(pipeline)
    return f"last_over_time({series}[{duration(window)}])" if window else series


def plain(text: str) -> str:
    """Text that Markdown shows as it is, in letters of one width."""
    fence = "`" * (max((len(run) for run in re.findall("`+", text)), default=0) + 1)
    line = " ".join(text.split())
    pad = " " if line[:1] == "`" or line[-1:] == "`" else ""
    return f"{fence}{pad}{line}{pad}{fence}" if line else ""


def lines(text: str) -> str:
    """The same of several lines."""
    return "\n\n".join(plain(line) for line in text.splitlines() if line.strip())


def counted(count: int, what: str) -> str:
    """`1 page`, `2 pages`."""
    return f"{count:,} {what}{'s' * (count != 1)}"


def duration(seconds: int) -> str:
    """As PromQL writes it."""
    for unit, size in (("h", 3600), ("m", 60)):
        if seconds and seconds % size == 0:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"
