"""Schedules: their file, Kubeflow's recurring runs, and the changes between the two.

Kubeflow cannot change a recurring run, and several may have one name (kubeflow/pipelines#3789). So
the description of each has the digest of the settings that it was created from.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import kfp_server_api
import yaml
from kfp_server_api import RecurringRunMode
from pydantic import field_validator, model_validator

from components.shared.config import Config, build_config, load_yaml
from components.shared.errors import UserError
from pipelines.kubeflow.cron import Cron, parse_cron, require_utc
from pipelines.kubeflow.order import Order, Prepared, plugins_input
from pipelines.kubeflow.submit import DEFAULT_EXPERIMENT
from pipelines.kubeflow.upload import Uploaded

_MARK = "Kept by `brainseg schedule` ({}): change it there."
_MARKED = re.compile(re.escape(_MARK).replace(r"\{\}", "([0-9a-f]{16})"))


class Schedule(Order):
    """A recurring run.

    Attributes:
        name: Name, unique in the namespace.
        cron: Five fields, in UTC.
        timezone: UTC; the error for another zone names an alternative.
        latest: Run the pipeline's newest version.
        paused: Start no runs.
    """

    name: str
    cron: str
    timezone: str = "UTC"
    latest: bool = False
    paused: bool = False

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        # toSWFCRDResourceGeneratedName in backend/src/apiserver/template/template.go
        kept = re.sub("[^a-z0-9-]+", "", name.lower())
        if not name.strip() or kept.startswith("-") or not name.isprintable():
            raise ValueError("must have a letter or a digit before any hyphen, on one line")
        return name

    @model_validator(mode="after")
    def _plugin_needs_the_latest_version(self) -> Self:
        # See `recurring_run`: a pinned one has no inputs for plugins.
        if not (self.mlflow_plugin or self.latest):
            raise ValueError(
                "KFP 2.17.0 can switch its MLflow plugin off only in a schedule of the latest "
                "version: give --latest (in a file latest: true), or leave the plugin on"
            )
        return self

    @property
    def parsed_cron(self) -> Cron:
        """The start times; raises `UserError` if the form is wrong or the date never occurs."""
        require_utc(self.timezone)
        return parse_cron(self.cron)


class ScheduleFile(Config):
    """The content of `schedules.yaml`.

    Attributes:
        experiment: Experiment of all schedules.
        schedules: Schedules with different names, in any order.
    """

    experiment: str = DEFAULT_EXPERIMENT
    schedules: tuple[Schedule, ...] = ()

    @field_validator("schedules")
    @classmethod
    def _check_names(cls, schedules: tuple[Schedule, ...]) -> tuple[Schedule, ...]:
        names = Counter(sorted(schedule.name for schedule in schedules))
        if twice := [name for name, number in names.items() if number > 1]:
            raise ValueError(f"must have different names, but repeated: {', '.join(twice)}")
        return schedules


@dataclass(frozen=True)
class Existing:
    """A recurring run of Kubeflow."""

    id: str
    name: str  # Kubeflow does not require it to be unique
    enabled: bool
    cron: str  # six fields; empty if it has an interval
    pipeline_version_id: str  # empty for the newest one
    experiment_id: str
    digest: str  # of its settings; empty if it was not created by `brainseg`
    created_at: str  # among equals the oldest stays

    @property
    def five_fields(self) -> str:
        """The cron without seconds, or Kubeflow's own text if it has no such form."""
        second, *rest = self.cron.split() or [""]
        rest += ["*"] * (5 - len(rest))  # the day of the week may be missing
        return " ".join(rest) if second == "0" else self.cron or "by an interval"


@dataclass(frozen=True)
class Change:
    """The changes for one name: a new schedule, one that stays, and all that go."""

    name: str
    create: bool = False
    keep: Existing | None = None
    disable: Sequence[Existing] = ()
    delete: Sequence[Existing] = ()
    enabled: bool = True  # wanted state of the one that stays

    @property
    def needed(self) -> bool:
        """True if there is anything to do."""
        return bool(self.create or self.delete) or self.switches

    @property
    def switches(self) -> bool:
        """True if the one that stays changes its state."""
        return self.keep is not None and self.keep.enabled != self.enabled

    def __str__(self) -> str:
        parts = ["create"] if self.create and not self.delete else []
        parts += ["replace"] if self.create and self.delete else []
        if self.switches:
            parts += ["resume" if self.enabled else "pause"]
        extra = len(self.delete) - (1 if self.create else 0)
        if self.keep or self.create:
            parts += [f"delete {extra} more of this name"] if extra > 0 else []
        else:
            parts += ["delete"]
        return ", ".join(parts) or "unchanged"


