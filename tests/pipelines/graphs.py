"""Small graphs of the tests' own, to be run as the product's are."""

from typing import NamedTuple

from kfp import dsl

from components.ingest.component import ingest
from components.profile.component import profile
from components.shared.step import data_step


class DescribedOutputs(NamedTuple):
    dataset_id: str
    manifest: dsl.Dataset
    profile: dsl.Artifact
    profile_report: dsl.HTML


@dsl.pipeline(name="described")
def described(source: str, store: str, profile_settings: str = "") -> DescribedOutputs:
    """Only the first two steps."""
    ingested = ingest(source=source, store=store, settings="")
    profiled = profile(
        store=store,
        dataset_id=ingested.outputs["Output"],
        manifest=ingested.outputs["manifest"],
        ingest_account=ingested.outputs["ingest_account"],
        settings=profile_settings,
    )
    ingested.set_retry(num_retries=2)
    profiled.set_retry(num_retries=2)
    return DescribedOutputs(
        dataset_id=ingested.outputs["Output"],
        manifest=ingested.outputs["manifest"],
        profile=profiled.outputs["profile"],
        profile_report=profiled.outputs["report"],
    )


class TwiceOutputs(NamedTuple):
    first_id: str
    second_id: str


@dsl.pipeline(name="twice")
def twice(first: str, second: str, store: str) -> TwiceOutputs:
    """One step, used two times."""
    one = ingest(source=first, store=store, settings="")
    two = ingest(source=second, store=store, settings="").after(one)
    return TwiceOutputs(first_id=one.outputs["Output"], second_id=two.outputs["Output"])


@data_step
def double(value: int, page: dsl.Output[dsl.HTML]) -> int:
    from pathlib import Path

    Path(page.path).write_text(f"<p>{value}</p>")
    return 2 * value


@data_step
def add(values: list, table: dsl.Output[dsl.Dataset], numbers: dsl.Output[dsl.Metrics]) -> int:
    from pathlib import Path

    Path(table.path).write_text("value\n" + "\n".join(map(str, values)))
    numbers.log_metric("most", max(values))
    return int(sum(values))


@dsl.pipeline(name="quadruple")
def quadruple(value: int) -> int:
    once = double(value=value)
    return double(value=once.outputs["Output"]).set_retry(num_retries=3).outputs["Output"]


class SummedOutputs(NamedTuple):
    total: int
    table: dsl.Dataset
    numbers: dsl.Metrics
    pages: list[dsl.HTML]


@dsl.pipeline(name="summed")
def summed(value: int = 5) -> SummedOutputs:
    """Pipelines inside, and two loops: eight steps and a sum."""
    with dsl.ParallelFor([1, 2, 3]) as item:
        inside = quadruple(value=item)
    with dsl.ParallelFor([10, 20]) as item:
        doubled = double(value=item)
    added = add(values=dsl.Collected(inside.output)).after(quadruple(value=value))
    return SummedOutputs(
        total=added.outputs["Output"],
        table=added.outputs["table"],
        numbers=added.outputs["numbers"],
        pages=dsl.Collected(doubled.outputs["page"]),
    )


@data_step
def say(text: str) -> str:
    import sys

    print(text, file=sys.stderr)
    return text


@data_step
def crash() -> None:
    raise ZeroDivisionError


@dsl.pipeline(name="talking")
def talking(text: str) -> str:
    """A step that prints a text, returns it, and one that crashes."""
    said = say(text=text)
    crash().after(said)
    return said.output


@data_step
def tell(status: dsl.PipelineTaskFinalStatus):
    print(status.state)


@dsl.pipeline(name="guarded")
def guarded(value: int):
    """A condition, a step that crashes, and one that runs however the others end."""
    with dsl.ExitHandler(tell()):
        doubled = double(value=value)
        with dsl.If(doubled.outputs["Output"] > 5):
            crash()
