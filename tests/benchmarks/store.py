"""Speed of the S3 store beside a bare `minio` client, on 71 objects the size of volumes.

    AWS_ENDPOINT_URL=... python -m tests.benchmarks.store [--rounds 3]

Goal: put and get at least 0.8 of the bare client's speed.
"""

import argparse
import io
import os
import shutil
import statistics
import tempfile
import time
import uuid
from pathlib import Path

import numpy as np
from minio import Minio

from components.shared.storage.s3 import connect, parse_s3_uri
from components.shared.storage.store import open_store

GOAL = 0.8


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    client, bucket = connect(), f"brainseg-bench-{uuid.uuid4().hex[:8]}"
    client.make_bucket(bucket)
    try:
        with tempfile.TemporaryDirectory() as folder:
            measure(f"s3://{bucket}/store", Path(folder), rounds)
    finally:
        for item in client.list_objects(bucket, recursive=True):
            client.remove_object(bucket, item.object_name)
        client.remove_bucket(bucket)


def measure(uri, folder, rounds):
    objects = random_objects()
    size_mb = sum(map(len, objects)) / 1e6
    ways = {"store": StoreWay(uri), "bare": BareWay(parse_s3_uri(uri)[0])}
    seconds = {(way, verb): [] for way in ways for verb in ("put", "get")}
    for number in range(rounds):
        for way in sorted(ways, reverse=bool(number % 2)):  # neither is always first
            seconds[way, "put"].append(timed(ways[way].put, objects))
            seconds[way, "get"].append(timed(ways[way].get, objects, folder / way))
            shutil.rmtree(folder / way)  # a cache is filled once: the next round finds it empty
    print(f"{len(objects)} objects, {size_mb:.0f} MB, median of {rounds} rounds")
    for verb in ("put", "get"):
        report(verb, size_mb, *(statistics.median(seconds[way, verb]) for way in ("store", "bare")))


def random_objects():
    random = np.random.default_rng(0)
    sizes = np.clip(random.gamma(2, 1.5e6, 71) + 5e6, 5e6, 20e6).astype(int)
    return [random.bytes(size) for size in sizes]


def timed(work, *arguments):
    os.sync()
    started = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - started


def report(verb, size_mb, store_s, bare_s):
    ratio = bare_s / store_s
    print(
        f"{verb}: store {store_s:.2f} s ({size_mb / store_s:.0f} MB/s), bare client {bare_s:.2f} s "
        f"({size_mb / bare_s:.0f} MB/s), ratio {ratio:.2f}, goal {GOAL}: "
        f"{'reached' if ratio >= GOAL else 'MISSED'}"
    )


class StoreWay:
    def __init__(self, uri):
        self.store = open_store(uri)

    def put(self, objects):
        for number, data in enumerate(objects):
            self.store.write(f"volumes/{number}", data)

    def get(self, objects, folder):
        for number in range(len(objects)):
            self.store.download(f"volumes/{number}", folder / str(number))


class BareWay:
    def __init__(self, bucket):
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ["AWS_ENDPOINT_URL"]
        self.client = Minio(
            endpoint.partition("//")[2],
            os.environ["AWS_ACCESS_KEY_ID"],
            os.environ["AWS_SECRET_ACCESS_KEY"],
            secure=endpoint.startswith("https:"),
            region=os.environ.get("AWS_REGION", "us-east-1"),
        )
        self.bucket = bucket

    def put(self, objects):
        for number, data in enumerate(objects):
            self.client.put_object(self.bucket, f"bare/{number}", io.BytesIO(data), len(data))

    def get(self, objects, folder):
        for number in range(len(objects)):
            self.client.fget_object(self.bucket, f"bare/{number}", str(folder / str(number)))


if __name__ == "__main__":
    main()
