"""Loads the model folders on standard input; prints each error and the memory that it took."""

import json
import resource
import sys

from components.shared.errors import UserError
from components.shared.model.segmenter import load_segmenter


def peak_mb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


for folder in sys.stdin.read().splitlines():
    before = peak_mb()
    try:
        load_segmenter(folder, "cpu")
        error = None
    except UserError as refused:
        error = str(refused)
    print(json.dumps({"error": error, "mb": peak_mb() - before}))
