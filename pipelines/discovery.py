"""Names and summaries of the pipelines, read from their source: importing KFP takes seconds."""

import ast
from collections.abc import Iterator
from pathlib import Path

_FOLDER = Path(__file__).parent


def pipeline_summaries() -> dict[str, str]:
    """The first line of each pipeline's docstring, by the name of the pipeline.

    A pipeline is a function with `@dsl.pipeline` in the module of its name; underscores become
    hyphens: `pipelines/cross_validation.py` defines `cross-validation`.
    """
    return dict(_summaries())


def _summaries() -> Iterator[tuple[str, str]]:
    for path in sorted(_FOLDER.glob("*.py")):
        source = path.read_text()
        if "\n@dsl.pipeline(" not in source:
            continue
        for node in ast.parse(source).body:
            if isinstance(node, ast.FunctionDef) and node.name == path.stem:
                summary = (ast.get_docstring(node) or "").partition("\n")[0]
                yield path.stem.replace("_", "-"), summary
