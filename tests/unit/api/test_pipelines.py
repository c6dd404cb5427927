"""Pipelines over HTTP: what is stored is read back, and no change of somebody else's is lost."""

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from openanomaly.core.pipelines import document
from openanomaly.core.pipelines.pipeline import Pipeline
from unit.api.calls import PIPELINES, Api


@pytest.fixture
def api(tmp_path: Path) -> Api:
    (tmp_path / "pipelines.yaml").write_text("pipelines: []\n")
    return Api(tmp_path / "pipelines.yaml")


def names(answer: httpx.Response) -> list[str]:
    return [item["pipeline"]["name"] for item in answer.json()["items"]]


def test_a_pipeline_is_created_read_replaced_and_deleted(api: Api) -> None:
    made = api("POST", PIPELINES, json={"name": "web", "selector": "up", "step_s": 30})
    assert (made.status_code, made.headers["Location"]) == (201, f"{PIPELINES}/web")
    read = api("GET", f"{PIPELINES}/web")
    assert read.json() == made.json() == document.write(Pipeline(name="web", selector="up", step_s=30))
    assert read.headers["ETag"] == made.headers["ETag"]

    change = api("PUT", f"{PIPELINES}/web", json={"step_s": 15}, headers={"If-Match": read.headers["ETag"]})
    assert change.status_code == 200
    assert change.headers["ETag"] != read.headers["ETag"]
    assert api("GET", f"{PIPELINES}/web").json()["step_s"] == 15
    assert api("GET", f"{PIPELINES}/web").json()["selector"] == Pipeline(name="x").selector

    gone = api("DELETE", f"{PIPELINES}/web", headers={"If-Match": change.headers["ETag"]})
    assert (gone.status_code, gone.content) == (204, b"")
    assert api("GET", f"{PIPELINES}/web").status_code == 404
    assert names(api("GET", PIPELINES)) == []


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("PUT", {}, 428),
        ("PUT", {"If-None-Match": "*"}, 412),
        ("PUT", {"If-Match": '"other"'}, 412),
        ("PUT", {"If-Match": 'W/"CURRENT"'}, 412),
        ("PUT", {"If-Match": "CURRENT"}, 412),
        ("PUT", {"If-Match": '"CURRENT"'}, 200),
        ("PUT", {"If-Match": '"other", "CURRENT"'}, 200),
        ("PUT", {"If-Match": "*"}, 200),
        ("DELETE", {}, 428),
        ("DELETE", {"If-Match": '"other"'}, 412),
        ("DELETE", {"If-Match": '"CURRENT"'}, 204),
        ("DELETE", {"If-Match": "*"}, 204),
        ("GET", {"If-None-Match": '"CURRENT"'}, 304),
        ("GET", {"If-None-Match": 'W/"CURRENT"'}, 304),
        ("GET", {"If-None-Match": '"other"'}, 200),
        ("GET", {"If-None-Match": "*"}, 304),
    ],
)
def test_what_is_there_changes_only_from_the_version_that_is_meant(
    api: Api, method: str, headers: dict[str, str], status: int
) -> None:
    tag = api("POST", PIPELINES, json={"name": "web"}).headers["ETag"].strip('"')
    given_headers = {name: value.replace("CURRENT", tag) for name, value in headers.items()}
    body = {"json": {"step_s": 15}} if method == "PUT" else {}
    answer = api(method, f"{PIPELINES}/web", headers=given_headers, **body)
    assert answer.status_code == status
    after = api("GET", f"{PIPELINES}/web")
    if method == "DELETE" and status == 204:
        assert after.status_code == 404
    else:
        assert after.json()["step_s"] == (15 if method == "PUT" and status == 200 else 60)


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("PUT", {}, 201),
        ("PUT", {"If-None-Match": "*"}, 201),
        ("PUT", {"If-Match": '"any"'}, 412),
        ("PUT", {"If-Match": "*"}, 412),
        ("DELETE", {}, 404),
        ("DELETE", {"If-Match": "*"}, 404),
    ],
)
def test_what_is_not_there_is_created_or_not_found(
    api: Api, method: str, headers: dict[str, str], status: int
) -> None:
    body = {"json": {}} if method == "PUT" else {}
    assert api(method, f"{PIPELINES}/web", headers=headers, **body).status_code == status
    assert api("GET", f"{PIPELINES}/web").status_code == (200 if status == 201 else 404)


