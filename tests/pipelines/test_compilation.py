"""Compiles every graph and lints the YAML for what KFP gets silently wrong."""

import re

import pytest
import yaml
from kfp import compiler, dsl

from pipelines.compilation import COMPONENTS, PIPELINES, compile_all
from tests.pipelines.graphs import described


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compiled")
    compile_all(folder)
    return folder


def _dags(spec):
    yield "root", spec["root"]["dag"]
    for name, component in spec["components"].items():
        if "dag" in component:
            yield name, component["dag"]


def lint(spec):
    """Problems of a compiled pipeline, in words."""
    problems = []
    for name, dag in _dags(spec):
        for task_name, task in dag["tasks"].items():
            place = f"{name}/{task_name}"
            condition = task.get("triggerPolicy", {}).get("condition", "")
            problems += _lint_condition(place, condition, task)
            if "parameterIterator" in task or "artifactIterator" in task:
                problems += _lint_loop(place, task)
    for name, executor in spec["deploymentSpec"]["executors"].items():
        problems += _lint_executor(name, executor["container"])
    return problems


def _lint_condition(place, condition, task):
    named = [
        value["taskOutputParameter"]["outputParameterKey"]
        for key, value in task.get("inputs", {}).get("parameters", {}).items()
        if key in condition and "taskOutputParameter" in value
    ]
    problems = [f"{place}: condition on named output {key}" for key in named if key != "Output"]
    literals = re.sub(r"\['pipelinechannel--[^']+'\]", "", condition)
    if literals.count("'") > 2 or '"' in literals:
        problems.append(f"{place}: condition on a string with a quote")
    return problems


def _lint_loop(place, task):
    return [
        f"{place}: outer output {key} inside ParallelFor; use a nested pipeline's input"
        for key, value in task.get("inputs", {}).get("parameters", {}).items()
        if "taskOutputParameter" in value
        and value["taskOutputParameter"]["outputParameterKey"]
        and key not in task.get("parameterIterator", {}).get("items", {}).get("inputParameter", "")
    ]


def _lint_executor(name, container):
    text = " ".join(container.get("command", []) + container.get("args", []))
    problems = []
    if "pip install" in text:
        problems.append(f"{name}: installs packages when it starts")
    if not container["image"].startswith("brainseg-"):
        problems.append(f"{name}: image {container['image']} is not ours")
    return problems


def test_every_pipeline_and_component_compiles(compiled):
    names = {path.relative_to(compiled).as_posix() for path in compiled.rglob("*.yaml")}
    assert names == {f"{name}.yaml" for name in PIPELINES} | {
        f"components/{name}.yaml" for name in COMPONENTS
    }


def test_other_graphs_compile_alike_and_stay_as_they_are(tmp_path):
    before = described.pipeline_spec.SerializeToString(deterministic=True)
    paths = compile_all(tmp_path, {"described": described})
    assert paths[0] == tmp_path / "described.yaml"
    assert not (tmp_path / "training.yaml").exists()
    spec = yaml.safe_load(paths[0].read_text())
    assert set(spec["root"]["dag"]["tasks"]) == {"ingest", "profile"}
    assert spec["root"]["dag"]["tasks"]["ingest"]["retryPolicy"]["maxRetryCount"] == 2
    assert lint(spec) == []
    assert described.pipeline_spec.SerializeToString(deterministic=True) == before


@pytest.mark.parametrize("name", PIPELINES)
def test_no_pipeline_holds_a_trap(compiled, name):
    assert lint(yaml.safe_load((compiled / f"{name}.yaml").read_text())) == []


@dsl.component(base_image="brainseg-data-python:0.1.0", install_kfp_package=False)
def _number(value: int) -> int:
    return value


@dsl.component(base_image="brainseg-data-python:0.1.0", install_kfp_package=False)
def _word(value: str, named: dsl.OutputPath(str)) -> str:
    return value


@dsl.component(packages_to_install=["numpy"])
def _foreign(value: int) -> int:
    return value


def _planted(tmp_path, body):
    compiler.Compiler().compile(dsl.pipeline(body), str(tmp_path / "planted.yaml"))
    return lint(yaml.safe_load((tmp_path / "planted.yaml").read_text()))


def test_lint_finds_a_condition_on_a_named_output(tmp_path):
    def graph():
        with dsl.If(_word(value="a").outputs["named"] == "a"):
            _number(value=1)

    assert any("named output named" in problem for problem in _planted(tmp_path, graph))


def test_lint_finds_a_quote_in_a_condition(tmp_path):
    def graph():
        with dsl.If(_word(value="a").outputs["Output"] == "it's"):
            _number(value=1)

    assert any("a string with a quote" in problem for problem in _planted(tmp_path, graph))


def test_lint_finds_an_outer_output_in_a_loop(tmp_path):
    def graph():
        outer = _number(value=1)
        with dsl.ParallelFor([1, 2]):
            _number(value=outer.output)

    assert any("inside ParallelFor" in problem for problem in _planted(tmp_path, graph))


def test_lint_finds_a_foreign_image_and_an_installation(tmp_path):
    def graph():
        _foreign(value=1)

    problems = _planted(tmp_path, graph)
    assert any("installs packages" in problem for problem in problems)
    assert any("is not ours" in problem for problem in problems)


def test_lint_lets_a_good_condition_pass(tmp_path):
    def graph():
        with dsl.If(_word(value="a").outputs["Output"] == "a"):
            _number(value=1)

    assert _planted(tmp_path, graph) == []
