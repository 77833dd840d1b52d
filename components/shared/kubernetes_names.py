"""Names that Kubernetes accepts; it refuses others only when a pod is created.

The rules are those of k8s.io/apimachinery, pkg/util/validation/validation.go.
"""

import re
from typing import Annotated

from pydantic import AfterValidator

_WORD = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_OBJECT = rf"{_WORD}(\.{_WORD})*"
_LABEL = "[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?"
_KEY = rf"((?=[^/]{{1,253}}/){_OBJECT}/)?(?=[^/]{{1,63}}\Z){_LABEL}"

_ENDS = "a letter or a digit at both ends"
_OF_OBJECT = f"must be lower-case letters, digits, - and . with {_ENDS}"
_OF_LABEL = f"must be letters, digits, -, _ and . with {_ENDS}"
_OF_KEY = f"must be NAME or DOMAIN/NAME, a name of letters, digits, -, _ and . with {_ENDS}"


def _fits(pattern: str, longest: int, allowed: str) -> AfterValidator:
    whole = re.compile(pattern)

    def check(text: str) -> str:
        if len(text) > longest or not whole.fullmatch(text):
            raise ValueError(f"{allowed}, at most {longest} characters")
        return text

    return AfterValidator(check)


# of Secrets, ConfigMaps, ServiceAccounts: a "DNS subdomain"
ObjectName = Annotated[str, _fits(_OBJECT, 253, _OF_OBJECT)]
ObjectNameOrNone = Annotated[str, _fits(f"({_OBJECT})?", 253, _OF_OBJECT)]

# a LocalQueue of Kueue: the name of an object, and the value of a label of its pods
QueueNameOrNone = Annotated[str, _fits(f"({_OBJECT})?", 63, _OF_OBJECT)]

# of labels, annotations and taints: a "qualified name"
LabelKey = Annotated[str, _fits(_KEY, 253 + 1 + 63, f"{_OF_KEY} (63 of them)")]
LabelKeyOrNone = Annotated[str, _fits(f"({_KEY})?", 253 + 1 + 63, f"{_OF_KEY} (63 of them)")]
LabelValue = Annotated[str, _fits(f"({_LABEL})?", 63, _OF_LABEL)]

# in a Secret or ConfigMap
DataKey = Annotated[
    str, _fits(r"(?!\.\.)(?!\.\Z)[-._A-Za-z0-9]+", 253, "must be letters, digits, -, _ and .")
]