def test_of_two_who_read_the_same_one_changes_it(api: Api) -> None:
    tag = api("POST", PIPELINES, json={"name": "web"}).headers["ETag"]

    async def both() -> list[int]:
        calls = [
            api.call("PUT", f"{PIPELINES}/web", json={"step_s": step_s}, headers={"If-Match": tag})
            for step_s in (10, 20, 30, 40)
        ]
        return sorted(answer.status_code for answer in await asyncio.gather(*calls))

    assert asyncio.run(both()) == [200, 412, 412, 412]


def test_a_name_that_is_taken_is_a_conflict(api: Api) -> None:
    api("POST", PIPELINES, json={"name": "web"})
    answer = api("POST", PIPELINES, json={"name": "web"})
    assert answer.status_code == 409
    assert "'web'" in answer.json()["detail"]


def test_more_pipelines_than_can_share_windows_are_a_conflict(tmp_path: Path) -> None:
    file = tmp_path / "pipelines.yaml"
    file.write_text(json.dumps({"pipelines": [{"name": f"p{i}"} for i in range(128)]}))
    api = Api(file)
    answer = api("POST", PIPELINES, json={"name": "one-more"})
    assert answer.status_code == 409
    assert "129 pipelines share one window" in answer.json()["detail"]
    assert api("POST", PIPELINES, json={"name": "one-more", "step_s": 30}).status_code == 201


@pytest.mark.parametrize(
    ("method", "path", "body", "headers"),
    [
        ("POST", PIPELINES, {"name": "node-cpu"}, {}),
        ("PUT", f"{PIPELINES}/node-cpu", {}, {}),
        ("PUT", f"{PIPELINES}/node-cpu", {}, {"If-None-Match": "*"}),
        ("PUT", f"{PIPELINES}/node-load", {"step_s": 30}, {"If-Match": "*"}),
        ("POST", "/api/v1/dry-run", {"pipeline": {"name": "node-cpu"}}, {}),
        ("POST", "/api/v1/dry-run", {"name": "node-load"}, {}),
    ],
)
def test_a_name_that_a_preset_has_is_a_conflict(
    tmp_path: Path, method: str, path: str, body: dict[str, Any], headers: dict[str, str]
) -> None:
    """Processes refuse all pipelines then; `node-load` was stored before the preset was chosen."""
    before = "name: node-load\n"
    (tmp_path / "before.yaml").write_text(before)
    api = Api(tmp_path, presets=["kubernetes", "node-exporter"])
    answer = api(method, path, json=body, headers=headers)
    assert answer.status_code == 409
    assert "and in the preset 'node-exporter': give yours another name" in answer.json()["detail"]
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("before.yaml", before)]

    elsewhere = Api(tmp_path, presets=["kubernetes"])
    assert elsewhere(method, path, json=body, headers=headers).status_code in (200, 201)


def test_what_was_stored_before_its_preset_was_chosen_can_be_deleted(tmp_path: Path) -> None:
    (tmp_path / "before.yaml").write_text("name: node-load\n")
    api = Api(tmp_path, presets=["node-exporter"])
    assert names(api("GET", PIPELINES)) == ["node-load"]
    assert api("DELETE", f"{PIPELINES}/node-load", headers={"If-Match": "*"}).status_code == 204
    assert api("POST", PIPELINES, json={"name": "mine"}).status_code == 201


def test_pipelines_of_presets_share_windows_too(tmp_path: Path) -> None:
    file = tmp_path / "pipelines.yaml"
    file.write_text(json.dumps({"pipelines": [{"name": f"p{i}"} for i in range(127)]}))
    answer = Api(file, presets=["node-exporter"])("POST", PIPELINES, json={"name": "one-more"})
    assert answer.status_code == 409
    assert "pipelines share one window" in answer.json()["detail"]
    assert Api(file)("POST", PIPELINES, json={"name": "one-more"}).status_code == 201


