"""Alert rules are what their tools accept, and each fires where it should and not where it should not.

Cases are beside the tests, `alerts/NAME.yaml` for the rules of `presets/alerts/NAME.yaml`: of each rule
series that it fires on, from which minute on (`at`, and not yet `not_at`, the one before), with the labels of
its alert; others that it fires on, with the same labels if they say nothing else; and series that it is quiet
on. promtool evaluates them.
"""

import itertools
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from parts import debian

ALERTS = Path(__file__).parents[2] / "stream" / "openanomaly" / "presets" / "alerts"
FILES = sorted(ALERTS.glob("*.yaml"))
NAMES = [file.stem for file in FILES]
SEVERITIES = {"critical", "warning", "info"}
ALTERNATIVES = {
    "AnomalousAvailability": {"daemonset", "statefulset"},
    "AnomalousGroup": {"namespace"},
    "AnomalousGroupLargePart": {"namespace"},
}
"""Labels that an alert may have in the place of those of its case."""
WIDTH = 110
"""Most characters of a line."""
Rule = dict[str, Any]


def rules(name: str) -> dict[str, Rule]:
    """The rules of a file by their names, which differ."""
    groups = yaml.safe_load((ALERTS / f"{name}.yaml").read_text())["groups"]
    every = [rule for group in groups for rule in group["rules"]]
    found = {rule["alert"]: rule for rule in every}
    assert len(found) == len(every)
    return found


def cases(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((Path(__file__).parent / "alerts" / f"{name}.yaml").read_text())
    return found


EVERY = [(name, alert) for name in NAMES for alert in rules(name)]


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_prometheus_and_vmalert_accept_the_file(file: Path) -> None:
    done = run(debian.program("promtool"), "check", "rules", "--lint-fatal", file)
    assert done.returncode == 0, done.stdout + done.stderr
    done = run(debian.program("vmalert"), "-dryRun", f"-rule={file}")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", NAMES)
def test_every_rule_has_cases_and_every_case_a_rule(name: str) -> None:
    found = cases(name)
    assert list(found) == list(rules(name))
    for alert, case in found.items():
        assert case["fires"]["series"], alert
        assert minutes(case["fires"]["not_at"]) + 1 == minutes(case["fires"]["at"]), alert
        assert case["quiet"], alert
        assert all(quiet["series"] for quiet in case["quiet"]), alert


@pytest.mark.parametrize("name", NAMES)
def test_promtool_sees_each_rule_fire_and_stay_quiet(name: str, tmp_path: Path) -> None:
    assert evaluated(name, cases(name), tmp_path) == ""


@pytest.mark.parametrize("name", NAMES)
def test_a_case_that_is_wrong_is_seen(name: str, tmp_path: Path) -> None:
    """Firing cases are said to be quiet, and the other way round: promtool has to object to all of them."""
    swapped = {
        alert: {
            "fires": {**case["quiet"][0], "labels": case["fires"]["labels"]},
            "quiet": [{k: v for k, v in case["fires"].items() if k in ("series", "at")}],
        }
        for alert, case in cases(name).items()
    }
    said = evaluated(name, swapped, tmp_path)
    for alert in swapped:
        assert len(re.findall(rf"alertname: ?{alert},", said)) == 2, alert


@pytest.mark.parametrize("alert", rules("health"))
def test_installations_are_judged_apart(alert: str, tmp_path: Path) -> None:
    """Two of one name in two namespaces: of one the series that it fires on, of the other quiet ones."""
    fires, *every = cases("health")[alert]["fires"], *cases("health")[alert]["quiet"]
    labels = {**fires["labels"], "namespace": "prod"}
    for quiet in every:
        series = _in_namespace("prod", fires["series"]) | _in_namespace("staging", quiet["series"])
        both = {"fires": {"series": series, "at": fires["at"], "labels": labels}, "quiet": []}
        assert evaluated("health", {alert: both}, tmp_path) == ""


def test_lines_of_texts_are_full() -> None:
    """A line ends where the next word would not fit, or at the end of its text."""
    for file in FILES:
        lines = file.read_text().splitlines()
        for start, line in enumerate(lines):
            if not re.fullmatch(r" +(summary|description|runbook): >-", line):
                continue
            indent = " " * (len(line) - len(line.lstrip()) + 2)
            for before, after in itertools.pairwise(lines[start + 1 :]):
                if not after.startswith(indent):
                    break
                [word] = re.findall(r"^ *((?:\{\{.*?\}\}|\S)+)", after)
                assert len(f"{before} {word}") > WIDTH, f"{file.name}: {before}"


@pytest.mark.parametrize(("name", "alert"), EVERY)
def test_every_alert_says_what_is_wrong_and_what_to_do(name: str, alert: str) -> None:
    rule = rules(name)[alert]
    assert rule["labels"]["severity"] in SEVERITIES
    assert set(rule["annotations"]) == {"summary", "description", "runbook"}
    labels = set(cases(name)[alert]["fires"]["labels"]) | ALTERNATIVES.get(alert, set())
    for text in rule["annotations"].values():
        assert len(text.split()) >= 3
        assert set(re.findall(r"\$labels\.(\w+)", text)) <= labels


def test_alerts_of_all_files_differ() -> None:
    assert len({alert for _, alert in EVERY}) == len(EVERY)


def minutes(text: str) -> int:
    return int(text.removesuffix("m"))


def evaluated(name: str, found: dict[str, Any], folder: Path) -> str:
    """What promtool has to say of the cases; empty if all is as they say."""
    stripped = yaml.safe_load((ALERTS / f"{name}.yaml").read_text())
    for group in stripped["groups"]:
        for rule in group["rules"]:
            del rule["annotations"]  # their texts would have to be in every case once more
    (folder / "rules.yaml").write_text(yaml.safe_dump(stripped))
    tests = []
    for alert, case in found.items():
        tests.append(_test(alert, case["fires"], [{"exp_labels": case["fires"]["labels"]}]))
        if "not_at" in case["fires"]:
            tests.append(_test(alert, {**case["fires"], "at": case["fires"]["not_at"]}, []))
        tests += [
            _test(alert, also, [{"exp_labels": also.get("labels", case["fires"]["labels"])}])
            for also in case.get("also_fires", ())
        ]
        tests += [_test(alert, quiet, []) for quiet in case["quiet"]]
    file = folder / "tests.yaml"
    file.write_text(yaml.safe_dump({"rule_files": ["rules.yaml"], "tests": tests}))
    done = run(debian.program("promtool"), "test", "rules", file)
    assert (done.returncode == 0) == ("FAILED" not in done.stdout + done.stderr)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def _test(alert: str, case: dict[str, Any], expected: list[Any]) -> dict[str, Any]:
    assert all(isinstance(values, str) for values in case["series"].values()), (
        "0x5 is a number in YAML: quote it"
    )
    series = [{"series": labels, "values": values} for labels, values in case["series"].items()]
    looked_at = {"eval_time": case["at"], "alertname": alert, "exp_alerts": expected}
    return {"interval": "1m", "input_series": series, "alert_rule_test": [looked_at]}


def _in_namespace(name: str, series: dict[str, str]) -> dict[str, str]:
    return {labels.replace("{", f'{{namespace="{name}",', 1): values for labels, values in series.items()}
