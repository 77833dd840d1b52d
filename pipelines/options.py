"""Command line options that several commands share."""

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from components.shared.reading.sources.opening import source_forms
from pipelines.discovery import pipeline_summaries
from pipelines.extras import require_extras

if TYPE_CHECKING:  # imported by the commands that need it: `--help` must be quick
    from pipelines.placement.images import Images

_PIPELINES = pipeline_summaries()


def _names(folder: str) -> list[str]:
    return sorted(path.stem for path in (Path(__file__).parent / folder).glob("*.yaml"))


SOURCE_FORMS = f"Volumes in the layout of ingest.layout: {source_forms()}."

Source = Annotated[str, typer.Option(help=SOURCE_FORMS)]
SharedSource = Annotated[str, typer.Option(help=f"{source_forms(shared=True)}.")]
Store = Annotated[str, typer.Option(help="s3://bucket/prefix or a local folder.")]
SharedStore = Annotated[str, typer.Option(help="s3://bucket/prefix.")]
Pipeline = Annotated[
    str,
    typer.Option(help=f"One of {', '.join(_PIPELINES)}.", autocompletion=lambda: list(_PIPELINES)),
]
Preset = Annotated[
    str,
    typer.Option(
        help="Settings of all steps: a name of `brainseg presets` or a .yaml file.",
        autocompletion=lambda: _names("presets"),
    ),
]
Changes = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="STEP.KEY=VALUE", help="Change a setting; repeatable."),
]
Parameters = Annotated[
    list[str] | None,
    typer.Option(
        "--parameter",
        metavar="NAME=VALUE",
        help="Set another parameter of the pipeline; repeatable.",
    ),
]
Profile = Annotated[
    str,
    typer.Option(
        help=f"Pod settings: {', '.join(_names('profiles'))} or a .yaml file.",
        autocompletion=lambda: _names("profiles"),
    ),
]
Registry = Annotated[
    str, typer.Option(help="Registry and folder of the images, e.g. registry.example/team.")
]
Digests = Annotated[
    Path | None, typer.Option(help="JSON file of image digests, as written by `make push`.")
]
Endpoint = Annotated[
    str,
    typer.Option(
        help="Address of Kubeflow Pipelines (default: KF_PIPELINES_ENDPOINT, else the cluster "
        "of this pod or of the kubeconfig)."
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print what would be sent, and stop.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for scripts on stdout.")]

LOCAL_STORE = "brainseg-runs/store"

_WIDTH = max(map(len, _PIPELINES))
PIPELINES_HELP = "\b\nPipelines:\n" + "\n".join(
    f"  {name:{_WIDTH}}  {summary}" for name, summary in _PIPELINES.items()
)


def read_images(registry: Registry = "", digests: Digests = None) -> "Images":
    """The images of a registry, which a cluster pulls."""
    require_extras("pipelines")
    from pipelines.placement import images

    return images.read_images(registry, digests)


def read_parameters(given: list[str] | None) -> dict[str, Any]:
    """The values of `--parameter`, by the names of a pipeline's parameters."""
    from pipelines.settings.presets import parse_change

    return dict(parse_change(text, "NAME=VALUE", "--parameter") for text in given or ())


def with_options(*groups: Callable[..., Any]) -> Callable[[Callable[..., None]], Any]:
    """Adds the options of functions to a command, which gets their results as first arguments.

    Typer reads the options of a command from its signature, so the signatures are joined.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = list(inspect.signature(command).parameters.values())[len(groups) :]
        shared = [list(inspect.signature(group).parameters.values()) for group in groups]

        @functools.wraps(command)
        def run(**values: Any) -> None:  # noqa: ANN401  # whatever Typer has parsed
            results = [
                group(**{each.name: values.pop(each.name) for each in options})
                for group, options in zip(groups, shared, strict=True)
            ]
            command(*results, **values)

        joined = [*(option for options in shared for option in options), *own]
        parameters = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in joined]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {each.name: each.annotation for each in joined}
        return run

    return decorate
