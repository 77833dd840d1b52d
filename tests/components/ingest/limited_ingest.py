"""An ingest in a process of little memory; this file is run as a program.

    python limited_ingest.py SOURCE STORE WORKERS MIB

It prints the account, and the most memory that one of its processes took (MiB). MIB is the
address space beside the interpreter and its libraries.
"""

import json
import resource
import sys
from pathlib import Path

from components.ingest.ingestion import ingest_source
from components.ingest.settings import IngestSettings
from components.shared.storage.store import open_store


def main():
    source, store, workers, mib = sys.argv[1:]
    limit = memory() + int(mib) * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    result = ingest_source(source, open_store(store), IngestSettings(), int(workers))
    peaks = [
        resource.getrusage(who).ru_maxrss / 1024
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    ]
    print(json.dumps({"account": result.account.model_dump(mode="json"), "peak_mib": max(peaks)}))


def memory():
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


if __name__ == "__main__":
    main()
