"""The compiled loops and their numpy twins, one after the other: what a test says must hold for both."""

from collections.abc import Iterator

import pytest

from openanomaly.core import kernels
from parts.part import missing


@pytest.fixture(params=["numpy", "compiled"], scope="module", autouse=True)
def each_way(request: pytest.FixtureRequest) -> Iterator[str]:
    """Every test of a folder whose conftest has this, with and without numba."""
    kernels.warm_up()
    is_compiled = request.param == "compiled"
    if is_compiled and not kernels.ready():
        missing("numba", "uv sync --all-extras")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "ready", lambda: is_compiled)
        patch.setattr(kernels.WINDOWS, "ready", lambda: is_compiled)
        yield request.param
