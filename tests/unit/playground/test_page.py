"""The page, run by Streamlit's own runner: what is done there, and what is shown."""

import re
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

import openanomaly.playground
from openanomaly.errors import ConfigError
from openanomaly.playground import texts
from unit.playground.conftest import Install

PAGE = Path(openanomaly.playground.__file__).with_name("page.py")
DEFINED = [
    {"name": "default"},
    {"name": "shop", "model": "statistical", "score": {"direction": "below", "tolerance": 0.35}},
]


def opened(install: Install, **settings: object) -> AppTest:
    install(**({"pipelines": DEFINED} | settings if "store" not in settings else settings))
    return shown(AppTest.from_file(str(PAGE), default_timeout=60).run())


def shown(page: AppTest) -> AppTest:
    assert not page.exception
    return page


def document(page: AppTest) -> str:
    return str(page.text_area[0].value)


def field(fields: Any, label: str) -> Any:
    (found,) = [each for each in fields if each.label == label]
    return found


def write(page: AppTest, text: str) -> AppTest:
    return shown(page.text_area[0].set_value(text).run())


def attempt(page: AppTest) -> AppTest:
    (button,) = [b for b in page.button if b.label == "Try it"]
    assert not button.disabled
    return shown(button.click().run())


def figures(page: AppTest) -> dict[str, str]:
    return {metric.label: metric.value for metric in page.metric}


def test_a_new_page_says_what_it_is_for(install: Install) -> None:
    page = opened(install)
    assert "What would the scores be?" in page.main.markdown[0].value
    assert texts.parsed(document(page)).step_s == 300
    assert not page.error


def test_the_example_is_tried(install: Install) -> None:
    page = attempt(write(opened(install), document(opened(install)) + "model: statistical\n"))
    found = figures(page)
    assert re.fullmatch(r"1[0-5] of 15", found["events found"])
    assert int(found["episodes"]) >= 10
    assert len(page.dataframe) >= 2
    assert any("anomaly_score" in code.value for code in page.code)
    assert not page.error


def test_another_trial_stands_beside_the_one_before(install: Install) -> None:
    page = attempt(write(opened(install), "name: a\nstep_s: 300\nmodel: statistical\n"))
    before = figures(page)
    page = attempt(write(page, "name: a\nstep_s: 300\nmodel: statistical\nscore: {tolerance: 3}\n"))
    assert int(figures(page)["episodes"]) < int(before["episodes"])
    past = next(d.value for d in page.dataframe if "tried" in d.value)
    assert past["episodes"].tolist() == [figures(page)["episodes"], before["episodes"]]


def test_the_form_and_the_text_are_one(install: Install) -> None:
    page = opened(install)
    page = shown(field(page.selectbox, "Direction").select("above").run())
    assert texts.parsed(document(page)).score.direction == "above"
    page = shown(field(page.number_input, "Tolerance").set_value(0.5).run())
    assert texts.parsed(document(page)).score.tolerance == 0.5
    page = write(page, "name: x\nstep_s: 45\nscore: {direction: below}\n")
    assert field(page.selectbox, "Direction").value == "below"
    assert field(page.selectbox, "Step").value == 45
    assert field(page.number_input, "Tolerance").value == 0.2


@pytest.mark.parametrize(
    ("text", "message"),
    [("name: x\nscore: {tolerance: 11}\n", "line 2"), ("name: [", "line 1"), ("", "expected one pipeline")],
)
def test_a_text_that_defines_nothing_is_told_and_cannot_be_tried(
    install: Install, text: str, message: str
) -> None:
    page = write(opened(install), text)
    assert message in page.error[0].value
    assert next(b for b in page.button if b.label == "Try it").disabled
    page = write(page, "name: x\n")
    assert not page.error
    assert not next(b for b in page.button if b.label == "Try it").disabled


def test_a_page_begins_with_a_pipeline_that_is_defined(install: Install) -> None:
    page = opened(install)
    begin = page.selectbox(key="begin")
    assert begin.options == ["default", "shop"]
    page = shown(begin.select("shop").run())
    assert texts.parsed(document(page)).score.tolerance == 0.35
    assert field(page.selectbox, "Direction").value == "below"


def test_a_pipeline_at_the_limits_of_its_options_can_be_shown(install: Install) -> None:
    page = write(opened(install), "name: x\nstep_s: 1.5\nscore: {alert_score: 0.001, tolerance: 10}\n")
    assert field(page.number_input, "Alert score").value == 0.001
    page = attempt(write(page, "name: x\nstep_s: 300\nmodel: statistical\nscore: {alert_score: 0.001}\n"))
    assert not page.error


