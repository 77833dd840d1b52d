"""Pipelines, versions, runs, experiments and recurring runs, and what KFP 2.17.0 refuses of them.

Rules are those of backend/src/apiserver at tag 2.17.0; each function names the file that it
follows, in resource_manager.go and api_converter.go where it names none.
"""

import itertools
import json
import re
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import yaml
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2

from tests.kfp_api import robfig
from tests.kfp_api.refusal import Code, Refusal, already_exists, internal, invalid, not_found

Json = dict[str, Any]

_NEVER = "1970-01-01T00:00:00Z"  # toApiRun: time.Unix(0, 0) where a run has not ended
_TYPES: Mapping[str, tuple[type, ...]] = {
    "NUMBER_DOUBLE": (int, float),
    "NUMBER_INTEGER": (int, float),
    "STRING": (str,),
    "BOOLEAN": (bool,),
    "LIST": (list,),
    "STRUCT": (dict,),
}


@dataclass(frozen=True)
class Moment:
    """What a run looks like from one call of `GetRun` to the next.

    Attributes:
        state: Of the run; empty as long as Argo has not looked at the workflow.
        tasks: State by name; Argo's nodes, which is what toModelTasks makes of a workflow.
    """

    state: str
    tasks: Mapping[str, str] = field(default_factory=dict)


DONE = (Moment("RUNNING"), Moment("SUCCEEDED"))


