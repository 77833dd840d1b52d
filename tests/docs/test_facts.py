"""Commands, settings, metrics, variables and files that the pages name exist."""

import re
import shlex
from itertools import pairwise
from pathlib import Path

import pytest
import typer

from components.predict.settings import PredictSettings
from components.shared import process
from components.shared.config import build_config
from components.shared.scoring.metrics import BASELINE_SUFFIX, HIGH_SUFFIX, LOW_SUFFIX, METRICS
from components.train import exit_codes
from docs.tools import reference
from pipelines import cli
from pipelines.catalogue import COMPONENTS, PIPELINES
from pipelines.settings.presets import (
    STEPS,
    changed,
    load_preset,
    load_recipes,
    parse_change,
    preset_names,
)

PROJECT = Path(__file__).parents[2]
OUTSIDE = [
    PROJECT / name
    for name in (
        *("README.md", "CONTRIBUTING.md", "SECURITY.md", "manifests/README.md"),
        *("components/README.md", "pipelines/presets/README.md"),
    )
]
PAGES = [*OUTSIDE, *sorted((PROJECT / "docs").rglob("*.md"))]
TEXTS = {path.relative_to(PROJECT).as_posix(): path.read_text("utf-8") for path in PAGES}


def commands(text):
    """The words of each `brainseg` command in the code blocks of a page."""
    for line in text.replace("\\\n", " ").splitlines():
        if re.match(r"    \s*brainseg (?!\.\.\.)", line):
            yield shlex.split(line, comments=True)[1:]


ALL_COMMANDS = [(page, words) for page, text in TEXTS.items() for words in commands(text)]


def test_commands_are_found_on_the_pages():
    assert len(ALL_COMMANDS) > 25


@pytest.mark.parametrize(("page", "words"), ALL_COMMANDS)
def test_a_command_has_the_options_that_a_page_gives_it(page, words):
    found = typer.main.get_command(cli.app)
    for word in words:
        if word in getattr(found, "commands", {}):
            found = found.commands[word]
    known = {name for each in found.params for name in (*each.opts, *each.secondary_opts)}
    given = {word for word in words if word.startswith("--")} - {"--help", "--version"}
    assert found.name != "brainseg" or words[0].startswith("--")
    assert given <= known


def changes(page):
    """The preset and the changes of each command on a page, and of each change in its text."""
    for words in commands(TEXTS[page]):
        if words[0] == "predict":  # has settings of its own
            continue
        named = dict(pairwise(words))
        preset = named.get("--preset", "quick")
        yield (
            preset if preset in preset_names() else "quick",
            [change for option, change in pairwise(words) if option == "--set"],
        )
    for change in re.findall(r"`--set ([a-z_]+\.[\w.]+=[^\s`]+)", TEXTS[page]):
        yield "quick", [change] if not re.search("=[A-Z_]+$", change) else []


@pytest.mark.parametrize("page", TEXTS)
def test_changes_of_settings_on_a_page_are_accepted(page):
    for preset, given in changes(page):
        labels = {change.split(".")[1] for change in given if change.startswith("recipes.")}
        assert all(f"\n      {label}:" in TEXTS[page] for label in labels)
        form = [re.sub(r"^recipes\.\w+", "train", change) for change in given]
        load_preset(preset, form)


def test_changes_of_a_prediction_are_accepted():
    for _, words in ALL_COMMANDS:
        found = [change for option, change in pairwise(words) if option == "--set"]
        values = {}
        for change in found if words[0] == "predict" else ():
            key, value = parse_change(change, "KEY=VALUE")
            values = changed(values, key.split("."), value, change)
        build_config(PredictSettings, values, "predict")


@pytest.mark.parametrize("page", TEXTS)
def test_settings_that_a_page_names_exist(page):
    known = {f"{step}.{path}" for step, kind in STEPS.items() for path in paths(kind)}
    named = re.findall(rf"`((?:{'|'.join(STEPS)})\.[a-z_.]+?)(?:=[^`]*)?`", TEXTS[page])
    ours = {name for name in named if not name.endswith((".py", ".md", ".html", ".csv", ".json"))}
    assert ours <= known


