import pytest

from components.shared.errors import UserError
from components.shared.step import DATA_IMAGE, TRAINER_IMAGE
from pipelines.graph import check_arguments, count_steps, images, on_one_machine, step_names
from pipelines.placement.compilation import PIPELINES
from tests.pipelines import graphs

GRAPHS = [*PIPELINES.values(), graphs.described, graphs.twice, graphs.summed, graphs.guarded]


def spec_bytes(pipeline):
    return pipeline.pipeline_spec.SerializeToString(deterministic=True)


@pytest.mark.parametrize(
    ("pipeline", "steps"),
    [
        (PIPELINES["training"], 6),
        (graphs.described, 2),
        (graphs.twice, 2),
        (graphs.summed, 11),
        (graphs.guarded, 3),
    ],
)
def test_steps_are_counted_with_those_inside(pipeline, steps):
    assert count_steps(pipeline) == steps


def test_only_a_graph_with_models_needs_the_trainers_image():
    assert images(graphs.described) == {DATA_IMAGE}
    assert images(PIPELINES["training"]) == {DATA_IMAGE, TRAINER_IMAGE}


@pytest.mark.parametrize("pipeline", GRAPHS)
def test_a_copy_for_one_machine_leaves_the_pipeline_alone(pipeline):
    before = spec_bytes(pipeline)
    on_one_machine(pipeline)
    assert spec_bytes(pipeline) == before


def test_a_copy_for_one_machine_has_no_retries_and_one_round_at_a_time():
    copied = on_one_machine(graphs.summed).pipeline_spec
    dags = [copied.root.dag, *(part.dag for part in copied.components.values())]
    tasks = [task for dag in dags for task in dag.tasks.values()]
    assert not any(task.HasField("retry_policy") for task in tasks)
    loops = [task for task in tasks if task.WhichOneof("iterator")]
    assert [task.iterator_policy.parallelism_limit for task in loops] == [1, 1]
    original = graphs.summed.pipeline_spec.components.values()
    assert any(
        task.HasField("retry_policy") for part in original for task in part.dag.tasks.values()
    )


def test_arguments_are_the_pipelines_parameters():
    check_arguments(graphs.twice, {"first": "a", "second": "b", "store": "s"})
    check_arguments(graphs.summed, {})  # all have defaults
    with pytest.raises(UserError, match=r"twice has no parameter sauce; it has first, second, sto"):
        check_arguments(graphs.twice, {"first": "a", "second": "b", "store": "s", "sauce": "x"})
    with pytest.raises(UserError, match=r"twice needs the parameter second, store"):
        check_arguments(graphs.twice, {"first": "a"})


def test_steps_are_named_with_those_of_pipelines_inside():
    assert step_names(graphs.described) == {"ingest", "profile"}
    assert step_names(graphs.twice) == {"ingest", "ingest-2"}
    assert "double" in step_names(graphs.summed)
    assert not {name for name in step_names(graphs.summed) if name.startswith("for-loop")}
