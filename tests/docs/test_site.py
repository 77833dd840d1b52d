"""The documentation site builds strictly, offline, and its reference says what the code says."""

import re
import shutil
from pathlib import Path

import pytest
from mkdocs.commands.build import build
from mkdocs.config import load_config
from mkdocs.exceptions import Abort

from components.shared.config import Config
from docs.tools import reference

PROJECT = Path(__file__).parents[2]


def site(project, folder):
    build(load_config(str(project / "mkdocs.yml"), strict=True, site_dir=str(folder)))
    return folder


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    return site(PROJECT, tmp_path_factory.mktemp("site"))


def test_the_generated_pages_are_in_the_site(pages):
    for path in reference.PAGES:
        assert (pages / path).with_suffix(".html").is_file()
    assert 'id="brainseg-schedule-create"' in (pages / "reference/commands.html").read_text()
    assert 'id="trainnetwork"' in (pages / "reference/settings.html").read_text()


def test_every_page_about_extensions_is_listed(pages):
    index, extend = (pages / "index.html").read_text(), (pages / "how-to/extend.html").read_text()
    article = extend.split("<article")[1]
    for page in (PROJECT / "docs/how-to").glob("add-*.md"):
        assert f"how-to/{page.stem}.html" in index
        assert f'href="{page.stem}.html"' in article


def test_the_site_loads_nothing_from_the_network(pages):
    loaded = re.compile(
        r'<(?:script|img|iframe|link rel="(?:stylesheet|preconnect)")[^>]*"(https?:)?//'
    )
    for page in pages.rglob("*.html"):
        assert not loaded.search(page.read_text("utf-8")), page


@pytest.mark.parametrize("link", ["limits.md#none", "none.md"])
def test_a_broken_link_or_anchor_fails(tmp_path, link):
    for name in ("docs", "components", "pipelines"):
        shutil.copytree(PROJECT / name, tmp_path / name)
    shutil.copy(PROJECT / "mkdocs.yml", tmp_path)
    with (tmp_path / "docs/index.md").open("a") as page:
        page.write(f"\n[broken]({link})\n")
    with pytest.raises(Abort, match="strict"):
        site(tmp_path, tmp_path / "site")


class Section(Config):
    """A section.

    Attributes:
        width: Pixels of
            one side.
    """

    width: int = 3


class Settings(Config):
    """Settings.

    More.

    Attributes:
        share: Fraction of slices; `None` takes all.
        section: Inner settings.
    """

    share: float | None = None
    section: Section = Section()


def test_descriptions_of_attributes_are_read_from_the_docstring():
    assert reference.attribute_docs(Section) == {"width": "Pixels of one side."}
    assert reference.attribute_docs(Settings) == {
        "share": "Fraction of slices; `None` takes all.",
        "section": "Inner settings.",
    }


def test_every_setting_has_a_description():
    page = reference.settings() + reference.pod_profiles()
    rows = re.findall(r"^\| `(\w+)` \|.*\| (.*) \|$", page, re.MULTILINE)
    assert len(rows) > 100
    kubernetes = {"key", "operator", "value", "values", "effect"}  # its own fields
    assert {name for name, meaning in rows if not meaning} <= kubernetes
