#!/usr/bin/env python3
"""Write Grafana's JSON of the dashboards that YAML files here describe: `uv run deploy/grafana/generate.py`.

They lie in the package, where `openanomaly preset dashboard` finds them. A dashboard is rows of panels, a
panel is queries and how they are shown. What all of them have in common (data source, grid, numbers of
panels, colours) stands here once. `<NAME>` in a query is a word of `words`.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parent
DASHBOARDS = FOLDER.parents[1] / "stream" / "openanomaly" / "presets" / "dashboards"
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
COLUMNS = 24
ROW_HEIGHT = 8
ALERT = 1.0
"""The edge of normal, drawn in every panel of scores."""

Json = dict[str, Any]


def dashboard(text: str) -> Json:
    """The JSON of a dashboard that is described as `text`."""
    said = yaml.safe_load(text)
    words = said.get("words", {})
    return {
        "uid": said["uid"],
        "title": said["title"],
        "description": _one_line(said["about"]),
        "tags": ["openanomaly"],
        "editable": True,
        "graphTooltip": 1,
        "refresh": said.get("refresh", "1m"),
        "schemaVersion": 39,
        "time": {"from": f"now-{said.get('past', '6h')}", "to": "now"},
        "timezone": "browser",
        "links": [
            {"type": "dashboards", "tags": ["openanomaly"], "title": "OpenAnomaly", "asDropdown": True}
        ],
        "templating": {"list": [_datasource(), *(_variable(each, words) for each in said["variables"])]},
        "panels": list(_panels(said["rows"], words)),
    }


def _datasource() -> Json:
    return {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"}


def _variable(said: Json, words: Json) -> Json:
    if said.get("type") == "adhoc":
        return {"name": said["name"], "label": said["label"], "type": "adhoc", "datasource": SOURCE}
    query = _filled(said["query"], words)
    out = {
        "name": said["name"],
        "label": said["label"],
        "type": "query",
        "datasource": SOURCE,
        "definition": query,
        "query": {"query": query, "refId": "variable"},
        "refresh": 2,  # when the time range changes: jobs come and go
        "sort": 1,
    }
    if said.get("one"):
        return out
    # `.*`, and not every value spelled out: a series without the label is one of all.
    everything = {"text": "All", "value": "$__all"}
    return out | {"multi": True, "includeAll": True, "allValue": ".*", "current": everything}


def _panels(rows: list[Json], words: Json) -> Iterator[Json]:
    number, y = 0, 0
    for row in rows:
        number += 1
        yield {
            "id": number,
            "type": "row",
            "title": row["title"],
            "collapsed": False,
            "panels": [],
            "gridPos": {"x": 0, "y": y, "w": COLUMNS, "h": 1},
        }
        y += 1
        x = tallest = 0
        for said in row["panels"]:
            number += 1
            width, height = said.get("width", COLUMNS // len(row["panels"])), said.get("height", ROW_HEIGHT)
            if x + width > COLUMNS:
                x, y, tallest = 0, y + tallest, 0
            yield _panel(said, words) | {
                "id": number,
                "gridPos": {"x": x, "y": y, "w": width, "h": height},
            }
            x, tallest = x + width, max(tallest, height)
        y += tallest


def _panel(said: Json, words: Json) -> Json:
    kind = said.get("type", "timeseries")
    is_table = kind == "table"
    out: Json = {
        "type": kind,
        "title": said["title"],
        "description": _one_line(said["about"]),
        "datasource": SOURCE,
        "fieldConfig": {"defaults": _defaults(said, kind), "overrides": []},
        "options": _options(said, kind),
        "targets": [
            {
                "refId": chr(ord("A") + i),
                "datasource": SOURCE,
                "expr": _one_line(_filled(query["expr"], words)),
                "legendFormat": query.get("legend", ""),
                "format": "table" if is_table else "time_series",
                "instant": is_table or kind == "stat",
                "range": not is_table and kind != "stat",
            }
            for i, query in enumerate(said["queries"])
        ],
    }
    if is_table:
        hidden = dict.fromkeys(("Time", "__name__"), True)
        out["transformations"] = [{"id": "organize", "options": {"excludeByName": hidden}}]
        out["options"]["sortBy"] = [{"displayName": "Value", "desc": True}]
    if band := said.get("band"):
        out["fieldConfig"]["overrides"] = _band(*band)
    return out


def _defaults(said: Json, kind: str) -> Json:
    out: Json = {"unit": said.get("unit", "short")}
    out |= {side: said[side] for side in ("min", "max", "decimals") if side in said}
    edges = [{"color": "green", "value": None}]
    for colour, value in said.get("thresholds", {}).items():
        edges.append({"color": colour, "value": value})
    if said.get("is_score"):
        edges.append({"color": "red", "value": ALERT})
        out |= {"min": 0, "color": {"mode": "thresholds"}} if kind == "table" else {"min": 0}
    out["thresholds"] = {"mode": "absolute", "steps": edges}
    if kind == "timeseries":
        has_edge = len(edges) > 1
        out["custom"] = {
            "fillOpacity": 25 if said.get("stacked") else 0,
            "showPoints": "never",
            "spanNulls": False,
            "stacking": {"mode": "normal" if said.get("stacked") else "none"},
            "thresholdsStyle": {"mode": "dashed" if has_edge else "off"},
        }
    if said.get("text"):
        shown = {str(value): {"text": text} for value, text in said["text"].items()}
        out["mappings"] = [{"type": "value", "options": shown}]
    return out


def _options(said: Json, kind: str) -> Json:
    if kind == "stat":
        last = {"calcs": ["lastNotNull"], "fields": "", "values": False}
        return {"reduceOptions": last, "colorMode": "value", "graphMode": "none", "textMode": "auto"}
    if kind == "heatmap":
        return {
            "calculate": False,
            "color": {"mode": "scheme", "scheme": "Oranges", "scale": "exponential", "exponent": 0.3},
            "yAxis": {"axisPlacement": "left"},
            "tooltip": {"mode": "single", "yHistogram": True},
        }
    if kind == "timeseries":
        legend = {"displayMode": "table", "placement": "bottom", "calcs": ["lastNotNull", "max"]}
        return {"legend": legend, "tooltip": {"mode": "multi", "sort": "desc"}}
    return {}


def _band(lower: str, upper: str) -> list[Json]:
    """Fill what lies between two queries, named by their legends."""
    thin = {"id": "custom.lineWidth", "value": 0}
    fill = [{"id": "custom.fillBelowTo", "value": lower}, {"id": "custom.fillOpacity", "value": 20}]
    return [
        {"matcher": {"id": "byName", "options": upper}, "properties": [thin, *fill]},
        {"matcher": {"id": "byName", "options": lower}, "properties": [thin]},
    ]


def _filled(query: str, words: Json) -> str:
    return re.sub(r"<(\w+)>", lambda found: str(words[found[1]]), query)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def written(source: Path) -> str:
    """What the JSON of `source` has to hold."""
    return json.dumps(dashboard(source.read_text("utf-8")), indent=2) + "\n"


def main() -> None:
    for source in sorted(FOLDER.glob("*.yaml")):
        (DASHBOARDS / f"{source.stem}.json").write_text(written(source), "utf-8")


if __name__ == "__main__":
    main()
