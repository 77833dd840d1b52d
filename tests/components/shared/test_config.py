import pytest
from pydantic import Field

from components.shared.config import Config, build_config, parse_config
from components.shared.errors import UserError


class Sizes(Config):
    width: int = Field(default=3, ge=1)
    height: float = 1.0


class Parcel(Config):
    sizes: Sizes = Sizes()
    colour: str = "brown"


def test_reads_yaml_and_json_and_fills_in_defaults():
    assert parse_config(Sizes, "width: 5", "sizes") == Sizes(width=5)
    assert parse_config(Sizes, '{"height": 2}', "sizes") == Sizes(height=2)
    assert parse_config(Sizes, "", "sizes") == Sizes()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("depth: 1", r"sizes\.depth is not a setting\. Settings of sizes: width, height"),
        ("width: 0", r"sizes\.width=0: Input should be greater than or equal to 1"),
        ("width: wide", r"sizes\.width='wide': Input should be a valid integer"),
        ("height: .nan", r"sizes\.height=nan: Input should be a finite number"),
        ("[1, 2]", r"sizes: the settings must be `key: value` pairs, not '\[1, 2\]'"),
        ("a: b: c", r"sizes: the settings are not valid YAML"),
    ],
)
def test_tells_what_is_wrong(text, message):
    with pytest.raises(UserError, match=message):
        parse_config(Sizes, text, "sizes")


def test_names_every_problem_at_once():
    with pytest.raises(UserError, match=r"width=0.*; sizes\.depth is not a setting"):
        build_config(Sizes, {"width": 0, "depth": 1}, "sizes")


def test_settings_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        Sizes().width = 4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "sizes: {widht: 1}",
            r"^parcel\.sizes\.widht is not a setting; did you mean parcel\.sizes\.width\?\. "
            r"Settings of parcel\.sizes: width, height$",
        ),
        ("width: 1", r"^parcel\.width is now parcel\.sizes\.width\. Settings of parcel: sizes,"),
        ("colour: 1", r"^parcel\.colour=1: Input should be a valid string$"),
        ("sizes: {zzz: 1}", r"^parcel\.sizes\.zzz is not a setting\. Settings of parcel\.sizes"),
        ("sizes: 4", r"^parcel\.sizes=4: Input should be a valid dictionary"),
    ],
)
def test_tells_what_is_wrong_inside_a_section(text, message):
    with pytest.raises(UserError, match=message):
        parse_config(Parcel, text, "parcel")
