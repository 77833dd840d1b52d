import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from pipelines.kubeflow.client import KubeflowError
from pipelines.kubeflow.upload import find, find_or_upload
from tests.kfp_api.backend import Backend
from tests.kfp_api.server import Accident


def test_a_new_pipeline_is_uploaded_once(server, backend, kubeflow, prepared):
    first = find_or_upload(kubeflow, prepared.package)
    sent = len(server.sent())
    again = find_or_upload(kubeflow, prepared.package)
    assert (first.is_new, again.is_new) == (True, False)
    assert (again.pipeline_id, again.version_id) == (first.pipeline_id, first.version_id)
    assert len(server.sent()) == sent
    assert [one["name"] for one in backend.pipelines] == ["brainseg-training"]
    assert [one["name"] for one in backend.versions] == [prepared.package.version]


def test_a_changed_pipeline_is_another_version_of_it(backend, kubeflow, prepared, changed):
    first, second = (find_or_upload(kubeflow, one.package) for one in (prepared, changed))
    assert first.pipeline_id == second.pipeline_id
    assert len({one["name"] for one in backend.versions}) == 2


def test_the_compiled_text_is_equal_each_time(prepared):
    from pipelines.kubeflow.order import prepare
    from tests.pipelines.kubeflow.conftest import IMAGES, ORDER

    assert prepare(ORDER, IMAGES, run_name="demo").package == prepared.package


def test_kubeflow_gets_the_pods_settings_too(backend, kubeflow, prepared):
    find_or_upload(kubeflow, prepared.package)
    spec = backend.versions[0]["pipeline_spec"]
    assert set(spec) == {"pipeline_spec", "platform_spec"}


def test_a_pipeline_is_found_under_another_shown_name(backend, kubeflow, prepared):
    find_or_upload(kubeflow, prepared.package)
    backend.pipelines[0]["display_name"] = "Brain tumours"
    assert not find_or_upload(kubeflow, prepared.package).is_new


def test_a_pipeline_of_another_spelling_is_another(backend, kubeflow, prepared, renamed):
    find_or_upload(kubeflow, prepared.package)
    assert find_or_upload(kubeflow, renamed.package).is_new
    assert len(backend.pipelines) == 2


def test_nothing_is_found_before_it_was_uploaded(server, kubeflow, prepared):
    found = find(kubeflow, prepared.package)
    assert (found.pipeline_id, found.version_id, found.is_new) == ("", "", True)
    assert server.sent() == []


def test_a_known_pipeline_is_found_before_its_new_version(kubeflow, prepared, changed):
    made = find_or_upload(kubeflow, prepared.package)
    found = find(kubeflow, changed.package)
    assert (found.pipeline_id, found.version_id) == (made.pipeline_id, "")
    assert find(kubeflow, prepared.package) == replace(made, is_new=False)


def test_two_at_once_end_with_one_version(monkeypatch, backend, kubeflow, prepared):
    """Both find nothing, then both create; the second is refused and finds the first's."""
    both_have_looked = threading.Barrier(2, timeout=300)

    def meet_before(method):
        def met(*values):
            both_have_looked.wait()
            return method(*values)

        return met

    for name in ("create_pipeline", "create_version"):
        monkeypatch.setattr(Backend, name, meet_before(getattr(Backend, name)))
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda _: find_or_upload(kubeflow, prepared.package), range(2)))
    assert len({one.version_id for one in found}) == 1
    assert sorted(one.is_new for one in found) == [False, True]
    assert (len(backend.pipelines), len(backend.versions)) == (1, 1)


def test_what_another_is_just_making_is_waited_for(backend, kubeflow, prepared):
    backend.creating_looks = 3
    pipeline = backend.create_pipeline({"name": prepared.package.name})
    text = prepared.package.text
    backend.create_version(pipeline["pipeline_id"], prepared.package.version, text)
    assert not find_or_upload(kubeflow, prepared.package).is_new
    assert (len(backend.pipelines), len(backend.versions)) == (1, 1)


def test_a_name_that_is_taken_and_never_shown_is_told(backend, kubeflow, prepared, monkeypatch):
    monkeypatch.setattr("pipelines.kubeflow.upload._BETWEEN_TRIES_S", 0)
    backend.creating_looks = 999
    backend.create_pipeline({"name": prepared.package.name})
    with pytest.raises(KubeflowError, match="already exist"):
        find_or_upload(kubeflow, prepared.package)


def test_a_changed_version_of_a_known_pipeline_makes_no_pipeline(
    server, kubeflow, prepared, changed
):
    find_or_upload(kubeflow, prepared.package)
    sent = len(server.sent())
    find_or_upload(kubeflow, changed.package)
    assert len(server.sent()) == sent + 1


def test_an_upload_that_is_refused_leaves_kubeflows_words(server, kubeflow, prepared):
    server.accidents.append(Accident("upload_version", "403"))
    with pytest.raises(KubeflowError, match="does not allow this"):
        find_or_upload(kubeflow, prepared.package)


def test_an_upload_whose_answer_is_lost_is_found_the_next_time(server, kubeflow, prepared):
    server.accidents.append(Accident("upload_version", "cut"))
    with pytest.raises(KubeflowError, match="does not answer"):
        find_or_upload(kubeflow, prepared.package)
    assert not find_or_upload(kubeflow, prepared.package).is_new