def test_pages_have_all_pipelines_in_their_order(api: Api) -> None:
    wanted = sorted(f"p{i}" for i in range(7))
    for name in reversed(wanted):
        api("POST", PIPELINES, json={"name": name})
    found: list[str] = []
    path: str | None = f"{PIPELINES}?limit=3"
    sizes = []
    while path is not None:
        answer = api("GET", path)
        page = names(answer)
        found += page
        sizes.append(len(page))
        path = answer.json()["next"]
        assert answer.headers.get("Link") == (f'<{path}>; rel="next"' if path else None)
        api("DELETE", f"{PIPELINES}/{page[-1]}", headers={"If-Match": "*"})  # where the next one goes on from
    assert (found, sizes) == (wanted, [3, 3, 1])


def test_what_is_broken_does_not_hide_what_is_not(tmp_path: Path) -> None:
    (tmp_path / "good.yaml").write_text("name: good\n")
    (tmp_path / "bad.yaml").write_text("name: bad\nstep_s: -1\n")
    api = Api(tmp_path)
    page = api("GET", PIPELINES)
    assert (page.status_code, names(page)) == (200, ["good"])
    (problem,) = page.json()["problems"]
    assert "bad.yaml" in problem
    assert "step_s" in problem
    assert "bad.yaml" in api("GET", f"{PIPELINES}/bad").json()["detail"]


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
SCORES = st.fixed_dictionaries(
    {},
    optional={
        "direction": st.sampled_from(["both", "above", "below"]),
        "tolerance": st.floats(0, 10),
        "scale": st.tuples(st.floats(1e-3, 1e6), st.integers(1, 9)).map(list),
        "data_range": st.sampled_from([[0, "inf"], ["-inf", 1e300], [-5, 5.5], None]),
        "block": st.integers(12, 10_000),
        "channels": st.lists(st.sampled_from(["value", "mean_12", "error"]), min_size=1, max_size=3),
        "mute": st.lists(
            st.fixed_dictionaries(
                {
                    "start": st.times().map(lambda t: t.strftime("%H:%M")),
                    "timezone": st.sampled_from(["UTC", "Europe/Berlin"]),
                    "learn": st.just(True),
                }
            ),
            max_size=2,
        ),
    },
)
DOCUMENTS = st.fixed_dictionaries(
    {},
    optional={
        "selector": st.sampled_from(["up", '{a="b\\n\\"ü"}', "{job=~'a|b:.*#'}"]),
        "step_s": st.floats(1, 86400) | st.integers(1, 86400),
        "context": st.integers(64, 8192),
        "transform": st.sampled_from(["auto", "none"]),
        "labels": st.dictionaries(
            st.from_regex("[a-zA-Z_][a-zA-Z0-9]{0,8}", fullmatch=True), TEXTS, max_size=3
        ),
        "score": SCORES,
        "model": st.sampled_from(["auto", "statistical", "./a b.onnx", "yes/no"]),
    },
)


@given(DOCUMENTS, st.from_regex(r"[a-zA-Z0-9_.:-]{1,64}", fullmatch=True))
@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_is_taken_is_read_back(api: Api, value: dict[str, Any], name: str) -> None:
    answer = api("PUT", f"{PIPELINES}/{name}", json=value, headers={"If-None-Match": "*"})
    if answer.status_code == 422 or name in (".", ".."):
        return
    assert answer.status_code in (201, 412)
    if answer.status_code == 412:
        answer = api("PUT", f"{PIPELINES}/{name}", json=value, headers={"If-Match": "*"})
        assert answer.status_code == 200
    read = api("GET", f"{PIPELINES}/{name}")
    assert read.json() == answer.json()
    assert read.headers["ETag"] == answer.headers["ETag"]
    assert document.read(read.json()) == document.read({**value, "name": name})
    same = api("PUT", f"{PIPELINES}/{name}", json=read.json(), headers={"If-Match": read.headers["ETag"]})
    assert same.json() == read.json()
