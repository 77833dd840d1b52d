"""Cgroups in fake trees, as the systems of the field show them, and one real quota."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.shared import machine
from components.shared.machine import cpu_quota, free_memory, memory_left, usable_cores
from tests.cpu_quota import NoQuotaError, cpu_quota_of

PROJECT = Path(machine.__file__).parents[2]
UNLIMITED_V1 = str(2**63 - 4096)  # what the kernel writes into memory.limit_in_bytes


@pytest.fixture
def process(tmp_path):
    """Creates the folder in /proc of a process with the given cgroups, and their files."""

    def make(cgroup, mounts, files):
        lines = ["22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw"]
        lines += [
            f"{30 + number} 22 0:{number} {root} {tmp_path}/{point} rw,nosuid shared:4 - {system}"
            for number, (root, point, system) in enumerate(mounts)
        ]
        folder = tmp_path / "proc"
        folder.mkdir()
        (folder / "mountinfo").write_text("\n".join(lines) + "\n")
        (folder / "cgroup").write_text("\n".join(cgroup) + "\n")
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text + "\n")
        return folder

    return make


V2 = [("/", "unified", "cgroup2 cgroup2 rw,nsdelegate")]
V1 = [
    ("/", "cpuset", "cgroup cgroup rw,cpuset"),
    ("/", "cpu", "cgroup cgroup rw,cpu,cpuacct"),
    ("/", "memory", "cgroup cgroup rw,memory"),
]
HYBRID = [*V1, ("/", "unified", "cgroup2 cgroup2 rw")]


class TestCpuQuota:
    def test_of_a_container_that_sees_its_own_cgroup_as_the_root(self, process):
        assert cpu_quota(process(["0::/"], V2, {"unified/cpu.max": "400000 100000"})) == 4

    def test_of_a_container_that_knows_where_the_host_put_it(self, process):
        mounts = [("/docker/4f1c", "cpu", "cgroup cgroup ro,cpu,cpuacct")]
        files = {"cpu/cpu.cfs_quota_us": "150000", "cpu/cpu.cfs_period_us": "100000"}
        cgroup = ["4:cpu,cpuacct:/docker/4f1c", "0::/docker/4f1c"]
        assert cpu_quota(process(cgroup, mounts, files)) == 1.5

    def test_the_smallest_of_the_groups_above_decides(self, process):
        files = {
            "unified/pod/main/cpu.max": "max 100000",
            "unified/pod/cpu.max": "50000 100000",
            "unified/cpu.max": "200000 100000",
        }
        assert cpu_quota(process(["0::/pod/main"], V2, files)) == 0.5

    def test_a_neighbours_quota_is_not_ours(self, process):
        files = {"unified/a/cpu.max": "max 100000", "unified/b/cpu.max": "1000 100000"}
        assert cpu_quota(process(["0::/a"], V2, files)) is None

    def test_a_nested_group_of_the_first_version(self, process):
        files = {
            "cpu/pods/one/cpu.cfs_quota_us": "-1",
            "cpu/pods/one/cpu.cfs_period_us": "100000",
            "cpu/pods/cpu.cfs_quota_us": "300000",
            "cpu/pods/cpu.cfs_period_us": "100000",
            "cpuset/pods/one/cpu.cfs_quota_us": "1000",  # another controller's hierarchy
            "cpuset/pods/one/cpu.cfs_period_us": "100000",
        }
        cgroup = ["5:cpuset:/pods/one", "4:cpu,cpuacct:/pods/one", "1:name=systemd:/"]
        assert cpu_quota(process(cgroup, V1, files)) == 3

    @pytest.mark.parametrize(
        ("files", "quota"),
        [
            ({"cpu/a/cpu.cfs_quota_us": "200000", "cpu/a/cpu.cfs_period_us": "100000"}, 2),
            ({"unified/b/cpu.max": "100000 50000"}, 2),
        ],
    )
    def test_of_either_version_where_both_are_mounted(self, process, files, quota):
        assert cpu_quota(process(["4:cpu,cpuacct:/a", "0::/b"], HYBRID, files)) == quota

    def test_a_group_outside_of_what_the_container_sees(self, process):
        files = {"unified/cpu.max": "100000 100000"}
        assert cpu_quota(process(["0::/../elsewhere"], V2, files)) == 1

    @pytest.mark.parametrize(
        "text", ["max 100000", "max", "", "100000", "-1 100000", "1 0", "1 2 3", "one 100000"]
    )
    def test_no_number_is_no_limit(self, process, text):
        assert cpu_quota(process(["0::/"], V2, {"unified/cpu.max": text})) is None

    def test_no_cgroups_are_no_limit(self, process, tmp_path):
        assert cpu_quota(tmp_path / "nothing") is None
        assert cpu_quota(process([], [], {})) is None


class TestMemoryRest:
    def test_the_cache_of_files_counts_as_free(self, process):
        files = {
            "unified/memory.max": "1000",
            "unified/memory.current": "600",
            "unified/memory.stat": "anon 90\ninactive_file 100\nactive_file 5",
        }
        assert memory_left(process(["0::/"], V2, files)) == 500

    def test_of_the_first_version(self, process):
        files = {
            "memory/memory.limit_in_bytes": "1000",
            "memory/memory.usage_in_bytes": "600",
            "memory/memory.stat": "inactive_file 1\ntotal_inactive_file 50",
        }
        assert memory_left(process(["3:memory:/"], V1, files)) == 450

    def test_the_group_above_may_have_less(self, process):
        files = {
            "memory/pod/main/memory.limit_in_bytes": UNLIMITED_V1,
            "memory/pod/main/memory.usage_in_bytes": "10",
            "memory/pod/main/memory.stat": "total_inactive_file 0",
            "memory/pod/memory.limit_in_bytes": "500",
            "memory/pod/memory.usage_in_bytes": "400",
            "memory/pod/memory.stat": "total_inactive_file 30",
        }
        assert memory_left(process(["3:memory:/pod/main"], V1, files)) == 130

    def test_is_never_below_nothing(self, process):
        files = {
            "unified/memory.max": "1000",
            "unified/memory.current": "1200",
            "unified/memory.stat": "inactive_file 100",
        }
        assert memory_left(process(["0::/"], V2, files)) == 0

    def test_no_limit(self, process):
        files = {
            "unified/memory.max": "max",
            "unified/memory.current": "600",
            "unified/memory.stat": "inactive_file 0",
        }
        assert memory_left(process(["0::/"], V2, files)) is None


class TestUsableCores:
    @given(affinity=st.integers(1, 256), quota=st.none() | st.floats(0.001, 512))
    def test_are_the_smaller_of_affinity_and_quota(self, affinity, quota):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(machine, "cpu_quota", lambda: quota)
            patch.setattr(os, "sched_getaffinity", lambda _: set(range(affinity)))
            cores = usable_cores()
        assert 1 <= cores <= affinity
        assert cores == affinity or quota <= cores < quota + 1

    def test_follow_the_affinity_of_the_process(self):
        one = str(min(os.sched_getaffinity(0)))
        assert _in_child(["taskset", "-c", one], "usable_cores()") == "1"

    @pytest.mark.parametrize("cores", [0.5, 1.0])
    def test_follow_a_real_quota(self, cores):
        try:
            with cpu_quota_of(cores) as enter:
                assert _in_child(enter, "usable_cores()") == "1"
                assert _in_child(enter, "cpu_quota()") == str(cores)
        except NoQuotaError as error:
            pytest.skip(f"no quota can be set here: {error}")


def _in_child(before, expression):
    script = f"from components.shared.machine import *; print({expression})"
    command = [*before, sys.executable, "-c", script]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_free_memory_is_what_the_system_has_available():
    lines = Path("/proc/meminfo").read_text().splitlines()
    total = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemTotal"))
    assert 0 < free_memory() <= total
