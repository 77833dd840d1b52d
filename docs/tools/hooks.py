"""MkDocs hooks: add the generated pages, and list the pages `how-to/add-*.md`."""

import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

sys.path.insert(0, str(Path(__file__).parents[2]))  # the code from which pages are made

from docs.tools.reference import PAGES

_LIST = "<!-- list of pages -->"  # in how-to/extend.md


def on_config(config: MkDocsConfig) -> None:
    """Lists the pages about extensions in the section `Extend`, by their file names."""
    (extend,) = [part["Extend"] for part in config.nav or [] if "Extend" in part]
    extend += [f"how-to/{page.name}" for page in _extensions(config)]


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Adds the generated pages; nothing is written into docs/."""
    for path, make in PAGES.items():
        files.append(File.generated(config, path, content=make()))


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lists the pages about extensions on the page `how-to/extend.md`, by their titles."""
    titles = {page.name: page.read_text("utf-8").splitlines()[0] for page in _extensions(config)}
    links = [f"- [{title.lstrip('# ')}]({name})" for name, title in titles.items()]
    return markdown.replace(_LIST, "\n".join(links))


def _extensions(config: MkDocsConfig) -> list[Path]:
    return sorted((Path(config.docs_dir) / "how-to").glob("add-*.md"))
