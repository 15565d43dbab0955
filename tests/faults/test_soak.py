"""Ten random kills of two ranks on real sequences, then one run to the end: `make test-faults`."""

import os
import random
import socket
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from faults.bench import fast_folder
from faults.forks import Forks, Outcome
from support import SHARED, tree

from plmjac.store import completed, open_store, read_manifest, verify

FOLDER = SHARED / "covariation"
KILLS, LONGEST = 10, 100
pytestmark = pytest.mark.timeout(3600)
if "PLMJAC_TEST_FAULTS" not in os.environ:
    pytest.skip("the soak is part of `make test-faults` (minutes)", allow_module_level=True)
if not FOLDER.is_dir():
    pytest.skip(f"the real sequences are not here ({FOLDER})", allow_module_level=True)


def sequences() -> dict[str, str]:
    """The domains of the folder, of at most 100 residues."""
    found: dict[str, str] = {}
    for record in (FOLDER / "queries.fasta").read_text().split(">")[1:]:
        header, _, rest = record.partition("\n")
        residues = "".join(rest.split()).replace("-", "")
        if len(residues) <= LONGEST:
            found[header.split()[0]] = residues
    return found


class Ranks:
    """Two ranks as torchrun would start them, each a child of a warmed-up process of its own."""

    def __init__(self, *forks: Forks) -> None:
        self.forks = forks
        self._threads = ThreadPoolExecutor(len(forks))

    def start(self, *arguments: str) -> "list[Future[Outcome]]":
        """Begin a run; its outcomes, rank by rank, are there when it has ended."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        number = str(len(self.forks))
        everywhere = {
            "WORLD_SIZE": number, "LOCAL_WORLD_SIZE": number, "GROUP_RANK": "0", "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "soak",
        }  # fmt: skip
        return [
            self._threads.submit(
                forks.run, *arguments, timeout=900,
                environment={**everywhere, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            )
            for rank, forks in enumerate(self.forks)
        ]  # fmt: skip

    def kill(self, chance: random.Random) -> None:
        """SIGKILL to one, and up to half a second later to the other, as their launcher would do."""
        for forks in chance.sample(self.forks, len(self.forks)):
            forks.kill()
            time.sleep(chance.random() / 2)


def test_ten_random_kills_of_two_ranks_lose_nothing() -> None:
    proteins = sequences()
    assert len(proteins) > 20
    with Forks() as first, Forks() as second, fast_folder() as folder:
        path = Path(folder) / "real.fasta"
        path.write_text("".join(f">{name}\n{sequence}\n" for name, sequence in proteins.items()))
        arguments = [
            "+dataset=fasta", f"dataset.path={path}", "model=debug", "keep=[contacts,jacobian]", "rows_per_chunk=24",
            "threads=1",
        ]  # fmt: skip
        whole, store, ranks = Path(folder) / "whole.zarr", Path(folder) / "run.zarr", Ranks(first, second)
        undisturbed = first.run(*arguments, "trainer=cpu", f"store={whole}", timeout=1800)
        assert undisturbed.code == 0, undisturbed.said
        expected, chance, killed = tree(whole), random.Random(15), 0
        for kill in range(KILLS):
            wanted = len(completed(store)) + chance.randrange(0, max(2, len(proteins) // KILLS))
            running = ranks.start(*arguments, "trainer=ddp", "trainer.accelerator=cpu", f"store={store}")
            while not any(each.done() for each in running) and len(completed(store)) <= wanted:
                time.sleep(0.01)
            time.sleep(chance.random())
            ranks.kill(chance)
            outcomes = [each.result() for each in running]
            killed += any(outcome.code == -9 for outcome in outcomes)
            assert all(outcome.code in (-9, 0, 1) for outcome in outcomes), outcomes  # 1: its peer was gone
            wrong = [name for name, digest in tree(store).items() if expected.get(name) != digest]
            assert not wrong, f"after kill {kill + 1}: {wrong[:3]}"
            print(f"kill {kill + 1}: {len(completed(store))} of {len(proteins)} proteins", flush=True)
        assert killed >= KILLS // 2, "most kills came when all was done"
        done = second.run(*arguments, "trainer=cpu", f"store={store}", timeout=1800)
        assert done.code == 0, done.said
        assert tree(store) == expected
        assert {row.status for row in read_manifest(store)} == {"done"}
        assert not any(damages for _, damages in verify(open_store(store), deep=True))
