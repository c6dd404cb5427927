"""Settings are shown by the dry run and the admin API: without secrets, wherever they stand."""

from openanomaly.settings import Settings, SinkSettings


def test_no_secret_of_the_target_is_shown() -> None:
    sink = SinkSettings(
        url="https://user:hidden@host:1/api/v1/write",
        headers={"X-Scope-OrgID": "hidden"},
        bearer_token="hidden",
        username="me",
        password="hidden",
    )
    shown = Settings(sink=sink).model_dump_json()
    assert "hidden" not in shown
    assert "https://**********@host:1/api/v1/write" in shown
    assert "X-Scope-OrgID" in shown
    assert SinkSettings(url="http://host:1/write").model_dump()["url"] == "http://host:1/write"
