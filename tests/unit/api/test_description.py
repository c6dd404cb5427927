"""The description of the API: complete, and readable without a network."""

import re
from pathlib import Path

import jsonschema_rs
import pytest

from unit.api.calls import Api


def test_every_operation_describes_its_answers_and_its_credentials(tmp_path: Path) -> None:
    described = Api(tmp_path, auth={"bearer_token": "x"})(
        "GET", "/openapi.json", headers={"Authorization": "Bearer x"}
    )
    found = described.json()
    operations = {
        f"{method.upper()} {path}": operation
        for path, methods in found["paths"].items()
        for method, operation in methods.items()
    }
    assert sorted(operations) == [
        "DELETE /api/v1/pipelines/{name}",
        "GET /api/v1/pipelines",
        "GET /api/v1/pipelines/{name}",
        "POST /api/v1/dry-run",
        "POST /api/v1/pipelines",
        "POST /api/v1/preview",
        "POST /api/v1/validate",
        "PUT /api/v1/pipelines/{name}",
    ]
    for operation in operations.values():
        assert {"401", "403", "500"} < set(operation["responses"])
    assert found["components"]["securitySchemes"] == {"bearer": {"type": "http", "scheme": "bearer"}}
    assert found["security"] == [{"bearer": []}]
    named = set(re.findall(r'"#/components/schemas/([^"]+)"', described.text))
    assert named <= set(found["components"]["schemas"])
    assert "HTTPValidationError" not in found["components"]["schemas"]


def test_without_credentials_none_are_described(tmp_path: Path) -> None:
    found = Api(tmp_path)("GET", "/openapi.json").json()
    assert "security" not in found


@pytest.mark.parametrize(
    ("value", "is_valid"),
    [
        ({"name": "a"}, True),
        ({"name": "a", "step_s": "60"}, False),
        ({"name": "a", "score": {"data_range": [0, "inf"]}}, True),
        ({"name": "a", "score": {"mute": [{"start": "22:00"}]}}, True),
        ({"name": "a", "score": {"mute": [{"start": "22:00Z"}]}}, False),
        ({"name": "a", "labels": {"for": "x"}}, False),
        ({"name": "a", "more": 1}, False),
    ],
)
def test_the_schema_and_the_check_agree(tmp_path: Path, value: dict[str, object], is_valid: bool) -> None:
    api = Api(tmp_path)
    schema = api("GET", "/api/v1/schema").json()
    assert jsonschema_rs.validator_for(schema).is_valid(value) is is_valid
    assert (api("POST", "/api/v1/validate", json=value).status_code == 200) is is_valid


def test_the_page_needs_nothing_from_elsewhere(tmp_path: Path) -> None:
    page = Api(tmp_path)("GET", "/docs")
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    assert "PUT /api/v1/pipelines/{name}" in page.text
    assert not re.findall(r"(?:src|href)=\"?https?:", page.text)
    assert "<script" not in page.text
