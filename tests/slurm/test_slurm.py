"""The sbatch scripts as they are shipped, under a real SLURM: `make test-slurm`."""

import os
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from slurm.cluster import Cluster, missing
from support import ROOT, run_command, tree

from plmjac.store import completed, open_store, read_manifest, verify

pytestmark = [pytest.mark.timeout(1500)]
if "PLMJAC_TEST_SLURM" not in os.environ:
    pytest.skip("a real SLURM is started by `make test-slurm` (minutes)", allow_module_level=True)
if absent := missing():
    pytest.skip(
        f"no {', '.join(absent)} here; on Debian: apt-get install slurm-wlm munge", allow_module_level=True
    )  # fmt: skip

PROTEINS = 60
SMALL = ("--nodes=1", "--cpus-per-task=1", "--gpus-per-node=0")
"""#SBATCH lines for a cluster of one node without GPUs, instead of those in the scripts."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One node of four processors on loopback."""
    there = Cluster(tmp_path_factory.mktemp("slurm"))
    try:
        there.start()
        yield there
    finally:
        there.stop()


@pytest.fixture(scope="module")
def arguments(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A run of some 20 s on a quiet machine."""
    chance = random.Random(11)
    path = tmp_path_factory.mktemp("input") / "proteins.fasta"
    lines = [f">p{n}\n{''.join(chance.choices('LAGVSERTIDPKQNFYMHWC', k=40 + n))}\n" for n in range(PROTEINS)]
    path.write_text("".join(lines))
    return ["+dataset=fasta", f"dataset.path={path}", "model=debug", "keep=[contacts,jacobian]", "threads=1"]


@pytest.fixture(scope="module")
def expected(arguments: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The bytes of an undisturbed run of one process, outside SLURM."""
    store = tmp_path_factory.mktemp("expected") / "run.zarr"
    done = run_command(*arguments, f"store={store}", timeout=900)
    assert done.returncode == 0, done.stderr
    return tree(store)


def environment() -> dict[str, str]:
    """`python` is this one, and finds this checkout."""
    folder = str(Path(sys.executable).parent)
    return {"PATH": f"{folder}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def submit(cluster: Cluster, script: str, output: Path, options: list[str], arguments: list[str]) -> str:
    return cluster.submit(
        *options, str(ROOT / "scripts" / script), *arguments, environment=environment(), output=output
    )


def is_whole(store: Path, expected: dict[str, str]) -> None:
    assert tree(store) == expected
    assert {row.status for row in read_manifest(store)} == {"done"}
    assert not any(damages for _, damages in verify(open_store(store)))


def wait_for(cluster: Cluster, job: str, store: Path, number: int, seconds: float = 900) -> None:
    """Until so many proteins are in the store; a job that ended before says why. Python with torch starts slowly."""
    deadline, look = time.monotonic() + seconds, 0.0
    while len(completed(store)) < number:
        assert time.monotonic() < deadline, f"{len(completed(store))} proteins after {seconds:.0f} s"
        if time.monotonic() > look:
            look = time.monotonic() + 5
            states = {state.get("JobState") for state in cluster.states(job)}
            told = "\n".join(path.read_text() for path in store.parent.glob("out*.txt"))
            assert states & {"PENDING", "RUNNING", "COMPLETING", "CONFIGURING"}, f"the job is {states}:\n{told}"
        time.sleep(0.1)


def test_two_tasks_and_the_time_limit_with_requeue(
    cluster: Cluster, arguments: list[str], expected: dict[str, str], tmp_path: Path
) -> None:
    """predict.sbatch: SLURM's own SIGTERM before the limit ends both tasks with 75, the job queues itself again."""
    store, output = tmp_path / "run.zarr", tmp_path / "out.txt"
    job = submit(
        cluster, "predict.sbatch", output, [*SMALL, "--ntasks-per-node=2", "--time=30"],
        [*arguments, "trainer.accelerator=cpu", f"store={store}"],
    )  # fmt: skip
    wait_for(cluster, job, store, 3)
    # The limit is brought near, as an administrator would; SLURM looks at limits once a minute, signals 120 s before.
    said = cluster.command("scontrol", "update", f"JobId={job}", "TimeLimit=2")
    assert not said.strip(), said
    deadline = time.monotonic() + 150
    while cluster.state(job).get("Restarts") == "0" and cluster.state(job).get("JobState") != "COMPLETED":
        assert time.monotonic() < deadline, output.read_text()
        time.sleep(0.5)
    cluster.command("scontrol", "update", f"JobId={job}", "TimeLimit=30")
    (state,) = cluster.wait(job, 900)
    assert (state["JobState"], state["ExitCode"], state["Restarts"]) == ("COMPLETED", "0:0", "1"), output.read_text()
    assert "interrupted by SIGTERM" in output.read_text()
    is_whole(store, expected)


def test_a_task_that_is_killed_ends_the_job_with_an_error_and_a_second_job_finishes_it(
    cluster: Cluster, arguments: list[str], expected: dict[str, str], tmp_path: Path
) -> None:
    store, output = tmp_path / "run.zarr", tmp_path / "out.txt"
    options, words = [*SMALL, "--ntasks-per-node=2"], [*arguments, "trainer.accelerator=cpu", f"store={store}"]
    job = submit(cluster, "predict.sbatch", output, options, words)
    wait_for(cluster, job, store, 3)
    kill_one_task(str(store))
    (state,) = cluster.wait(job, 300)
    assert state["JobState"] == "FAILED" and state["ExitCode"] != "0:0", output.read_text()
    assert len(completed(store)) < PROTEINS
    again = submit(cluster, "predict.sbatch", output, options, words)
    (state,) = cluster.wait(again, 900)
    assert (state["JobState"], state["ExitCode"]) == ("COMPLETED", "0:0"), output.read_text()
    is_whole(store, expected)


def test_an_array_of_shards_one_of_them_terminated(
    cluster: Cluster, arguments: list[str], expected: dict[str, str], tmp_path: Path
) -> None:
    """predict_array.sbatch: three tasks at once; SIGTERM to one of them is a requeue of that one alone."""
    store = tmp_path / "run.zarr"
    job = submit(
        cluster, "predict_array.sbatch", tmp_path / "out-%a.txt", [*SMALL, "--array=1-3"],
        [*arguments, "trainer=cpu", f"store={store}"],
    )  # fmt: skip
    wait_for(cluster, job, store, 3)
    cluster.command("scancel", "--signal=TERM", f"{job}_2")
    states = cluster.wait(job, 900)
    said = {path.name: path.read_text() for path in tmp_path.glob("out-*.txt")}
    assert [state["ExitCode"] for state in states] == ["0:0"] * 3, said
    assert sorted(state["Restarts"] for state in states) == ["0", "0", "1"], said
    is_whole(store, expected)


def kill_one_task(store: str) -> None:
    """SIGKILL to the second process whose command line names the store and runs plmjac."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        is_task = b"plmjac.predict" in words and b"python" in words[0]
        if entry.name.isdigit() and is_task and any(store.encode() in word for word in words):
            found.append(int(entry.name))
    assert len(found) == 2, found
    os.kill(max(found), 9)
