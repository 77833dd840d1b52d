"""Output of the commands; names and messages from outside cannot drive the terminal."""

import json

import typer

from components.shared.printable import printable_lines


def print_line(text: str, *, err: bool = False) -> None:
    """Prints a text that may hold names, paths or a server's answer; further lines are indented."""
    typer.echo(printable_lines(text), err=err)


def print_result(result: object, *lines: str, as_json: bool) -> None:
    """Prints a result as JSON for scripts, or lines for people."""
    if as_json:
        print_json(result)
    else:
        for line in lines:
            print_line(line)


def print_json(value: object) -> None:
    """Prints a result for scripts."""
    typer.echo(json.dumps(value, indent=2))
