"""Pipeline definitions in the text of a YAML file: a list below `pipelines`, or one that is the file."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from openanomaly.core.documents import Places, nearest, read, tidy, wrong
from openanomaly.core.pipelines.pipeline import Pipeline
from openanomaly.errors import ConfigError

LIST = "pipelines"


@dataclass(frozen=True, slots=True)
class Defined:
    """A definition and where it stands.

    Attributes:
        place: file and line, for people.
        index: in the list; None for one that is the whole file.
    """

    pipeline: Pipeline
    place: str
    index: int | None


@dataclass(frozen=True, slots=True)
class Document:
    """What a file defines, and what is wrong in it, a line each."""

    defined: tuple[Defined, ...] = ()
    problems: tuple[str, ...] = ()


def document(text: str, file: str, beside: Collection[str] = ()) -> Document:
    """What the text of a file defines.

    Args:
        file: its name, for people.
        beside: keys that may stand beside the list. With any of them the file cannot be one definition.
    """
    places = Places(f"{file}, line 1")
    try:
        tree = read(text, file, places)
    except ConfigError as exc:
        return Document(problems=(str(exc),))
    if tree is None:
        return Document()
    if not isinstance(tree, dict):
        found = type(tree).__name__
        return Document(problems=(f"{file}, line 1: expected {LIST}, or one pipeline, found {found}",))
    if LIST in tree or beside:
        return _list(tree, places, beside)
    meant = [key for key in map(str, tree) if key not in Pipeline.model_fields and nearest(key, [LIST])]
    if meant:
        return Document(problems=(f"{places((meant[0],))}: no setting {meant[0]}; did you mean {LIST}?",))
    return _checked([(tree, None)], places)


def _list(tree: dict[Any, Any], places: Places, beside: Collection[str]) -> Document:
    unknown = []
    for key in map(str, tree):
        if key != LIST and key not in beside:
            near = nearest(key, [LIST, *beside])
            more = f"; did you mean {near}?" if near else f"; only {LIST} is expected here"
            unknown.append(f"{places((key,))}: no setting {key}{more}")
    items = tree.get(LIST)
    if items is not None and not isinstance(items, list):
        found = type(items).__name__
        unknown.append(f"{places((LIST,))}: {LIST}: expected a list of pipelines, found {found}")
        items = None
    checked = _checked([(item, i) for i, item in enumerate(items or ())], places)
    return Document(checked.defined, (*unknown, *checked.problems))


def _checked(items: list[tuple[Any, int | None]], places: Places) -> Document:
    defined, problems = [], []
    for item, index in items:
        at = () if index is None else (LIST, index)
        if isinstance(item, dict):
            tidy(Pipeline, item)
        try:
            pipeline = Pipeline.model_validate(item)
        except ValidationError as exc:
            problems += wrong(exc, Pipeline, places, at)
        else:
            place = places((*at, "name"))
            defined.append(Defined(pipeline, place, index))
    return Document(tuple(defined), tuple(problems))
