"""Names of models in pipelines."""

import difflib
from importlib.metadata import entry_points

BUILT_IN = "chronos-bolt-nano"
ENGINES_GROUP = "openanomaly.engines"
"""Entry points of engines of other packages: what makes a ModelEngine from `threads` and `device`."""


def check_model(name: str) -> str:
    """`name`, if it can be one: a known engine, an exported file, a checkpoint's folder or hub name.

    Raises:
        ValueError: it is none, with the nearest that is.
    """
    known = ["auto", "statistical", BUILT_IN, *(entry.name for entry in entry_points(group=ENGINES_GROUP))]
    if name in known or name.endswith(".onnx") or "/" in name.strip():
        return name
    near = difflib.get_close_matches(name, known, 1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(
        f"there is no model {name!r}{hint} (known are {', '.join(known)}, a file FILE.onnx, a checkpoint's "
        "folder ./FOLDER, and its name on the hub, OWNER/NAME)"
    )