def read_schedules(path: Path) -> ScheduleFile:
    """Reads and checks `schedules.yaml`; raises `UserError` for a wrong file or setting."""
    try:
        content = load_yaml(path.read_text())
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text: {error}") from error
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {error}") from error
    entries = content.get("schedules", []) if isinstance(content, dict) else None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise UserError(f"{path} must have a list `schedules:` and may have `experiment:`")
    schedules = [
        build_config(Schedule, entry, f"schedule {entry.get('name', number)}")
        for number, entry in enumerate(entries, start=1)
    ]
    for schedule in schedules:
        _ = schedule.parsed_cron
    return build_config(ScheduleFile, {**content, "schedules": schedules}, path.name)


def recurring_run(
    schedule: Schedule, prepared: Prepared, version: Uploaded, experiment_id: str
) -> kfp_server_api.V2beta1RecurringRun:
    """The recurring run of a schedule, disabled."""
    body = kfp_server_api.V2beta1RecurringRun(
        display_name=schedule.name,
        experiment_id=experiment_id,
        pipeline_version_reference=kfp_server_api.V2beta1PipelineVersionReference(
            pipeline_id=version.pipeline_id,
            pipeline_version_id=None if schedule.latest else version.version_id,
        ),
        runtime_config=kfp_server_api.V2beta1RuntimeConfig(parameters=dict(prepared.arguments)),
        service_account=schedule.service_account or None,
        trigger=kfp_server_api.V2beta1Trigger(
            cron_schedule=kfp_server_api.V2beta1CronSchedule(cron=schedule.parsed_cron.six_fields)
        ),
        max_concurrency="1",
        no_catchup=True,
        mode=RecurringRunMode.DISABLE,
        # CreateJob in backend/src/apiserver/resource/resource_manager.go at tag 2.17.0 loses the
        # parameters of a pinned schedule that has inputs for plugins.
        plugins_input=plugins_input(schedule) if schedule.latest else None,
    )
    content = json.dumps(body.to_dict(), sort_keys=True)
    body.description = _MARK.format(hashlib.sha256(content.encode()).hexdigest()[:16])
    return body


def digest_of(body: kfp_server_api.V2beta1RecurringRun) -> str:
    """The digest in the description of a recurring run; empty if there is none."""
    found = _MARKED.fullmatch(body.description or "")
    return found[1] if found else ""


def existing(row: kfp_server_api.V2beta1RecurringRun) -> Existing:
    """A recurring run, from Kubeflow's own message."""
    reference = row.pipeline_version_reference
    cron = row.trigger.cron_schedule if row.trigger else None
    return Existing(
        id=row.recurring_run_id,
        name=row.display_name or "",
        enabled=row.mode == RecurringRunMode.ENABLE,
        cron=(cron.cron if cron else "") or "",
        pipeline_version_id=(reference.pipeline_version_id if reference else "") or "",
        experiment_id=row.experiment_id or "",
        digest=digest_of(row),
        created_at=str(row.created_at),
    )


def plan(name: str, digest: str, present: Iterable[Existing], *, enabled: bool) -> Change:
    """The changes after which a name has exactly one schedule."""
    same = [one for one in present if one.name == name]
    fitting = [one for one in same if one.digest == digest]
    keep = min(fitting, key=lambda one: (one.created_at, one.id), default=None)
    others = [one for one in same if one is not keep]
    return Change(
        name=name,
        create=keep is None,
        keep=keep,
        disable=[one for one in others if one.enabled],
        delete=others,
        enabled=enabled,
    )


def removal(name: str, present: Iterable[Existing]) -> Change:
    """The changes after which a name has no schedule."""
    same = [one for one in present if one.name == name]
    return Change(name, disable=[one for one in same if one.enabled], delete=same)


def with_name(schedules: Iterable[Existing], name: str) -> list[Existing]:
    """The schedules with exactly this name; raises `UserError` if there is none."""
    every = list(schedules)
    found = [one for one in every if one.name == name]
    if not found:
        names = sorted({one.name for one in every})
        raise UserError(f"no schedule {name!r}; there are {', '.join(names) or 'none'}")
    return found


def unlisted(file: ScheduleFile, present: Iterable[Existing], experiment_id: str) -> list[Existing]:
    """Schedules of `brainseg` in the file's experiment that the file does not list."""
    listed = {schedule.name for schedule in file.schedules}
    ours = (one for one in present if one.digest and one.experiment_id == experiment_id)
    return [one for one in ours if one.name not in listed]


def duplicates(present: Iterable[Existing]) -> Mapping[str, int]:
    """Names of more than one schedule, with their number."""
    names = Counter(sorted(one.name for one in present))
    return {name: number for name, number in names.items() if number > 1}
