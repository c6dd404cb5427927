"""`openanomaly export`: a checkpoint becomes a model that a pipeline can name."""

from pathlib import Path

import numpy as np
import pytest

from openanomaly.adapters.engines import built_in_checkpoint, make_engines
from openanomaly.cli import main
from openanomaly.exits import CONFIG


def test_what_is_exported_forecasts_as_the_built_in_model_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.onnx"
    assert main(["export", str(built_in_checkpoint()), str(file), "--name", "mine"]) == 0
    assert str(file) in capsys.readouterr().out
    engines = make_engines([str(file), "chronos-bolt-nano"])
    assert engines[str(file)].name == "mine"
    context = np.random.default_rng(1).normal(size=(3, 100)).astype(np.float32)
    mine, built_in = (engine.predict(context, 20, (0.1, 0.5)) for engine in engines.values())
    assert (mine == built_in).all()


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["{checkpoint}", "{tmp}/mine.bin"], "must end in .onnx"),
        (["{tmp}", "{tmp}/mine.onnx"], "it has no config.json"),
        (["{checkpoint}", "{tmp}/none/mine.onnx"], "cannot write"),
    ],
)
def test_what_cannot_be_exported_says_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], error: str
) -> None:
    filled = [word.format(checkpoint=built_in_checkpoint(), tmp=tmp_path) for word in words]
    assert main(["export", *filled]) == CONFIG
    assert error in capsys.readouterr().err
