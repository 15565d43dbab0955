"""Ten random kills of two ranks on real sequences, then one run to the end: `make test-faults`."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support import ROOT, SHARED, run_command, tree

from plmjac.store import completed, open_store, read_manifest, verify

FOLDER = SHARED / "covariation"
KILLS = 10
pytestmark = pytest.mark.timeout(1800)
if "PLMJAC_TEST_FAULTS" not in os.environ:
    pytest.skip("the soak is part of `make test-faults` (minutes)", allow_module_level=True)
if not FOLDER.is_dir():
    pytest.skip(f"the real sequences are not here ({FOLDER})", allow_module_level=True)


def sequences() -> dict[str, str]:
    """The domains of the folder, of at most 120 residues."""
    found: dict[str, str] = {}
    for record in (FOLDER / "queries.fasta").read_text().split(">")[1:]:
        header, _, rest = record.partition("\n")
        residues = "".join(rest.split()).replace("-", "")
        if len(residues) <= 120:
            found[header.split()[0]] = residues
    return found


def test_ten_random_kills_of_two_ranks_lose_nothing(tmp_path: Path) -> None:
    proteins = sequences()
    assert len(proteins) > 20
    path = tmp_path / "real.fasta"
    path.write_text("".join(f">{name}\n{sequence}\n" for name, sequence in proteins.items()))
    arguments = [
        "+dataset=fasta", f"dataset.path={path}", "model=debug", "keep=[contacts,jacobian]", "rows_per_chunk=24",
        "threads=1",
    ]  # fmt: skip
    undisturbed = run_command(*arguments, f"store={tmp_path / 'undisturbed.zarr'}", timeout=900)
    assert undisturbed.returncode == 0, undisturbed.stderr
    expected = tree(tmp_path / "undisturbed.zarr")
    store, chance = tmp_path / "run.zarr", random.Random(15)
    line = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "plmjac.predict",
        *arguments, f"store={store}", "trainer=ddp", "trainer.accelerator=cpu",
    ]  # fmt: skip
    for kill in range(KILLS):
        began = len(completed(store))
        process = subprocess.Popen(
            line, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        wanted = min(len(proteins) - 1, began + chance.randrange(0, max(2, len(proteins) // KILLS)))
        deadline = time.monotonic() + 120
        while process.poll() is None and len(completed(store)) <= wanted and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(chance.random())
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        there = tree(store) if store.exists() else {}
        wrong = [name for name, digest in there.items() if name in expected and expected[name] != digest]
        assert not wrong, f"after kill {kill + 1}: {wrong[:3]}"
    done = run_command(*arguments, f"store={store}", timeout=900)
    assert done.returncode == 0, done.stderr
    assert tree(store) == expected
    assert {row.status for row in read_manifest(store)} == {"done"}
    assert not any(damages for _, damages in verify(open_store(store), deep=True))
