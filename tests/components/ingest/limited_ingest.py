"""An ingest in a process of little memory; this file is run as a program.

    python limited_ingest.py SOURCE STORE WORKERS MIB

It prints the account, and the most memory that one of its processes took (MiB). MIB is the
address space beside the interpreter and its libraries.
"""

import json
import re
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
    workers_kib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    # not RUSAGE_SELF: that starts with what the process before exec had
    own_kib = int(re.search(r"VmHWM:\s+([0-9]+) kB", Path("/proc/self/status").read_text())[1])
    peak_mib = max(own_kib, workers_kib) / 1024
    print(json.dumps({"account": result.account.model_dump(mode="json"), "peak_mib": peak_mib}))


def memory():
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


if __name__ == "__main__":
    main()
