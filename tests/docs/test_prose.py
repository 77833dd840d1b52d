"""The prose check refuses what the language rules refuse, with file and line."""

import pytest

from docs.tools import prose

MODULE = '''"""{summary}

More text.
"""

import typer


class Settings:
    """Settings of a step.

    Attributes:
        epochs: {attribute}
            and a second line.
    """


def train(epochs: int = typer.Option(1, help="{help}")) -> None:
    """Train a model.

    Args:
        epochs: {argument}

    Raises:
        UserError: If it cannot.
    """
'''
GOOD = {
    "summary": "Settings of the training step.",
    "attribute": "Number of epochs,",
    "help": "Number of epochs.",
    "argument": "Number of epochs.",
}


def module(**changes):
    return prose.check_module(MODULE.format(**GOOD | changes), "train.py")


def errors(text):
    return prose.check_markdown(text, "page.md").errors


def test_good_docstrings_are_counted_and_not_refused():
    figures = module()
    assert (figures.arguments, figures.summaries) == (3, 3)
    assert (figures.fragments, figures.clauses, figures.errors) == ([], [], [])


@pytest.mark.parametrize("word", ["What", "How", "Where", "Whether", "Who"])
def test_a_summary_that_starts_with_a_clause_is_found(word):
    summary = f"{word} decides about a step."
    assert module(summary=summary).clauses == [f"train.py:1: {summary}"]


@pytest.mark.parametrize("field", ["attribute", "argument", "help"])
@pytest.mark.parametrize("word", ["Of", "As", "What", "Where", "How", "Whether", "To", "By", "If"])
def test_a_description_that_starts_with_a_fragment_is_found(field, word):
    (found,) = module(**{field: f"{word} the run"}).fragments
    lines = {"attribute": 13, "argument": 22, "help": 18}
    assert found == f"train.py:{lines[field]}: {word} the run"


def test_a_name_in_code_starts_no_fragment():
    assert module(argument="`of` is a name.").fragments == []


@pytest.mark.parametrize("word", ["told", "Tells", "mend", "anew", "beside", "waste", "share of"])
def test_words_of_the_glossary_are_refused(word):
    (found,) = module(summary=f"A step {word} a number.").errors
    assert found.startswith(f'train.py:1: "{word}" is not used; write ')
    (found,) = errors(f"# Page\n\nA step {word} a number.\n")
    assert found.startswith(f'page.md:3: "{word}" is not used; write ')


def test_parts_of_words_and_code_are_no_words():
    assert errors("The shared folder, `tell`, besides a foretold wastebasket.\n") == []
    assert errors("Run:\n\n    tell\n\n```\ntold\n```\n") == []


def test_a_long_sentence_is_refused_and_a_list_of_short_ones_is_not():
    words = "\n".join(["word word word word word word word word word"] * 4)
    assert errors(f"{words}\n")[0].startswith("page.md:1: 36 words in a sentence, at most 35")
    assert errors(f"| a | {' '.join(['word'] * 36)}. |\n") != []
    short = words.replace("word\nword", "word.\nWord")
    assert errors(f"{short}\n") == []
    assert errors("".join(f"- {line}\n" for line in words.splitlines())) == []


def test_a_long_line_is_refused():
    line = "Short words and many of them. " * 4
    assert errors(f"{line}\n") == [f"page.md:1: {len(line)} characters, at most 100"]


def tree(folder, fragments, of):
    arguments = [f"    a{number}: Number." for number in range(of - fragments)]
    arguments += [f"    b{number}: Of it." for number in range(fragments)]
    body = "\n".join(arguments)
    (folder / "components").mkdir()
    (folder / "components/train.py").write_text(f'"""Training.\n\nArgs:\n{body}\n"""\n')
    return folder


@pytest.mark.parametrize(("fragments", "status"), [(3, 0), (4, 1)])
def test_the_command_fails_above_the_threshold(tmp_path, capsys, fragments, status):
    folder = str(tree(tmp_path, fragments, of=100))
    assert prose.main([folder]) == status
    shown = capsys.readouterr().out
    assert f"argument fragments   {fragments} of  100" in shown
    assert ("components/train.py:100: Of it." in shown) == bool(status)
    assert prose.main([folder, "--report"]) == 0


def test_the_command_fails_at_one_refused_word(tmp_path, capsys):
    (tmp_path / "README.md").write_text("A step tells a number.\n")
    assert prose.main([str(tmp_path)]) == 1
    assert 'README.md:1: "tells" is not used' in capsys.readouterr().out
