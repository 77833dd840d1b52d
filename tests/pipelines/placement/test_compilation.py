"""Compiles every graph and lints the YAML for what KFP gets silently wrong."""

import functools

import pytest
import yaml
from kfp import compiler, dsl

from components.shared.errors import UserError
from pipelines.placement.compilation import COMPONENTS, PIPELINES, compile_all
from pipelines.placement.images import Images
from pipelines.placement.placing import placed
from pipelines.placement.profiles import load_profile, profile_names
from tests.pipelines.graphs import described
from tests.pipelines.lint import lint, lint_pods, shared_memory_bytes

DIGEST = f"sha256:{'a' * 64}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compiled")
    compile_all(folder)
    return folder


@pytest.fixture(scope="module")
def compiled_for(tmp_path_factory):
    """Compiles everything with a profile, once for each."""

    @functools.cache
    def compiled_for(profile):
        folder = tmp_path_factory.mktemp(profile)
        compile_all(folder, profile=load_profile(profile))
        return folder

    return compiled_for


def documents(path):
    return list(yaml.safe_load_all(path.read_text()))


def test_every_pipeline_and_component_compiles(folder):
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*.yaml")}
    assert names == {f"{name}.yaml" for name in PIPELINES} | {
        f"components/{name}.yaml" for name in COMPONENTS
    }


def test_other_graphs_compile_alike_and_stay_as_they_are(tmp_path):
    before = described.pipeline_spec.SerializeToString(deterministic=True)
    paths = compile_all(tmp_path, {"described": described})
    assert paths[0] == tmp_path / "described.yaml"
    assert not (tmp_path / "training.yaml").exists()
    spec, _ = documents(paths[0])
    assert set(spec["root"]["dag"]["tasks"]) == {"ingest", "profile"}
    assert lint(spec) == []
    assert described.pipeline_spec.SerializeToString(deterministic=True) == before


@pytest.mark.parametrize("name", PIPELINES)
def test_no_pipeline_holds_a_trap(folder, name):
    spec, _ = documents(folder / f"{name}.yaml")
    assert lint(spec) == []


@pytest.mark.parametrize("profile", profile_names())
@pytest.mark.parametrize("name", PIPELINES)
def test_no_pipeline_makes_pods_that_fall_into_a_trap(compiled_for, name, profile):
    spec, platform = documents(compiled_for(profile) / f"{name}.yaml")
    assert lint_pods(spec, platform) == []
    pods = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    trained = [pod for name, pod in pods.items() if name == "exec-train"]
    assert all(shared_memory_bytes(pod) > 64 * 2**20 for pod in trained)
    assert trained or name in ("inference", "ingestion", "radiogenomics")


def test_without_a_word_no_pod_asks_for_a_gpu(folder):
    spec, _ = documents(folder / "training.yaml")
    executors = spec["deploymentSpec"]["executors"].values()
    assert not any("accelerator" in each["container"]["resources"] for each in executors)


def test_only_training_asks_for_the_gpu_of_the_gpu_profile(compiled_for):
    spec, _ = documents(compiled_for("gpu") / "training.yaml")
    executors = spec["deploymentSpec"]["executors"]
    asking = {
        name: each["container"]["resources"]["accelerator"]
        for name, each in executors.items()
        if "accelerator" in each["container"]["resources"]
    }
    assert asking == {"exec-train": {"resourceType": "nvidia.com/gpu", "resourceCount": "1"}}


def test_images_get_their_registry_and_digest_in_pipelines_and_components(tmp_path):
    digests = {"brainseg-data-python": DIGEST, "brainseg-trainer-python": DIGEST}
    paths = compile_all(tmp_path, images=Images(registry="r.example/team", digests=digests))
    for path in paths:
        for executor in documents(path)[0]["deploymentSpec"]["executors"].values():
            kind = "trainer" if "trainer" in executor["container"]["image"] else "data"
            assert (
                executor["container"]["image"] == f"r.example/team/brainseg-{kind}-python@{DIGEST}"
            )


def test_a_pipeline_with_an_image_that_was_not_pushed_is_not_compiled():
    images = Images(registry="r.example", digests={"brainseg-data-python": DIGEST})
    with pytest.raises(UserError, match=r"not of brainseg-trainer-python.*make push"):
        placed(PIPELINES["training"], load_profile("cpu"), images)


def test_the_same_graph_compiles_to_the_same_bytes(folder, tmp_path):
    for path in compile_all(tmp_path):
        assert path.read_bytes() == (folder / path.relative_to(tmp_path)).read_bytes()


def test_lint_finds_what_kfp_leaves_out_of_pods():
    spec = {
        "root": {"dag": {"tasks": {"a": {
            "componentRef": {"name": "comp-a"},
            "retryPolicy": {"maxRetryCount": 2, "backoffMaxDuration": "3600s"},
        }}}},
        "components": {"comp-a": {"executorLabel": "exec-a"}},
        "deploymentSpec": {"executors": {
            "exec-a": {"container": {}},
            "exec-b": {"container": {}},
        }},
    }  # fmt: skip
    names = ("AWS_ENDPOINT_URL", "MLFLOW_TRACKING_URI")
    secret = {"keyToEnv": [{"secretKey": "k", "envVar": name} for name in names]}
    pod = {
        "activeDeadlineSeconds": "1800",
        "secretAsEnv": [secret],
        "emptyDirMounts": [{"mountPath": "/cache"}],
    }
    platform = {"platforms": {"kubernetes": {"deploymentSpec": {"executors": {"exec-a": pod}}}}}
    assert lint_pods(spec, platform) == [
        "exec-b: no pod settings",
        'exec-a: no numbered user but root: "restricted" refuses the pod',
        "exec-a: /tmp is no volume",
        "exec-a: /cache has no size and may fill the node",
        "exec-a: AWS_ENDPOINT_URL would redirect KFP's own artifacts",
        "exec-a: MLFLOW_TRACKING_URI would be set twice where KFP's MLflow plugin is on",
        "exec-a: no resources: a quota refuses it",
        "root/a: the last attempts lie outside of the retry window",
    ]


def test_lint_finds_a_cache_behind_a_step_that_always_runs(tmp_path):
    def graph():
        always = made(value=1).set_caching_options(enable_caching=False)
        read(file=always.outputs["file"])

    assert any("read: cached behind made" in problem for problem in _planted(tmp_path, graph))


@dsl.component(base_image="brainseg-data-python:0.2.0", install_kfp_package=False)
def _number(value: int) -> int:
    return value


@dsl.component(base_image="brainseg-data-python:0.2.0", install_kfp_package=False)
def _word(value: str, named: dsl.OutputPath(str)) -> str:
    return value


@dsl.component(base_image="brainseg-data-python:0.2.0", install_kfp_package=False)
def made(value: int, file: dsl.Output[dsl.Artifact]) -> None:
    pass


@dsl.component(base_image="brainseg-data-python:0.2.0", install_kfp_package=False)
def read(file: dsl.Input[dsl.Artifact]) -> None:
    pass


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
