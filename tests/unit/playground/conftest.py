"""A workshop with the statistical model: it loads at once, and what the page does is the same."""

from collections.abc import Callable
from typing import Any

import pytest

from openanomaly.playground import workshop
from openanomaly.playground.workshop import Workshop
from openanomaly.settings import Settings

Install = Callable[..., Workshop]


@pytest.fixture
def install() -> Install:
    """The workshop of settings."""

    def made(**settings: Any) -> Workshop:
        found = Workshop(Settings.model_validate(settings))
        workshop.install(found)
        return found

    return made
