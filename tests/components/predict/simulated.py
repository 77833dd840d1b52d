"""A source of cases that nobody stored, for plans of many."""

import contextlib
import hashlib
from dataclasses import dataclass, field

from components.shared.reading.sources.source import SourceFile

CHANNELS = ("t1n", "t1c", "t2w", "t2f")


@dataclass
class SimulatedSource:
    """A folder of BraTS cases; each call of its methods is kept."""

    cases: int
    channels: tuple = CHANNELS
    calls: list = field(default_factory=list)
    uri: str = "s3://simulated/incoming"
    name: str = "incoming"

    def files(self):
        self.calls.append("files")
        return [
            SourceFile(path, 5_000_000, version=hashlib.md5(path.encode()).hexdigest())
            for case in range(self.cases)
            for channel in self.channels
            for path in [f"BraTS-GLI-{case:05}-000/BraTS-GLI-{case:05}-000-{channel}.nii.gz"]
        ]

    def read(self, path):
        self.calls.append(path)
        raise AssertionError("a plan reads no file")

    @contextlib.contextmanager
    def open(self, *_):
        yield self
