"""What the documents show works: settings are valid, links lead somewhere."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from deploy.markdown import anchors, links
from openanomaly import cli
from openanomaly.errors import ConfigError
from openanomaly.settings import Settings
from openanomaly.settings.sources import load
from parts import debian

ROOT = Path(__file__).parents[2]
WHERE = ("*.md", "bench/**/*.md", "charts/**/*.md", "deploy/**/*.md", "docs/**/*.md", "tests/**/*.md")
DOCUMENTS = sorted(str(path.relative_to(ROOT)) for each in WHERE for path in ROOT.glob(each))


def test_the_pipelines_of_the_readme_are_valid() -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    shown = [block for block in map(yaml.safe_load, blocks) if "pipelines" in block]
    assert [pipeline.name for each in shown for pipeline in Settings.model_validate(each).pipelines] == [
        "api"
    ]


def test_the_settings_of_pull_mode_are_valid() -> None:
    (shown,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/pull-mode.md").read_text(), re.DOTALL)
    settings = Settings.model_validate(yaml.safe_load(shown))
    assert [p.query is not None for p in settings.pipelines] == [True]
    assert settings.pull.url is not None


def test_the_list_of_presets_is_the_one_that_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["preset", "list"]) == 0
    shown = f"$ openanomaly preset list\n{capsys.readouterr().out}$"
    assert shown in (ROOT / "docs/presets.md").read_text()


RECIPES = [
    (section.split("\n")[0], text)
    for section in (ROOT / "docs/recipes.md").read_text().split("\n## ")[1:]
    for text in re.findall(r"```yaml\n(.*?)```", section, re.DOTALL)
]


@pytest.mark.parametrize(("title", "text"), RECIPES, ids=[title for title, _ in RECIPES])
def test_recipes_are_valid(title: str, text: str, tmp_path: Path) -> None:
    assert text.strip(), title
    if title == "Who is told":
        (tmp_path / "rules.yaml").write_text(text)
        program = [debian.program("promtool"), "check", "rules", str(tmp_path / "rules.yaml")]
        assert subprocess.run(program, capture_output=True, check=False).returncode == 0
        return
    (tmp_path / "openanomaly.yaml").write_text(text)
    load(str(tmp_path / "openanomaly.yaml"), {}, {})


@pytest.mark.parametrize("document", [*DOCUMENTS, "charts/openanomaly/values.yaml"])
def test_variables_are_those_of_settings(document: str) -> None:
    of_tests = ("OPENANOMALY_TEST_", "OPENANOMALY_PARTS", "OPENANOMALY_COMPILED")
    named = set(re.findall(r"OPENANOMALY_[A-Z0-9_]*[A-Z0-9]", (ROOT / document).read_text()))
    unknown = [name for name in named if not name.startswith(of_tests) and "no such" in problems(name)]
    assert not unknown


def problems(variable: str) -> str:
    """What is said of a variable of that name."""
    try:
        load(None, {variable: ""}, {})
    except ConfigError as exc:
        return str(exc)
    return ""


@pytest.mark.parametrize("document", DOCUMENTS)
def test_what_is_linked_exists(document: str) -> None:
    """Files, and in documents the heading; and the programs of commands."""
    text = (ROOT / document).read_text()
    assert [link for link in links(text) if is_broken(link, ROOT / document)] == []
    programs = re.findall(r"uv run[^`\n]*? ((?:bench|tests)/[a-z0-9_/]+\.py)", text)
    assert [program for program in programs if not (ROOT / program).exists()] == []


def is_broken(link: str, document: Path, root: Path = ROOT) -> bool:
    """Whether a link of `document` leads nowhere in its repository."""
    path, _, anchor = link.partition("#")
    target = (document.parent / path).resolve() if path else document
    if not (target.is_relative_to(root) and target.exists()):
        return True
    return bool(anchor) and target.suffix == ".md" and anchor not in anchors(target.read_text())


def test_the_documents_are_all_of_them() -> None:
    listed = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert set(listed.stdout.split()) <= set(DOCUMENTS)


@pytest.mark.parametrize(
    ("link", "broken"),
    [
        ("other.md", False),
        ("nowhere.md", True),
        ("#what-it-does-not-do", False),
        ("#what-it-does", True),
        ("other.md#run---dry-run-and-_x", False),
        ("other.md#a-link-1", False),
        ("other.md#a-link-2", True),
        ("other.md#in-a-block", True),
        ("other.md#What-It-Does-Not-Do", True),
        ("../../../../../../../../../../etc", True),
    ],
)
def test_broken_links_are_found(tmp_path: Path, link: str, broken: bool) -> None:
    """Headings have the anchors that GitHub gives them."""
    document = tmp_path / "here.md"
    document.write_text("# Here\n\n## What it does *not* do!\n")
    other = (
        "# Other\n## `run --dry-run` and _x\n### A [link](http://a/#b)\n## A link\n```sh\n# in a block\n```\n"
    )
    (tmp_path / "other.md").write_text(other)
    assert is_broken(link, document, tmp_path) == broken


def test_links_are_those_that_a_reader_sees() -> None:
    text = "[a](b.md) ![c](d.png) [e](https://f/g#h) `[i](j)` [k](l.md#m) [n](#o)\n```\n[p](q)\n```\n"
    assert links(text) == ["b.md", "d.png", "l.md#m", "#o"]
