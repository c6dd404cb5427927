"""The Dockerfile as data: its stages, and what each does."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Stage:
    """One stage. `steps` are (instruction, text) in their order, those of its parents first."""

    parent: str
    steps: list[tuple[str, str]]

    def of(self, instruction: str) -> list[str]:
        return [text for name, text in self.steps if name == instruction]


def stages() -> dict[str, Stage]:
    """The stages by name."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    out: dict[str, Stage] = {}
    current = Stage("", [])
    for line in filter(str.strip, text.splitlines()):
        instruction, _, words = line.partition(" ")
        if instruction == "FROM":
            parent, _, name = words.partition(" AS ")
            inherited = out[parent].steps if parent in out else []
            current = out[name] = Stage(parent, list(inherited))
        else:
            current.steps.append((instruction, words.strip()))
    return out


def arguments() -> dict[str, str]:
    """Build arguments and their defaults."""
    found = re.findall(r'^ARG (\w+)="?([^"\n]*)"?$', (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    return {name: value for name, value in found if value}
