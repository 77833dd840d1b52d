"""The pages about losses, optimizers and recipe settings, followed to the letter."""

import re
import sys
from pathlib import Path

import pytest
import torch
import yaml

from components.train import recipe
from components.train.optimization import losses
from pipelines.settings.presets import load_preset, show_preset

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r'^```(\w+)(?: title="([^"\n]*)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)


@pytest.fixture
def follow(tmp_path, monkeypatch):
    """Writes a page's files and runs its commands; returns what they printed and the blocks."""
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)

    def run(page):
        shown, titled = {}, {}
        text = (ROOT / "docs/how-to" / page).read_text()
        for language, title, block in (match.groups() for match in BLOCK.finditer(text)):
            if language in ("python", "yaml"):
                Path(title).write_text(block)
                titled[title] = block
            for line in block.splitlines() if language == "bash" else ():
                if line == 'export PYTHONPATH="$PWD:$PYTHONPATH"':
                    monkeypatch.syspath_prepend(str(tmp_path))
                else:
                    command, file = line.rsplit(maxsplit=1)
                    assert command == "brainseg presets show"
                    shown[file] = yaml.safe_load(show_preset(file))["train"]
        return shown, titled

    yield run
    for name in {"mine", "mylosses"} & set(sys.modules) - before:
        del sys.modules[name]


def test_a_loss_is_added_in_one_place(follow, monkeypatch):
    shown, blocks = follow("add-a-loss.md")
    assert shown["tversky.yaml"]["optimizer"]["loss"]["alpha"] == 0.3
    assert [term["name"] for term in shown["sum.yaml"]["optimizer"]["loss"][1:]] == [
        "dice",
        "FocalLoss",
    ]
    assert shown["mine.yaml"]["optimizer"]["loss"][1]["name"] == "mylosses:PowerLoss"
    own = dict(vars(losses))
    exec(blocks["losses.py"], own)
    monkeypatch.setattr(losses, "LOSSES", {**losses.LOSSES, "jaccard": own["soft_jaccard"]})
    settings = recipe.OptimizerSettings(loss="bce+jaccard")
    logits, masks = torch.linspace(-3, 3, 64).view(1, 1, 8, 8), torch.ones(1, 1, 8, 8)
    loss = losses.BatchLoss(settings.loss)(logits, masks)
    bce = losses.BatchLoss([recipe.Loss(name="bce")])(logits, masks)
    assert float(loss) == pytest.approx(float(bce + 1 - logits.sigmoid().mean()))
    quick = load_preset("quick", ["train.optimizer.loss=bce+jaccard"])["train"]
    assert quick.optimizer.loss == settings.loss


def test_an_optimizer_a_schedule_and_a_setting_are_added_in_one_place(follow):
    shown, blocks = follow("add-an-optimizer.md")
    assert shown["sgd.yaml"]["optimizer"]["method"]["momentum"] == 0.9
    assert shown["polynomial.yaml"]["schedule"]["lr_schedule"]["power"] == 0.9
    assert shown["mine.yaml"]["optimizer"]["method"] == "mine:SignDescent"
    assert shown["mine.yaml"]["schedule"]["lr_schedule"]["factor"] == 0.2
    source = Path(recipe.__file__).read_text()
    line = "    ema_decay: float | None"
    changed = source.replace(line, blocks["recipe.py"] + line)
    assert changed.count(blocks["recipe.py"]) == 1
    module = {"__name__": recipe.__name__}
    exec(changed, module)
    found = module["Recipe"].model_validate({"optimizer": {"warm_restarts": 2}})
    assert found.optimizer.warm_restarts == 2
