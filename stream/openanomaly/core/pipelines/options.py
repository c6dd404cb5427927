"""What all groups of options have in common, and labels that they may name."""

import re
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
)

_LABEL_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_OURS = ("for", "pipeline")

FROM_JSON: Final = {"from": "json"}
"""Context of a validation whose input was JSON: what is made up for in YAML is an error there."""


class Options(BaseModel):
    """A group of options: frozen, and with no more than what is defined."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_word_that_yaml_took_for_a_truth(cls, value: Any, info: ValidationInfo) -> Any:
        # `yes` and `off` are booleans in YAML, and pydantic would take true for the number 1.
        is_truth = info.field_name is not None and cls.model_fields[info.field_name].annotation is bool
        if isinstance(value, bool) and not is_truth and info.context is not FROM_JSON:
            raise ValueError(f"found {str(value).lower()}, as YAML reads yes, no, on and off; quote a word")
        return value


def _name(name: str) -> str:
    if _LABEL_NAME.fullmatch(name) is None:
        raise ValueError(f"{name!r} is no label name: letters, digits and underscores, no digit first")
    if name == "__name__":
        raise ValueError("__name__ is the name of a metric, and no label to choose here")
    return name


def _added(labels: dict[str, str]) -> dict[str, str]:
    for name in labels:
        if _name(name) in _OURS:
            raise ValueError(f"{name!r} is a label that every score has: choose another name")
    return labels


def _groups(names: tuple[str, ...]) -> tuple[str, ...]:
    for i, name in enumerate(names):
        if _name(name) == "pipeline":
            raise ValueError("'pipeline' is a label that every group has: choose another name")
        if name in names[:i]:
            raise ValueError(f"{name!r} is there twice")
    return names


_NAME_SCHEMA = {"type": "string", "pattern": f"^{_LABEL_NAME.pattern}$", "not": {"enum": ["__name__"]}}
OutputName = Literal["anomaly_score", "yhat", "yhat_lower", "yhat_upper", "y"]
"""A time series that we write of each score."""
LabelName = Annotated[str, AfterValidator(_name), WithJsonSchema(_NAME_SCHEMA)]
GroupLabels = Annotated[
    tuple[Annotated[str, WithJsonSchema({**_NAME_SCHEMA, "not": {"enum": ["__name__", "pipeline"]}})], ...],
    Field(max_length=16, json_schema_extra={"uniqueItems": True}),
    AfterValidator(_groups),
]
"""Labels that series of a group have in common."""
AddedLabels = Annotated[
    dict[str, str],
    AfterValidator(_added),
    WithJsonSchema(
        {
            "type": "object",
            "additionalProperties": {"type": "string"},
            "propertyNames": {**_NAME_SCHEMA, "not": {"enum": ["__name__", *_OURS]}},
        }
    ),
]
"""Labels that our output gets besides those of its series."""
