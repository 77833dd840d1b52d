"""MkDocs hooks: adds the generated pages, and the pages `how-to/add-*.md` to the navigation."""

import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

sys.path.insert(0, str(Path(__file__).parents[2]))  # the code from which pages are made

from docs.tools.reference import PAGES


def on_config(config: MkDocsConfig) -> None:
    """Lists the pages about extensions in the section `Extend`, by their file names."""
    docs = Path(config.docs_dir)
    (extend,) = [part["Extend"] for part in config.nav or [] if "Extend" in part]
    extend += [f"how-to/{page.name}" for page in sorted((docs / "how-to").glob("add-*.md"))]


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Adds the generated pages; nothing is written into docs/."""
    for path, make in PAGES.items():
        files.append(File.generated(config, path, content=make()))