def test_a_step_that_is_not_that_of_the_samples_is_told(install: Install) -> None:
    page = attempt(write(opened(install), "name: x\nstep_s: 60\nmodel: statistical\n"))
    assert "Samples are 300 s apart" in page.warning[0].value
    page = attempt(write(page, "name: x\nstep_s: 300\nmodel: statistical\n"))
    assert not page.warning


def test_a_query_is_not_evaluated_on_a_recording_and_that_is_told(install: Install) -> None:
    page = attempt(write(opened(install), "name: x\nstep_s: 300\nmodel: statistical\nquery: sum(up)\n"))
    assert "Nobody evaluated the query" in page.warning[0].value


def test_a_trial_of_another_pipeline_is_told(install: Install) -> None:
    page = attempt(write(opened(install), "name: x\nstep_s: 300\nmodel: statistical\n"))
    assert not page.info
    page = write(page, "name: x\nstep_s: 300\nmodel: statistical\nscore: {tolerance: 1}\n")
    assert "was changed since" in page.info[0].value
    assert not attempt(page).info


def test_what_went_wrong_is_told_until_the_next_trial(install: Install) -> None:
    page = attempt(write(opened(install), "name: x\nstep_s: 300\nmodel: ./secret.onnx\n"))
    page = shown(field(page.selectbox, "Direction").select("above").run())
    assert "playground.models" in page.error[0].value
    page = attempt(write(page, "name: x\nstep_s: 300\nmodel: statistical\n"))
    assert not page.error


def test_a_page_that_is_one_too_many_gives_way(install: Install) -> None:
    shop = install(pipelines=DEFINED, playground={"sessions": 2})
    for name in ("a", "b", "a", "c"):
        shop.keep(name, "trial", name)
    assert [shop.kept(name, "trial") for name in ("a", "b", "c")] == ["a", None, "c"]


def test_a_store_that_is_away_is_not_asked_for_every_click(install: Install, tmp_path: Path) -> None:
    store = tmp_path / "pipelines.yaml"
    store.write_text("pipelines: [{name: a, stepp: 3}]\n")
    shop = install(store={"url": str(store)})
    for _ in range(2):
        with pytest.raises(ConfigError, match="stepp"):
            shop.pipelines()
        store.write_text("pipelines: [{name: a}]\n")


def test_a_store_that_cannot_be_read_is_told(install: Install, tmp_path: Path) -> None:
    store = tmp_path / "pipelines.yaml"
    store.write_text("pipelines: [{name: a, stepp: 3}]\n")
    page = opened(install, store={"url": str(store)})
    assert "stepp" in page.warning[0].value


def test_files_are_not_models_for_everybody(install: Install) -> None:
    page = attempt(write(opened(install), "name: x\nstep_s: 300\nmodel: ./secret.onnx\n"))
    assert "playground.models" in page.error[0].value
    assert not page.metric


def test_a_rule_of_alerts_is_counted_and_taken_away(install: Install) -> None:
    page = attempt(write(opened(install), "name: shop\nstep_s: 300\nmodel: statistical\n"))
    many = int(figures(page)["alerts"])
    (level,) = [s for s in page.slider if s.label == "Score above"]
    page = shown(level.set_value(4.0).run())
    few = int(figures(page)["alerts"])
    assert few < many
    rules = next(code.value for code in page.code if "groups:" in code.value)
    assert 'last_over_time(anomaly_score{pipeline="shop",for!="anomaly_rate"}[10m]) > 4' in rules
    assert f"would have fired {few} times" in rules


def test_without_a_database_none_is_asked(install: Install) -> None:
    page = opened(install)
    (kind,) = page.button_group
    page = shown(kind.set_value("Database").run())
    assert "pull.url" in page.info[0].value
    assert next(b for b in page.button if b.label == "Try it").disabled


def test_what_people_did_is_counted(install: Install) -> None:
    shop = install(pipelines=DEFINED)
    page = shown(AppTest.from_file(str(PAGE), default_timeout=60).run())
    attempt(write(page, "name: x\nstep_s: 300\nmodel: statistical\n"))
    attempt(write(page, "name: x\nstep_s: 300\nmodel: ./secret.onnx\n"))
    trials = shop.telemetry.registry.get_sample_value
    name = "openanomaly_playground_trials_total"
    assert [trials(name, {"outcome": o}) for o in ("done", "failed", "left")] == [1, 1, 0]
