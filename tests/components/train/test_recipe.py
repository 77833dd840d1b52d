import pytest

from components.shared.config import parse_config
from components.shared.errors import UserError
from components.train.recipe import Recipe


def test_defaults_are_a_valid_recipe():
    assert parse_config(Recipe, "", "train") == Recipe()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch: 3", "train.epoch is not a setting.*epochs"),
        ("epochs: 0", "train.epochs=0: Input should be greater than or equal to 1"),
        ("image_size: 100", "train.image_size=100.*multiple of 32"),
        ("precision: fp8", "train.precision='fp8'.*bf16-mixed"),
        ("{encoder_depth: 4, decoder_channels: [8, 8, 8]}", "3 widths for 4 stages"),
        ("learning_rate: .nan", "train.learning_rate=nan"),
        ("[1, 2]", "must be `key: value` pairs"),
        ("a: b: c", "not valid YAML"),
    ],
)
def test_a_wrong_setting_is_named(text, message):
    with pytest.raises(UserError, match=message):
        parse_config(Recipe, text, "train")


@pytest.mark.parametrize(
    ("epochs", "asked", "used"), [(24, 4, 4), (30, 4, 3), (7, 4, 1), (1, 4, 1), (12, 20, 12)]
)
def test_the_last_epoch_is_always_validated(epochs, asked, used):
    recipe = Recipe(epochs=epochs, validate_every_epochs=asked)
    assert recipe.validation_interval == used