def paths(kind):
    for name, field in kind.model_fields.items():
        yield name
        for section in reference.sections_of(field.annotation):
            yield from (f"{name}.{path}" for path in paths(section))


def test_metrics_that_a_page_names_exist_and_all_headlines_are_in_the_reference():
    names = {metric.name for metric in METRICS}
    names |= {name + suffix for name in names for suffix in (LOW_SUFFIX, HIGH_SUFFIX)}
    for page, text in TEXTS.items():
        if page.startswith("docs/how-to/add-"):
            continue  # what a reader adds
        named = re.findall(r"`(\w+_(?:dice|mean|median|ci_low|ci_high|baseline))`", text)
        assert set(named) - {"NAME" + BASELINE_SUFFIX} <= names, page
    table = reference.metrics()
    assert all(f"| `{metric.name}` |" in table for metric in METRICS if metric.headline)


def test_steps_and_pipelines_are_in_the_reference():
    page = TEXTS["docs/reference/steps.md"]
    steps, pipelines = page.split("## Pipelines")
    assert set(re.findall(r"^\| (\w+) .*?\|", steps, re.MULTILINE)) - {"step"} == {*COMPONENTS}
    assert set(re.findall(r"^\| `([\w-]+)` \|", pipelines.split("##")[0], re.MULTILINE)) == {
        *PIPELINES
    }


def test_the_rooms_of_shared_are_in_the_reference():
    page = TEXTS["docs/reference/steps.md"]
    shared = {path.stem for path in (PROJECT / "components/shared").iterdir()} - {"__init__"}
    assert [name for name in shared if f"`{name}`" not in page and name[:2] != "__"] == []


def test_presets_are_in_the_guide():
    guide = TEXTS["docs/how-to/own-data.md"]
    assert set(re.findall(r"^\| `(\w+)` \|", guide, re.MULTILINE)) >= set(preset_names())


def test_the_recipes_of_the_guide_are_recipes(tmp_path):
    example = TEXTS["docs/how-to/comparison.md"].split("# mine.yaml\n")[1].split("\n\n")[0]
    file = tmp_path / "mine.yaml"
    file.write_text("\n".join(line[4:] for line in example.splitlines()))
    assert list(load_recipes(str(file))) == ["base", "wider", "paper"]


def test_variables_of_ours_are_in_the_reference():
    page = TEXTS["docs/reference/environment-variables.md"]
    code = [
        path.read_text("utf-8")
        for top in ("components", "pipelines")
        for path in (PROJECT / top).rglob("*.py")
    ]
    ours = set(re.findall(r'"(BRAINSEG_[A-Z_]+[A-Z])"', "".join(code)))
    assert len(ours) > 5
    assert [name for name in sorted(ours) if f"`{name}`" not in page] == []


def test_exit_codes_are_in_the_reference():
    page = TEXTS["docs/reference/exit-codes.md"]
    for code, word in (
        (process.MISTAKE_STATUS, process.ERROR_PREFIX),
        (process.OUTAGE_STATUS, process.OUTAGE_PREFIX),
        (exit_codes.LOST_STATUS, "processes"),
        (exit_codes.PREEMPTED_STATUS, "SIGTERM"),
    ):
        (row,) = [line for line in page.splitlines() if line.startswith(f"| {code} |")]
        assert word in row


def test_the_readme_is_short():
    lines = TEXTS["README.md"].splitlines()
    assert len(lines) <= 120


@pytest.mark.parametrize(
    "path", [path for path in OUTSIDE if path.is_file()], ids=lambda path: path.name
)
def test_links_of_pages_outside_the_site_lead_somewhere(path):
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", path.read_text("utf-8"))
    generated = {f"docs/{page}" for page in reference.PAGES}
    assert links
    found = {link: (path.parent / link).resolve() for link in links}
    missing = [link for link, target in found.items() if not target.exists()]
    assert [link for link in missing if link not in generated] == []
