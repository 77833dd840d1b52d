from typing import Annotated

import pytest
import typer

from components.shared.errors import UserError
from pipelines.options import read_images, read_parameters, with_options

Size = Annotated[int, typer.Option(help="How large.")]


def box(size: Size, colour: str = "red") -> str:
    return f"{colour} box of {size}"


def lid(lid: bool = True) -> bool:
    return lid


@pytest.fixture
def shown(capsys):
    """Runs a command that has the options of two functions and one of its own."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None)

    @app.command()
    @with_options(box, lid)
    def show(box: str, has_lid: bool, label: str = "none") -> None:
        """Show a box."""
        print(box, has_lid, label)

    def run(*arguments: str) -> str:
        app(arguments, standalone_mode=False)
        return capsys.readouterr().out

    return run


def test_a_command_gets_the_results_of_shared_options(shown):
    assert shown("--size", "3", "--no-lid", "--label", "toys") == "red box of 3 False toys\n"
    assert shown("--size", "3", "--colour", "blue") == "blue box of 3 True none\n"


def test_shared_options_are_checked_and_in_the_help(shown):
    with pytest.raises(typer._click.exceptions.UsageError, match="valid integer"):
        shown("--size", "large")
    out = shown("--help")
    assert "Show a box." in out
    assert "How large.  [required]" in out


def test_the_images_of_a_registry_are_checked(tmp_path):
    assert read_images("registry.example/team").registry == "registry.example/team"
    with pytest.raises(UserError, match=r"none\.json"):
        read_images("registry.example/team", tmp_path / "none.json")


def test_a_parameter_is_read_as_yaml():
    assert read_parameters(["a=1", "b=x", "c=[1]"]) == {"a": 1, "b": "x", "c": [1]}
    with pytest.raises(UserError):
        read_parameters(["=1"])