@dataclass
class Backend:
    """The state of one installation; methods take and give the API's JSON.

    Attributes:
        namespaces: Those that the caller may use; none: an installation for a single user.
        plugin: What KFP's MLflow plugin does: `off`, `on` or `broken`.
        script: How the runs made from now on go.
        creating_looks: How often a new pipeline or version is looked for before it is shown.
    """

    namespaces: frozenset[str] = frozenset()
    plugin: str = "off"
    script: Sequence[Moment] = DONE
    creating_looks: int = 0
    experiments: list[Json] = field(default_factory=list)
    pipelines: list[Json] = field(default_factory=list)
    versions: list[Json] = field(default_factory=list)
    runs: list[Json] = field(default_factory=list)
    recurring: list[Json] = field(default_factory=list)
    _creating: dict[str, int] = field(default_factory=dict)
    _ahead: dict[str, Iterator[Moment]] = field(default_factory=dict)
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _clock: Iterator[int] = field(default_factory=itertools.count)

    def namespace(self, named: str | None) -> str:
        """ReplaceNamespace and IsAuthorized: a single-user installation ignores namespaces."""
        if not self.namespaces:
            return ""
        if not named:
            raise invalid("An experiment cannot have an empty namespace in multi-user mode")
        if named not in self.namespaces:
            shown = f"User 'me' is not authorized with reason:  (request: Namespace:{named})"
            raise Refusal(Code.PERMISSION_DENIED, f"PermissionDenied: {shown}", shown)
        return named

    def create_experiment(self, given: Json) -> Json:
        """toModelExperiment, storage/experiment_store.go."""
        name, namespace = given.get("display_name", ""), self.namespace(given.get("namespace"))
        if not name:
            raise internal("Failed to convert API experiment", "must have a non-empty name")
        if len(name.encode()) > 128:
            raise internal("Failed to convert API experiment", "length cannot exceed 128")
        with self._lock:
            if _named(self.experiments, "display_name", name, namespace=namespace):
                shown = f"Failed to create a new experiment. The name {name} already exists."
                raise already_exists(f"{shown} Please specify a new name")
            made = {"experiment_id": _id(), "display_name": name, "created_at": self._now()}
            self.experiments.append(_filled(made, namespace=namespace, storage_state="AVAILABLE"))
            return self.experiments[-1]

    def create_pipeline(self, given: Json) -> Json:
        """toModelPipeline, server/pipeline_server.go, storage/pipeline_store.go."""
        name = given.get("name") or given.get("display_name", "")
        namespace = self.namespace(given["namespace"]) if given.get("namespace") else ""
        if not name:
            raise invalid("name is required")
        if len(name.encode()) > 128:
            raise internal("Failed to convert API pipeline", "length cannot exceed 128")
        with self._lock:
            if _named(self.pipelines, "name", name, namespace=namespace):
                shown = f"Failed to create a new pipeline. The name {name} already exist."
                raise already_exists(f"{shown} Please specify a new name")
            made = {"pipeline_id": _id(), "name": name, "created_at": self._now()}
            shown = given.get("display_name") or name
            self.pipelines.append(_filled(made, display_name=shown, namespace=namespace))
            self._creating[made["pipeline_id"]] = self.creating_looks
            return self.pipelines[-1]

    def pipeline_named(self, name: str, namespace: str) -> Json:
        """GetPipelineByNameAndNamespace, storage/pipeline_store.go."""
        for found in _named(self.pipelines, "name", name, namespace=namespace):
            if self._is_ready(found["pipeline_id"]):
                return found
        raise not_found("Namespace/Pipeline", f"{namespace}/{name}")

    def versions_of(self, pipeline_id: str) -> list[Json]:
        """ListPipelineVersions, storage/pipeline_store.go."""
        rows = [one for one in self.versions if one["pipeline_id"] == pipeline_id]
        return [one for one in rows if self._is_ready(one["pipeline_version_id"])]

    def create_version(self, pipeline_id: str, name: str, package: str) -> Json:
        """template/v2_template.go, storage/pipeline_store.go, validation/length.go."""
        self.pipeline(pipeline_id)
        if len(name.encode()) > 127:
            raise invalid("PipelineVersion.Name length cannot exceed 127")
        spec = read_package(package)
        with self._lock:
            if _named(self.versions, "name", name, pipeline_id=pipeline_id):
                shown = f"Failed to create a new pipeline version. The name {name} already exist."
                raise already_exists(f"{shown} Specify a new name")
            made = {"pipeline_id": pipeline_id, "pipeline_version_id": _id(), "name": name}
            made |= {"display_name": name, "created_at": self._now(), "pipeline_spec": spec}
            self.versions.append(made)
            self._creating[made["pipeline_version_id"]] = self.creating_looks
            return made

    def create_run(self, given: Json) -> Json:
        """toModelRun, createRun in server/run_server.go, CreateRun."""
        if not given.get("display_name"):
            raise internal("Failed to convert a API run detail", "Run name cannot be empty")
        self._check_plugins(given.get("plugins_input") or {})
        namespace = self._check_experiment(given.get("experiment_id", ""))
        try:
            version = self._referenced(given)
        except Refusal as error:
            raise internal(
                "Failed to create a run due to error fetching manifest", error.text
            ) from error
        arguments = (given.get("runtime_config") or {}).get("parameters")
        try:
            check_parameters(version["pipeline_spec"], arguments)
        except Refusal as error:
            steps = ("Failed to create a new run", "Failed to generate the ExecutionSpec")
            raise error.within(*steps, "invalid pipeline job inputs") from error
        reference = {key: version[key] for key in ("pipeline_id", "pipeline_version_id")}
        return self._add_run(_filled(dict(given), namespace=namespace), reference)

    def get_run(self, run_id: str) -> Json:
        """toApiRun; every look at a run is its next moment."""
        run = self.run(run_id)
        with self._lock:
            moment = next(self._ahead[run_id], None)
        return run if moment is None else self._move(run, moment)

    def terminate(self, run_id: str) -> Json:
        """TerminateRun, storage/run_store.go."""
        run = self.run(run_id)
        if run.get("state", "PENDING") not in ("PENDING", "RUNNING", "PAUSED"):
            raise invalid(f"Failed to terminate a run {run_id}. Row not found")
        self._ahead[run_id] = iter((Moment("CANCELED"),))
        self._move(run, Moment("CANCELING"))
        return {}

    def create_recurring(self, given: Json) -> Json:
        """toModelJob, createJob in server/job_server.go, CreateJob."""
        self._check_job(given)
        namespace = self._check_experiment(given.get("experiment_id", ""))
        reference = given.get("pipeline_version_reference") or {}
        if not reference.get("pipeline_id"):
            raise Refusal(
                Code.INTERNAL,
                "Internal error: Cannot create a job with an empty pipeline ID",
                "Internal error: Cannot create a job with an empty pipeline ID",
            )
        self._check_job_parameters(given)
        job = {key: value for key, value in given.items() if key != "mode"}
        job |= {"recurring_run_id": _id(), "created_at": self._now(), "updated_at": self._now()}
        job["max_concurrency"] = str(given["max_concurrency"])
        if reference.get("pipeline_version_id"):  # setDefaultServiceAccount in template.go
            job.setdefault("service_account", "pipeline-runner")
        job = _filled(job, namespace=namespace)
        with self._lock:
            self.recurring.append(_switched(job, given.get("mode") == "ENABLE"))
        return job

    def switch(self, recurring_run_id: str, enabled: bool) -> Json:
        """ChangeJobMode."""
        job = self.job(recurring_run_id)
        _switched(job, enabled)["updated_at"] = self._now()
        return {}

    def delete_recurring(self, recurring_run_id: str, propagation: str = "") -> Json:
        """DeleteJob: its workflows are owned by it and go with it, unless they are orphaned.

        SetOwnerReferences in backend/src/crd/controller/scheduledworkflow/util and
        propagationPolicyMap in resource_manager.go.
        """
        with self._lock:
            self.recurring.remove(self.job(recurring_run_id))
        for run in self.runs if propagation != "ORPHAN" else ():
            if run.get("recurring_run_id") == recurring_run_id and run.get("state") == "RUNNING":
                self._move(run, Moment("FAILED"))
        return {}

    def fire(self, recurring_run_id: str) -> Json:
        """What the controller does when it is time.

        submitNewWorkflowIfNotAlreadySubmitted in
        backend/src/crd/controller/scheduledworkflow/controller.go: a pinned schedule without
        plugin inputs holds its whole workflow; any other makes a run by the API with the
        parameters in `spec.workflow`, which CreateJob fills only for one that is not pinned.
        """
        job = self.job(recurring_run_id)
        pinned = bool(job["pipeline_version_reference"].get("pipeline_version_id"))
        keys = ["experiment_id", "service_account", "pipeline_version_reference", "plugins_input"]
        run = {key: job[key] for key in keys if key in job}
        if not (pinned and job.get("plugins_input")):
            run["runtime_config"] = job.get("runtime_config", {})
        run |= {"display_name": f"{job['display_name']}-1", "recurring_run_id": recurring_run_id}
        return self.create_run(run)

    def experiment(self, experiment_id: str) -> Json:
        return _one(self.experiments, "experiment_id", experiment_id, "Experiment")

    def pipeline(self, pipeline_id: str) -> Json:
        return _one(self.pipelines, "pipeline_id", pipeline_id, "Pipeline")

    def version(self, version_id: str) -> Json:
        return _one(self.versions, "pipeline_version_id", version_id, "PipelineVersion")

    def run(self, run_id: str) -> Json:
        return _one(self.runs, "run_id", run_id, "Run")

    def job(self, recurring_run_id: str) -> Json:
        return _one(self.recurring, "recurring_run_id", recurring_run_id, "Job")

    def _is_ready(self, row_id: str) -> bool:
        """Rows with the status CREATING are not shown, though their names are taken."""
        left = self._creating.get(row_id, 0)
        self._creating[row_id] = max(0, left - 1)
        return left == 0

    def _add_run(self, given: Json, reference: Json) -> Json:
        run = {key: value for key, value in given.items() if key not in ("namespace", "state")}
        now = self._now()
        run |= {"run_id": _id(), "storage_state": "AVAILABLE", "finished_at": _NEVER}
        run |= {"created_at": now, "scheduled_at": now, "state_history": []}
        run |= {"pipeline_version_reference": reference, "plugins_output": self._plugin(given)}
        with self._lock:
            self.runs.append(run)
            self._ahead[run["run_id"]] = iter(self.script)
        return self._move(run, Moment("PENDING"))

    def _move(self, run: Json, moment: Moment) -> Json:
        now = self._now()
        named = {"state": moment.state} if moment.state else {}
        if run.get("state", "") != moment.state:
            run["state_history"].append({**named, "update_time": now})
        if moment.state in ("SUCCEEDED", "FAILED", "CANCELED"):
            run["finished_at"] = now
        tasks = [_task(run, name, state, now) for name, state in moment.tasks.items()]
        run.pop("state", None)
        run |= named | ({"run_details": {"task_details": tasks}} if tasks else {})
        return run

    def _plugin(self, given: Json) -> Json:
        """plugins/mlflow/handler.go: a plugin that fails does not stop the run."""
        asked = (given.get("plugins_input") or {}).get("mlflow", {})
        if self.plugin == "off" or asked.get("disabled"):
            return {}
        name = {"value": asked.get("experiment_name", "KFP-Default")}
        if self.plugin == "on":
            return {"mlflow": {"entries": {"experiment_name": name}, "state": "PLUGIN_SUCCEEDED"}}
        broken = {"state": "PLUGIN_FAILED", "state_message": "connection refused"}
        return {"mlflow": {"entries": {"experiment_name": name}, **broken}}

    def _check_plugins(self, given: Json) -> None:
        """plugins/mlflow/config.go."""
        if not all(isinstance(part, dict) for part in given.values()):
            raise invalid("Invalid plugins_input: not a Struct")
        allowed = {"experiment_name", "experiment_id", "disabled"}
        if set(given.get("mlflow", {})) - allowed:
            shown = "Failed to create a run due to invalid MLflow plugin input"
            raise Refusal(Code.ABORTED, f"BadRequestError: {shown}", shown)

    def _check_experiment(self, experiment_id: str) -> str:
        """GetValidExperimentNamespacePair."""
        if experiment_id:
            return str(self.experiment(experiment_id).get("namespace", ""))
        if self.namespaces:
            raise invalid("Experiment id can not be empty in multi-user mode")
        return ""

    def _check_job(self, given: Json) -> None:
        doing = (
            "Failed to create a recurring run due to conversion error",
            "Failed to convert a API recurring run to its internal representation",
        )
        if not given.get("display_name"):
            raise internal(doing[1], "Recurring run's name cannot be empty").within(doing[0])
        concurrency = int(given.get("max_concurrency", 0))
        if not 1 <= concurrency <= 10:
            shown = "Max concurrency of a recurring run must be at least 1 and at most 10. "
            raise invalid(f"{shown}Received {concurrency}").within(doing[0])
        cron = (given.get("trigger") or {}).get("cron_schedule", {}).get("cron")
        try:
            robfig.parse(cron if cron is not None else "* * * * * *")
        except robfig.CronError as error:
            shown = (
                "Schedule cron is not a supported format(https://godoc.org/github.com/robfig/cron)."
            )
            raise invalid(f"{shown} Error: {error}").within(doing[0]) from error
        if re.sub("[^a-z0-9-]+", "", given["display_name"].lower()).startswith("-"):
            # toSWFCRDResourceGeneratedName in template/template.go, which Kubernetes refuses
            raise internal("Failed to create a recurring run", "Invalid value: metadata.name")

    def _check_job_parameters(self, given: Json) -> None:
        reference = given["pipeline_version_reference"]
        pinned = bool(reference.get("pipeline_version_id"))
        try:
            version = self._referenced(given)
        except Refusal as error:
            if pinned:
                shown = "Failed to create a recurring run with an invalid pipeline spec manifest"
                raise internal(shown, error.text) from error
            raise
        if pinned and given.get("plugins_input"):
            return  # NewGenericScheduledWorkflow is made without looking at parameters
        arguments = (given.get("runtime_config") or {}).get("parameters")
        try:
            check_parameters(version["pipeline_spec"], arguments)
        except Refusal as error:
            doing = "Failed to create a recurring run during scheduled workflow creation"
            raise error.within(doing, "invalid pipeline job inputs") from error

    def _referenced(self, given: Json) -> Json:
        """fetchPipelineVersionFromPipelineSpec: the latest version where none is named."""
        reference = given.get("pipeline_version_reference") or {}
        named, pipeline_id = reference.get("pipeline_version_id"), reference.get("pipeline_id", "")
        if named:
            version = self.version(named)
            if pipeline_id and version["pipeline_id"] != pipeline_id:
                raise invalid(f"Pipeline version {named} belongs to pipeline ...")
            return version
        self.pipeline(pipeline_id)
        versions = [one for one in self.versions if one["pipeline_id"] == pipeline_id]
        if not versions:
            raise not_found("PipelineVersion", pipeline_id)
        return max(versions, key=lambda version: str(version["created_at"]))

    def _now(self) -> str:
        begun = datetime(2026, 11, 25, tzinfo=UTC)
        return (begun + timedelta(seconds=next(self._clock))).isoformat().replace("+00:00", "Z")


