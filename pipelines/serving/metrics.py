"""Counters of the server in Prometheus' text format."""

from collections import Counter
from collections.abc import Iterator

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_BOUNDS_S = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    """Requests by path and status, and their seconds; used by one thread."""

    def __init__(self) -> None:
        self._requests: Counter[tuple[str, int]] = Counter()
        self._buckets: Counter[tuple[str, float]] = Counter()
        self._seconds: Counter[str] = Counter()

    def observe(self, path: str, status: int, seconds: float) -> None:
        """Counts a request.

        Args:
            path: Pattern of its path, not the path itself: anybody could fill the memory.
            status: HTTP status of the answer.
            seconds: Time from its header to the end of the answer.
        """
        self._requests[path, status] += 1
        self._seconds[path] += seconds  # type: ignore[assignment] # Counter's are int
        self._buckets.update((path, bound) for bound in _BOUNDS_S if seconds <= bound)

    def text(self, running: int, swaps: int, name: str, version: str) -> str:
        """All metrics.

        Args:
            running: Number of uploads that are read, wait or are computed.
            swaps: Number of changes of the model.
            name: Name of the served model.
            version: Version of the served model.
        """
        return "\n".join([*self._lines(running, swaps, name, version), ""])

    def _lines(self, running: int, swaps: int, name: str, version: str) -> Iterator[str]:
        yield "# TYPE brainseg_requests_total counter"
        for (path, status), count in sorted(self._requests.items()):
            yield f'brainseg_requests_total{{path="{path}",status="{status}"}} {count}'
        yield "# TYPE brainseg_request_seconds histogram"
        for path, seconds in sorted(self._seconds.items()):
            count = sum(n for (of, _), n in self._requests.items() if of == path)
            within = [(f"{bound:g}", self._buckets[path, bound]) for bound in _BOUNDS_S]
            for bound, n in [*within, ("+Inf", count)]:
                yield f'brainseg_request_seconds_bucket{{path="{path}",le="{bound}"}} {n}'
            yield f'brainseg_request_seconds_sum{{path="{path}"}} {seconds:.6f}'
            yield f'brainseg_request_seconds_count{{path="{path}"}} {count}'
        yield "# TYPE brainseg_uploads_running gauge"
        yield f"brainseg_uploads_running {running}"
        yield "# TYPE brainseg_model_swaps_total counter"
        yield f"brainseg_model_swaps_total {swaps}"
        yield "# TYPE brainseg_model_info gauge"
        yield f'brainseg_model_info{{name="{_escaped(name)}",version="{_escaped(version)}"}} 1'


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
