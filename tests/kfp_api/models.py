"""Compares JSON with the models that KFP generates from its swagger (`kfp_server_api`)."""

import re
from datetime import datetime
from typing import Any

import kfp_server_api

from tests.kfp_api.refusal import Code, Refusal

# swagger calls them strings, as protobuf's JSON writes them; it reads numbers too
_INT64 = {"max_concurrency", "interval_second"}
_PLAIN = {"str": str, "int": int, "bool": bool}


class WrongAnswerError(Exception):
    """The test server itself broke the interface."""


def check_request(model: str, value: Any) -> None:
    """Refuses what protobuf's JSON reader refuses (common.CustomMarshaler: unknown fields too)."""
    for problem in problems(model, value):
        text = f"proto: {problem}"
        raise Refusal(Code.INVALID_ARGUMENT, text, text)


def check_answer(model: str, value: Any) -> None:
    """Makes sure that an answer is what a client may expect."""
    if found := list(problems(model, value, answer=True)):
        raise WrongAnswerError(f"{model}: {'; '.join(found)}")


def problems(model: str, value: Any, path: str = "", *, answer: bool = False) -> list[str]:
    """What in `value` is not as the model says."""
    kind = getattr(kfp_server_api.models, model)
    if hasattr(kind, "allowable_values"):
        allowed = value in kind.allowable_values
        return [] if allowed else [f"invalid value for enum field {path}: {value!r}"]
    if not isinstance(value, dict):
        return [f"unexpected token {value!r} for {path or model}"]
    types = {kind.attribute_map[name]: type_ for name, type_ in kind.openapi_types.items()}
    found = [f'unknown field "{path}{name}"' for name in value if name not in types]
    for name in types.keys() & value.keys():
        found += _field(types[name], value[name], f"{path}{name}", answer)
    return found


def _field(type_: str, value: Any, path: str, answer: bool) -> list[str]:
    if items := re.fullmatch(r"list\[(.*)\]", type_):
        wrong = not isinstance(value, list)
        return [f"{path} is no list"] if wrong else _each(items[1], enumerate(value), path, answer)
    if items := re.fullmatch(r"dict\(str, (.*)\)", type_):
        wrong = not isinstance(value, dict)
        return [f"{path} is no map"] if wrong else _each(items[1], value.items(), path, answer)
    if type_ == "object":
        return []
    if type_ == "datetime":
        return _datetime(value, path)
    if type_ in _PLAIN:
        return _plain(type_, value, path, answer)
    return problems(type_, value, f"{path}.", answer=answer)


def _each(type_: str, values: Any, path: str, answer: bool) -> list[str]:
    found = [_field(type_, value, f"{path}[{key}]", answer) for key, value in values]
    return [problem for part in found for problem in part]


def _datetime(value: Any, path: str) -> list[str]:
    try:
        in_zone = datetime.fromisoformat(value).tzinfo is not None
    except (TypeError, ValueError):
        in_zone = False
    return [] if in_zone else [f"invalid google.protobuf.Timestamp value for {path}: {value!r}"]


def _plain(type_: str, value: Any, path: str, answer: bool) -> list[str]:
    number = path.rpartition(".")[2] in _INT64 and isinstance(value, int) and not answer
    fits = isinstance(value, _PLAIN[type_]) and not (type_ == "int" and isinstance(value, bool))
    return [] if fits or number else [f"invalid value for {type_} field {path}: {value!r}"]