def read_package(text: str) -> Json:
    """NewV2SpecTemplate in template/v2_template.go, ValidatePipelineName in common/utils.go."""
    documents = [part for part in yaml.load_all(text, yaml.CSafeLoader) if part]
    specs = [part for part in documents if "pipelineInfo" in part and "root" in part]
    platforms = [part for part in documents if "kubernetes" in part.get("platforms", {})]
    if len(specs) != 1 or len(platforms) > 1:
        raise invalid("no pipeline spec is provided" if not specs else "multiple pipeline specs")
    for part, kind in ((specs[0], "PipelineSpec"), *((one, "PlatformSpec") for one in platforms)):
        try:
            json_format.ParseDict(part, getattr(pipeline_spec_pb2, kind)())
        except json_format.ParseError as error:
            raise invalid(f"invalid v2 pipeline spec: {error}") from error
    if specs[0]["schemaVersion"] != "2.1.0":
        raise invalid("KFP only supports schema version 2.1.0, but the pipeline spec has version")
    if platforms:
        return {"pipeline_spec": specs[0], "platform_spec": platforms[0]}
    return dict(specs[0])


def check_parameters(spec: Json, given: Mapping[str, Any] | None) -> None:
    """validatePipelineJobInputs in template/v2_template.go."""
    root = spec.get("pipeline_spec", spec)["root"]
    known = root.get("inputDefinitions", {}).get("parameters", {})
    arguments = given or {}
    for name, parameter in known.items():
        if name in arguments:
            _check_type(name, parameter["parameterType"], arguments[name])
        elif not parameter.get("isOptional") and "defaultValue" not in parameter:
            raise invalid(
                f"parameter {name} is not optional, yet has neither default value nor user "
                "provided value"
            )
    if extra := sorted(arguments.keys() - known.keys()):
        shown = "parameter(s) provided are not required by pipeline: "
        raise invalid(shown + ", ".join(extra))


