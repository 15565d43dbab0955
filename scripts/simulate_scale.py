"""The cost of a store of very many proteins to its file system, in today's layout and in packs (docs/scale.md).

    python scripts/simulate_scale.py --proteins 20000 --folder scale

Files of the sizes that a protein of 250 residues has, without a model: the time of a start, of a scan, of the manifest.
"""

import argparse
import os
import random
import resource
import shutil
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from plmjac.records import Protein
from plmjac.store import StoreWriter, completed, create_or_check, read_manifest, stored_proteins, write_manifest
from plmjac.workplan import ManifestRow, manifest, remaining, shared_out, whole

LENGTH = 250
PACK = 1000
"""Proteins of one pack: a zip without compression, as zarr's ZipStore reads it."""


def main() -> None:
    """Print one line a figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--proteins", type=int, default=20_000)
    parser.add_argument("--records", type=int, default=200_000)
    parser.add_argument("--folder", type=Path, required=True)
    options = parser.parse_args()
    plan(options.records)
    layouts(options.folder, options.proteins)


def plan(number: int) -> None:
    """Records to rows, rows to ranks, the manifest there and back: no file of a protein is touched."""
    chance = random.Random(0)
    records = [
        Protein(f"sp|P{n:06d}|NAME", "".join(chance.choices("LAGVSERTIDPKQNFYMHWC", k=LENGTH)), f"x.fasta, record {n}")
        for n in range(number)
    ]
    with timed(f"plan of {number} records"):
        rows = manifest(records)
    with timed("share of one rank of 8"):
        shared_out(whole(remaining(rows, ())), 8)[3]
    folder = Path("manifest-simulation")
    folder.mkdir(exist_ok=True)
    with timed("manifest written"):
        write_manifest(folder, rows)
    with timed("manifest read"):
        read_manifest(folder)
    print(f"manifest: {(folder / 'manifest.parquet').stat().st_size / 2**20:.1f} MB")
    shutil.rmtree(folder)
    print(f"memory at most: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GB")


def layouts(folder: Path, number: int) -> None:
    """One protein made as plmjac makes it, copied; then what a start and a reader have to do."""
    import numpy as np

    shutil.rmtree(folder, ignore_errors=True)
    store = folder / "run.zarr"
    create_or_check(store, {"kind": "jacobian"}, {})
    rng = np.random.default_rng(0)
    with timed("one protein written and forced to the disk"):
        protein = StoreWriter(store).begin("first", sequence="A" * LENGTH, identifier="first")
        protein.write("contacts", rng.standard_normal((LENGTH, LENGTH)).astype(np.float32))
        protein.write("logits", rng.standard_normal((LENGTH, 20)).astype(np.float32))
        protein.commit()
    first = store / "proteins/first"
    entries = list(first.rglob("*"))
    files = [path for path in entries if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    print(f"a protein: {len(files)} files, {len(entries) - len(files) + 1} folders, {size / 1024:.0f} kB")
    with timed(f"{number} copies"):
        for n in range(number - 1):
            shutil.copytree(first, store / f"proteins/p{n}", copy_function=os.link)
    with timed(f"scan of {number} at a start"):
        there = completed(store)
    rows = [ManifestRow(key, key, LENGTH, "A" * LENGTH, status="done") for key in there]
    with timed("the same with the manifest"):
        stored_proteins(store, rows)
    packs = folder / "packs"
    packs.mkdir()
    names = sorted(there)[: min(number, 5 * PACK)]
    with timed(f"{len(names)} proteins into packs of {PACK}"):
        for start in range(0, len(names), PACK):
            with zipfile.ZipFile(packs / f"{start // PACK}.zip", "w", zipfile.ZIP_STORED) as pack:
                for name in names[start : start + PACK]:
                    for path in files:
                        pack.write(path, f"{name}/{path.relative_to(first)}")
    chance = random.Random(1)
    chosen = chance.sample(names, min(200, len(names)))
    with timed(f"{len(chosen)} random maps from folders"):
        for name in chosen:
            (store / "proteins" / name / "contacts/c/0/0").read_bytes()
    opened = [zipfile.ZipFile(path) for path in sorted(packs.iterdir(), key=lambda path: int(path.stem))]
    index = {name: opened[at // PACK] for at, name in enumerate(names)}
    with timed(f"{len(chosen)} random maps from packs"):
        for name in chosen:
            index[name].read(f"{name}/contacts/c/0/0")
    for pack in opened:
        pack.close()
    with timed("the store deleted"):
        shutil.rmtree(folder)


@contextmanager
def timed(what: str) -> Iterator[None]:
    """Say how long a block took: by the clock, and in this process's own CPU time."""
    began, busy = time.perf_counter(), time.process_time()
    yield
    print(f"{what}: {time.perf_counter() - began:.2f} s ({time.process_time() - busy:.2f} s of CPU)", flush=True)


if __name__ == "__main__":
    main()
