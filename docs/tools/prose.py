"""Prose check: docstrings, help texts and Markdown follow the project's language rules.

Run by `make check`. Standard library only. `--rooms` prints the figures of each folder.
"""

import argparse
import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

CLAUSES = frozenset(("what", "how", "where", "whether", "who"))
"""Words that start a headless clause in place of a summary."""

FRAGMENTS = frozenset(
    (
        *CLAUSES,
        *("whom", "whose", "which", "when", "why", "of", "as", "to", "by", "with", "without"),
        *("if", "see", "from", "in", "on", "for", "at", "under", "over", "so", "than", "until"),
    )
)
"""Words that start a fragment in place of a noun phrase."""

GLOSSARY = {
    r"tell|tells|telling|told": "report, log, print, raise, return",
    r"mend|mends|mended|mending": "fix",
    r"anew": "recreate, again",
    r"beside": "next to, in addition to",
    r"beneath": "child of, under",
    r"door": "input validation",
    r"waste": "garbage",
    r"story|stories": "status",
    r"journal|journals": "logger",
    r"course": "schedule",
    r"share of|shares of": "fraction, probability",
    r"the rest": "remainder, the others",
    r"no number|no numbers": "NaN, infinite",
    r"hears|hear": "receive, store",
}
"""Pattern of whole words -> standard words."""

MAX_FRAGMENTS = 0.03
MAX_CLAUSES = 0.02
MAX_SENTENCE_WORDS = 35
MAX_LINE = 100

CODE = ("components", "pipelines", "docs")
MARKDOWN = ("*.md", "docs/**/*.md", "manifests/**/*.md", "components/**/*.md", "tests/**/*.md")

_GLOSSARY = {re.compile(rf"\b(?:{words})\b", re.IGNORECASE): use for words, use in GLOSSARY.items()}


@dataclass
class Figures:
    """Counts of one folder, and the texts that break a rule, each with file and line.

    Attributes:
        arguments: Number of argument descriptions and help texts.
        summaries: Number of first lines of docstrings.
        fragments: Argument descriptions that start with a fragment.
        clauses: Summaries that start with a headless clause.
        errors: Texts that are never allowed.
    """

    arguments: int = 0
    summaries: int = 0
    fragments: list[str] = field(default_factory=list)
    clauses: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def add(self, other: "Figures") -> None:
        """Adds the figures of another folder."""
        self.arguments += other.arguments
        self.summaries += other.summaries
        self.fragments += other.fragments
        self.clauses += other.clauses
        self.errors += other.errors


def check_module(text: str, place: str) -> Figures:
    """Checks the docstrings and help texts of a Python module.

    Args:
        text: Source of the module.
        place: Path for the messages.
    """
    figures = Figures()
    for line, docstring in _docstrings(ast.parse(text)):
        figures.summaries += 1
        summary = docstring.partition("\n")[0]
        if _first(summary) in CLAUSES:
            figures.clauses.append(f"{place}:{line}: {summary}")
        for offset, description in _descriptions(docstring):
            _count(figures, description, f"{place}:{line + offset}")
        for offset, one in enumerate(docstring.splitlines()):
            figures.errors += _glossary(one, f"{place}:{line + offset}")
    for line, help_text in _help_texts(ast.parse(text)):
        _count(figures, help_text, f"{place}:{line}")
        figures.errors += _glossary(help_text, f"{place}:{line}")
    return figures


def check_markdown(text: str, place: str) -> Figures:
    """Checks the sentences and lines of a Markdown page; code is left out.

    Args:
        text: Content of the page.
        place: Path for the messages.
    """
    figures = Figures()
    for number, line in _prose_lines(text):
        where = f"{place}:{number}"
        figures.errors += _glossary(_without_code(line), where)
        if len(line) > MAX_LINE and not line.lstrip().startswith(("|", "[", "![")):
            figures.errors.append(f"{where}: {len(line)} characters, at most {MAX_LINE}")
    for number, sentence in sentences(text):
        if (words := len(sentence.split())) > MAX_SENTENCE_WORDS:
            start = " ".join(sentence.split()[:8])
            figures.errors.append(
                f"{place}:{number}: {words} words in a sentence, at most {MAX_SENTENCE_WORDS}: "
                f"{start} ..."
            )
    return figures


def sentences(text: str) -> Iterator[tuple[int, str]]:
    """The sentences of a Markdown page with their line; inline code and links count as a word."""
    for number, block in _blocks(text):
        for sentence in re.split(r"(?<=[.!?:])\s+(?=[A-Z*_`\[(])", _without_code(block)):
            if sentence.strip():
                yield number, sentence.strip()