def matching(rows: Iterable[Json], filter_: str, id_key: str) -> list[Json]:
    """filter/filter.go: EQUALS on text, which MySQL compares without regard to case."""
    predicates = json.loads(filter_).get("predicates", []) if filter_ else []
    fits: list[Callable[[Json], bool]] = []
    for one in predicates:
        known = {id_key, "name", "display_name", "created_at", "description", "namespace"}
        if one["key"] not in known:
            raise invalid(f'no support for filtering on unrecognized field "{one["key"]}"')
        if one["operation"] not in ("EQUALS", 1):
            raise invalid(f"the test server knows only EQUALS, not {one['operation']}")
        text = (one.get("string_value") or one["stringValue"]).lower()
        fits.append(lambda row, one=one, text=text: str(row.get(one["key"])).lower() == text)
    return [row for row in rows if all(fit(row) for fit in fits)]


def _check_type(name: str, type_: str, value: Any) -> None:
    fits = isinstance(value, _TYPES[type_]) and (type_ == "BOOLEAN") == isinstance(value, bool)
    if not fits:
        kind = type_.lower()
        raise invalid(
            f"input parameter {name} requires type {kind}, but the input parameter is not of "
            f"{kind} value type"
        )


def _switched(job: Json, enabled: bool) -> Json:
    job |= {"mode": "ENABLE", "status": "ENABLED"} if enabled else {}
    job |= {} if enabled else {"mode": "DISABLE", "status": "DISABLED"}
    return job


def _task(run: Json, name: str, state: str, now: str) -> Json:
    """toApiPipelineTaskDetail: neither the pod's name nor any message gets through."""
    task = {"run_id": run["run_id"], "task_id": _id(), "display_name": name, "state": state}
    times = {"create_time": now, "start_time": now, "end_time": now}
    return {**task, **times, "child_tasks": [{"pod_name": f"{name}-{run['run_id'][:8]}"}]}


def _named(rows: Iterable[Json], key: str, name: str, **also: str) -> list[Json]:
    """Rows of a name; the unique indices of MySQL have no regard to case."""
    same = [row for row in rows if row[key].lower() == name.lower()]
    return [row for row in same if all(row.get(k, "") == value for k, value in also.items())]


def _one(rows: Iterable[Json], key: str, value: str, kind: str) -> Json:
    for row in rows:
        if row[key] == value:
            return row
    raise not_found(kind, value)


def _filled(row: Json, **values: str) -> Json:
    """With those values that are not empty: protobuf's JSON leaves empty ones out."""
    return row | {key: value for key, value in values.items() if value}


def _id() -> str:
    return str(uuid.uuid4())
