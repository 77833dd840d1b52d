from collections.abc import Mapping
from typing import ClassVar, Literal

import pytest
from pydantic import Field, PositiveInt

from components.shared.config import Config, build_config, nearest, parse_config
from components.shared.errors import UserError


class Sizes(Config):
    width: int = Field(default=3, ge=1)
    height: float = 1.0


class Parcel(Config):
    sizes: Sizes = Sizes()
    colour: str = "brown"


class Stop(Config):
    town: str = ""
    sizes: Sizes | None = None


class Garden(Config):
    renamed: ClassVar[Mapping[str, str]] = {"hight": "height", "wide": "breadth", "dirt": "earth"}
    removed: ClassVar[Mapping[str, str]] = {"fence": "nobody climbs over; leave it out"}
    sizes: Sizes = Sizes()
    ground: Literal["earth", "sand"] = "earth"


class Transport(Config):
    kind: Literal["road", "rail+road"] = "road"
    urgent: bool = False
    spare: Sizes | None = None
    stops: tuple[Stop, ...] = Field(default=(), min_length=1)
    by_name: Mapping[str, Stop] = {}
    weights: tuple[PositiveInt, ...] | None = None


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
        ("{width: 1, width: 2}", r"sizes: .* duplicate key 'width'\s+in .*column 12"),
    ],
)
def test_reports_what_is_wrong(text, message):
    with pytest.raises(UserError, match=message):
        parse_config(Sizes, text, "sizes")


def test_names_every_problem_at_once():
    with pytest.raises(UserError, match=r"width=0.*; sizes\.depth is not a setting"):
        build_config(Sizes, {"width": 0, "depth": 1}, "sizes")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sizes: {hight: 1}", r"^garden\.sizes\.hight is now garden\.sizes\.height\. Settings"),
        ("hight: 1", r"^garden\.hight is now garden\.sizes\.height\. Settings of garden: "),
        ("wide: 1", r"^garden\.wide is not a setting"),  # there is no breadth
        ("ground: dirt", r"'earth' or 'sand' \(dirt is now earth\)$"),
        ("ground: hight", r"'earth' or 'sand'$"),
        ("fence: 1", r"^garden\.fence was removed: nobody climbs over; leave it out\. Settings"),
        ("sizes: {fence: 1}", r"^garden\.sizes\.fence was removed: nobody climbs over"),
    ],
)
def test_former_names_are_refused_with_the_present_ones(text, message):
    with pytest.raises(UserError, match=message):
        parse_config(Garden, text, "garden")


def test_settings_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        Sizes().width = 4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "sizes: {widht: 1}",
            r"^parcel\.sizes\.widht is not a setting \(nearest: parcel\.sizes\.width\)\. "
            r"Settings of parcel\.sizes: width, height$",
        ),
        ("width: 1", r"^parcel\.width is now parcel\.sizes\.width\. Settings of parcel: sizes,"),
        ("colour: 1", r"^parcel\.colour=1: Input should be a valid string$"),
        ("sizes: {zzz: 1}", r"^parcel\.sizes\.zzz is not a setting\. Settings of parcel\.sizes"),
        ("sizes: 4", r"^parcel\.sizes=4: Input should be a valid dictionary"),
    ],
)
def test_reports_what_is_wrong_inside_a_section(text, message):
    with pytest.raises(UserError, match=message):
        parse_config(Parcel, text, "parcel")


_STOP = r"Settings of transport\.{}: town, sizes$"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "spare: {widht: 1}",
            r"^transport\.spare\.widht is not a setting \(nearest: transport\.spare\.width\)\. "
            r"Settings of transport\.spare: width, height$",
        ),
        (
            "stops: [{twon: Bonn}]",  # and not: there should be at least one item
            r"^transport\.stops\.0\.twon is not a setting "
            r"\(nearest: transport\.stops\.0\.town\)\. " + _STOP.format(r"stops\.0"),
        ),
        (
            "stops: [{town: Ulm}, {twon: Bonn}]",
            r"^transport\.stops\.1\.twon is not a setting "
            r"\(nearest: transport\.stops\.1\.town\)\. " + _STOP.format(r"stops\.1"),
        ),
        ("by_name: {a: {x: 1}}", r"^transport\.by_name\.a\.x is .*" + _STOP.format(r"by_name\.a")),
        (
            "stops: [{sizes: {heigth: 1}}]",
            r"\(nearest: transport\.stops\.0\.sizes\.height\)\. "
            r"Settings of transport\.stops\.0\.sizes: width, height$",
        ),
        ("spare: {town: Ulm}", r"town is not a setting \(nearest: transport\.stops\.town\)\. "),
        ("twon: Ulm", r"twon is not a setting \(nearest: transport\.stops\.town\)\. "),
    ],
)
def test_reports_what_is_wrong_in_a_section_that_may_be_missing_or_is_one_of_many(text, message):
    with pytest.raises(UserError, match=message):
        parse_config(Transport, text, "transport")


@pytest.mark.parametrize(
    ("given", "reported"),
    [("Road", " (nearest: road)"), ("railroad", " (nearest: rail+road)"), ("sea", ""), ("1", "")],
)
def test_a_value_that_is_none_of_a_few_is_refused_with_those_and_the_nearest(given, reported):
    with pytest.raises(UserError) as caught:
        parse_config(Transport, f"kind: {given}", "transport")
    expected = "Input should be 'road' or 'rail+road'"
    assert str(caught.value).partition(": ")[2] == expected + reported


@pytest.mark.parametrize(
    ("kind", "text", "place"),
    [
        (Sizes, "width: yes", "width=True"),
        (Sizes, "height: off", "height=False"),
        (Parcel, "sizes: {width: true}", r"sizes\.width=True"),
        (Transport, "stops: [{sizes: {width: on}}]", r"stops\.0\.sizes\.width=True"),
        (Transport, "weights: [8, true]", r"weights=\[8, True\]"),
    ],
)
def test_a_truth_value_is_no_number(kind, text, place):
    with pytest.raises(UserError, match=rf"^it\.{place}: Input should be a number, not true or"):
        parse_config(kind, text, "it")


def test_what_yaml_reads_as_a_text_may_be_a_number_and_a_truth_value_stays_one():
    assert parse_config(Sizes, "height: 1e-3", "sizes") == Sizes(height=0.001)
    assert parse_config(Transport, "urgent: yes", "transport") == Transport(urgent=True)


@pytest.mark.parametrize(
    ("wanted", "found"),
    [("trian", ["train"]), ("Train", ["train"]), ("sprain", ["train"]), ("evaluation", [])],
)
def test_the_nearest_name_is_spelt_much_alike(wanted, found):
    assert nearest(wanted, ["ingest", "train", "split"]) == found