def check_tree(root: Path) -> dict[str, Figures]:
    """Checks all modules and pages of a project, by folder.

    Args:
        root: Folder of the project.
    """
    rooms: dict[str, Figures] = {}
    for top in CODE:
        for path in sorted((root / top).rglob("*.py")):
            place = path.relative_to(root)
            figures = check_module(path.read_text("utf-8"), str(place))
            rooms.setdefault(str(place.parent), Figures()).add(figures)
    pages = {path for pattern in MARKDOWN for path in root.glob(pattern)}
    for path in sorted(pages):
        place = path.relative_to(root)
        figures = check_markdown(path.read_text("utf-8"), str(place))
        rooms.setdefault(f"{place.parent} (pages)", Figures()).add(figures)
    return rooms


def main(arguments: list[str]) -> int:
    """Prints what breaks a rule.

    Returns:
        1 if a threshold is passed, otherwise 0.
    """
    parser = argparse.ArgumentParser(description="Check docstrings, help texts and Markdown.")
    parser.add_argument("root", nargs="?", type=Path, default=Path.cwd())
    parser.add_argument("--rooms", action="store_true", help="Figures of each folder.")
    parser.add_argument("--all", action="store_true", help="Every fragment and clause.")
    parser.add_argument("--report", action="store_true", help="Exit with 0 whatever is found.")
    options = parser.parse_args(arguments)
    rooms, total = check_tree(options.root), Figures()
    for name, figures in rooms.items():
        total.add(figures)
        if options.rooms:
            print(_line(name, figures))  # noqa: T201  # a command
    failed = _too_many(total.fragments, total.arguments, MAX_FRAGMENTS)
    failed_clauses = _too_many(total.clauses, total.summaries, MAX_CLAUSES)
    shown = total.fragments if failed or options.all else []
    shown = shown + (total.clauses if failed_clauses or options.all else []) + total.errors
    for line in shown if not options.rooms else []:
        print(line)  # noqa: T201
    print(_line("all", total))  # noqa: T201
    return int(bool(failed or failed_clauses or total.errors) and not options.report)


def _line(name: str, figures: Figures) -> str:
    return (
        f"{name:40} argument fragments {_percent(figures.fragments, figures.arguments)}, "
        f"summary clauses {_percent(figures.clauses, figures.summaries)}, "
        f"other errors {len(figures.errors)}"
    )


def _percent(found: list[str], of: int) -> str:
    return f"{len(found):3} of {of:4} ({100 * len(found) / max(of, 1):4.1f} %)"


def _too_many(found: list[str], of: int, most: float) -> bool:
    return len(found) > most * of


def _count(figures: Figures, description: str, place: str) -> None:
    figures.arguments += 1
    if _first(description) in FRAGMENTS:
        figures.fragments.append(f"{place}: {description}")


def _first(text: str) -> str:
    found = re.match(r"\W*([A-Za-z]+)", text)
    return found[1].lower() if found and not text.startswith("`") else ""


def _docstrings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = ast.get_docstring(node)
            if docstring:
                yield node.body[0].lineno, docstring


def _descriptions(docstring: str) -> Iterator[tuple[int, str]]:
    """The entries of the sections `Args:` and `Attributes:` with their line in the docstring."""
    section = ""
    for offset, line in enumerate(docstring.splitlines()):
        if heading := re.fullmatch(r"(\w+):", line):
            section = heading[1]
        entry = re.match(r"    (\*{0,2}\w+)(?: \([^)]*\))?: (.+)", line)
        if entry and section in ("Args", "Attributes"):
            yield offset, entry[2]


def _help_texts(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            for keyword in node.keywords:
                value = keyword.value
                if keyword.arg == "help" and isinstance(value, ast.Constant):
                    yield value.lineno, str(value.value)


def _glossary(text: str, place: str) -> Iterator[str]:
    for pattern, use in _GLOSSARY.items():
        for found in pattern.finditer(text):
            yield f'{place}: "{found[0]}" is not used; write {use}'


def _prose_lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines that are neither fenced nor indented code, nor front matter."""
    fenced = False
    for number, line in enumerate(text.splitlines(), start=1):
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif not fenced and not re.match(r" {4,}(?![-*\d])", line):
            yield number, line


def _blocks(text: str) -> Iterator[tuple[int, str]]:
    """Paragraphs, list items, headings and table cells with their first line."""
    start, lines = 0, []
    for number, line in [*_prose_lines(text), (0, "")]:
        is_new = not line.strip() or re.match(r"\s*([-*#|>!]|\d+\. )", line) is not None
        if is_new and lines:
            yield start, " ".join(lines)
            lines = []
        if line.lstrip().startswith("|"):
            yield from ((number, cell) for cell in line.strip(" |").split(" | "))
        elif line.strip():
            start = start if lines else number
            lines.append(line.strip())


def _without_code(text: str) -> str:
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
    return re.sub(r"`[^`]*`", "code", text)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
