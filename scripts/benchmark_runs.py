"""Whole runs of `plmjac.predict`: what writing costs, what a second process brings, memory, start-up and resuming.

    python scripts/benchmark_runs.py                      # all of it on the CPU, about 15 minutes
    python scripts/benchmark_runs.py writer scaling --device cuda --cases 150m:256 650m:256 --proteins 8

- *writer*: seconds with keep=[contacts,jacobian] over seconds with keep=[contacts], rounds alternating.
- *scaling*: seconds of one process over those of two under torchrun, one thread (or one GPU) each; and over those of
  two separate runs of half the proteins, which is what the machine itself allows.
- *memory*: peak resident memory of a run of 200 and of 2,000 small proteins (model=debug).
- *resume*: `predict` on a store of 20,000 proteins that has them all, and `plan` of the same records.

Weights are random, which changes no speed. The seconds of a run are those it prints itself, from the first forward to
the last commit; where start-up counts (*resume*) they are those of the whole command. Prints Markdown.
"""

import argparse
import math
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from bench_models import ARCHITECTURES, trained_like

from plmjac.alphabet import AMINO_ACIDS


@dataclass(frozen=True)
class Ran:
    """Cost of a command: seconds of the loop as printed (NaN for an empty one) and in all, and peak bytes."""

    loop: float
    whole: float
    peak: int


def ran(*words: str, threads: int, processes: int = 1, **variables: str) -> Ran:
    """Run a module of plmjac to its end; SystemExit with what it said if it fails."""
    start = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)] * (processes > 1)
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), **variables}
    began = time.perf_counter()
    with tempfile.TemporaryFile("w+") as said:
        child = subprocess.Popen([sys.executable, *start, *words], env=environment, stdout=said, stderr=said)
        peak = 0
        while child.poll() is None:
            peak = max(peak, peak_memory(child.pid))
            time.sleep(0.02)
        whole = time.perf_counter() - began
        said.seek(0)
        text = said.read()
    if child.returncode:
        raise SystemExit(f"benchmark_runs: {' '.join(words)} ended with {child.returncode}:\n{text[-2000:]}")
    found = re.search(r"proteins? in ([\d.,]+) s", text)
    return Ran(float(found[1].replace(",", "")) if found else float("nan"), whole, peak)


def peak_memory(process: int) -> int:
    """Bytes resident at the most so far, on Linux; the usage that a parent is told of starts from its own peak."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return 1024 * int(found[1]) if found else 0


def write_fasta(path: Path, number: int, low: int, high: int) -> Path:
    """Random proteins of low to high residues, the same each time."""
    draw = random.Random(number)
    lengths = [draw.randint(low, high) for _ in range(number)]
    records = [f">p{k}\n{''.join(draw.choices(AMINO_ACIDS, k=length))}\n" for k, length in enumerate(lengths)]
    path.write_text("".join(records), encoding="utf-8")
    return path


def checkpoint(size: str, folder: Path) -> Path:
    """Random weights of a published architecture in a file such as fair-esm's."""
    path, shape = folder / f"esm2_{size}.pt", ARCHITECTURES[size]
    if not path.exists():
        options = argparse.Namespace(
            arch="transformer_lm_esm2", encoder_layers=shape.num_layers, encoder_embed_dim=shape.width,
            encoder_attention_heads=shape.num_heads, token_dropout=True,
        )  # fmt: skip
        weights = {name: tensor for name, tensor in trained_like(shape).items() if not name.startswith("contact_head")}
        torch.save({"cfg": {"model": options}, "model": weights}, path)
    return path


class Runs:
    """The measurements, each of which returns its lines; everything they write is under one temporary folder."""

    def __init__(self, folder: Path, arguments: argparse.Namespace) -> None:
        self.folder, self.arguments = folder, arguments
        self._count = 0

    def predict(
        self, fasta: Path, *keys: str, threads: int, processes: int = 1, store: Path | None = None, **variables: str
    ) -> Ran:
        """A run into a store of its own, unless one is given, with these environment variables."""
        self._count += 1
        store = store or self.folder / f"{self._count}.zarr"
        words = ["-m", "plmjac.predict", "+dataset=fasta", f"dataset.path={fasta}", f"store={store}", *keys]
        return ran(*words, threads=threads, processes=processes, **variables)

    def cases(self) -> list[tuple[str, Path, list[str]]]:
        """Name, proteins and keys of each size and length."""
        found = []
        for case in self.arguments.cases:
            size, length = case.split(":")
            number = self.arguments.proteins
            fasta = write_fasta(self.folder / f"{size}_{length}_{number}.fasta", number, int(length), int(length))
            keys = ["model=debug"]
            if size != "debug":
                keys = [f"model=esm2_{size}", f"model.checkpoint={checkpoint(size, self.folder)}"]
            # On a GPU as many tokens a forward as are fastest, which is measured when a store is begun.
            keys += ["max_tokens=4096"] * (self.arguments.device == "cpu")
            found.append((f"{size}, {number} x L = {length}", fasta, keys))
        return found

    def writer(self) -> list[str]:
        """Ratios within a round."""
        device = "trainer=gpu" if self.arguments.device == "cuda" else "trainer=cpu"
        lines = ["| run | contacts, s | contacts and Jacobian, s | ratio (range) |", "|---|---|---|---|"]
        for name, fasta, keys in self.cases():
            keeps = ("keep=[contacts]", "keep=[contacts,jacobian]")
            rounds = [
                [self.predict(fasta, *keys, device, keep, threads=self.arguments.threads).loop for keep in keeps]
                for _ in range(self.arguments.rounds)
            ]
            lines.append(_row(name, rounds, lambda one, two: two / one))
        return lines

    def scaling(self) -> list[str]:
        """One process against two ranks with as many threads each, and what the machine itself gives two processes.

        The latter is two separate runs side by side of half the proteins each, which know nothing of one another.
        """
        device = "gpu" if self.arguments.device == "cuda" else "cpu"
        lines = ["| run | one process, s | two at once, s | ratio (range) |", "|---|---|---|---|"]
        for name, fasta, keys in self.cases()[:1]:
            alone = (*keys, f"trainer={device}", "threads=1")
            rounds = []
            for _ in range(self.arguments.rounds):
                one = self.predict(fasta, *alone, threads=1).loop
                two = self.predict(
                    fasta, *keys, "trainer=ddp", f"trainer.accelerator={device}", "threads=1", threads=1, processes=2
                ).loop
                rounds.append([one, two, self._side_by_side(fasta, *alone)])
            lines.append(_row(f"{name}, two ranks", [each[:2] for each in rounds], lambda one, two: one / two))
            lines.append(_row(f"{name}, separate runs", [each[::2] for each in rounds], lambda one, two: one / two))
        return lines

    def _side_by_side(self, fasta: Path, *keys: str) -> float:
        """Seconds of the slower of two runs at the same time, each with every other protein."""
        records = fasta.read_text(encoding="utf-8").split(">")[1:]
        halves = [self.folder / f"half_{start}.fasta" for start in (0, 1)]
        for start, half in enumerate(halves):
            half.write_text("".join(f">{record}" for record in records[start::2]), encoding="utf-8")
        stores = [self.folder / f"{half.stem}_{self._count}.zarr" for half in halves]
        devices = os.environ.get("CUDA_VISIBLE_DEVICES", "0,1").split(",") + [""] * 2  # a CPU needs none
        with ThreadPoolExecutor(2) as pool:
            running = [
                pool.submit(self.predict, half, *keys, threads=1, store=store, CUDA_VISIBLE_DEVICES=devices[number])
                for number, (half, store) in enumerate(zip(halves, stores, strict=True))
            ]
            return max(each.result().loop for each in running)

    def memory(self) -> list[str]:
        """Ten times as many proteins of the same lengths."""
        lines = ["| proteins of 12 to 18 residues | peak memory, MB | s |", "|---|---|---|"]
        for number in (200, 2000):
            fasta = write_fasta(self.folder / f"small_{number}.fasta", number, 12, 18)
            run = self.predict(fasta, "model=debug", "trainer=cpu", "keep=[contacts,jacobian]", threads=1)
            lines.append(f"| {number:,} | {run.peak / 1e6:,.0f} | {run.loop:,.0f} |")
        return lines

    def resume(self) -> list[str]:
        """Whole commands, imports included."""
        number = self.arguments.records
        fasta, store = write_fasta(self.folder / "many.fasta", number, 60, 500), self.folder / "many.zarr"
        keys = ("model=debug", "trainer=cpu", "substitutions=none", "keep=[logits]")
        self.predict(fasta, *keys, threads=self.arguments.threads, store=store)
        few = write_fasta(self.folder / "few.fasta", 1, 60, 500)
        self.predict(few, *keys, threads=1, store=self.folder / "few.zarr")
        plan = ("-m", "plmjac.plan", "+dataset=fasta", "model=debug")
        commands: dict[str, Callable[[], Ran]] = {
            f"predict, {number:,} done": lambda: self.predict(fasta, *keys, threads=1, store=store),
            "predict, 1 done": lambda: self.predict(few, *keys, threads=1, store=self.folder / "few.zarr"),
            f"plan, {number:,} records": lambda: ran(*plan, f"dataset.path={fasta}", threads=1),
            "plan, 1 record": lambda: ran(*plan, f"dataset.path={few}", threads=1),
        }
        lines = ["| command | s (range) |", "|---|---|"]
        for name, command in commands.items():
            times = [command().whole for _ in range(self.arguments.rounds)]
            lines.append(f"| {name} | {statistics.median(times):.1f} ({min(times):.1f} to {max(times):.1f}) |")
        return lines


def _row(name: str, rounds: list[list[float]], ratio: Callable[[float, float], float]) -> str:
    if any(math.isnan(seconds) for each in rounds for seconds in each):
        raise SystemExit(f"benchmark_runs: {name}: a run did not say how long it took")
    if min(seconds for each in rounds for seconds in each) <= 0:
        raise SystemExit(f"benchmark_runs: {name}: a run of under 0.1 s cannot be timed; take longer proteins or more")
    ratios = [ratio(*each) for each in rounds]
    first, second = (statistics.median(times) for times in zip(*rounds, strict=True))
    return (
        f"| {name} | {first:.1f} | {second:.1f} | "
        f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) |"
    )


PARTS = ("writer", "scaling", "memory", "resume")


def main(words: list[str] | None = None) -> None:
    """Measure the parts that are named, all by default."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("parts", nargs="*", default=[], metavar="PART", help=", ".join(PARTS))
    add("--device", default="cpu", choices=["cpu", "cuda"])
    add("--cases", nargs="+", default=["8m:48", "150m:24"], metavar="SIZE:L", help="of writer; scaling takes the first")
    add("--proteins", type=int, default=4, help="proteins of a run of writer and scaling")
    add("--records", type=int, default=20_000, help="proteins of resume")
    add("--rounds", type=int, default=3)
    add("--threads", type=int, default=len(os.sched_getaffinity(0)))
    arguments = parser.parse_args(words)
    if wrong := sorted(set(arguments.parts) - set(PARTS)):
        parser.error(f"no part {wrong[0]!r}; there are {', '.join(PARTS)}")
    for case in arguments.cases:
        size, _, length = case.partition(":")
        if size not in ARCHITECTURES or not length.isdigit() or int(length) < 1:
            parser.error(f"a case is SIZE:L with a size of {', '.join(ARCHITECTURES)}, not {case!r}")
    if arguments.proteins < 2 and "scaling" in (arguments.parts or PARTS):
        parser.error("scaling shares the proteins between two: --proteins 2 or more")
    if min(arguments.rounds, arguments.proteins, arguments.records) < 1:
        parser.error("--rounds, --proteins and --records are 1 or more")
    with tempfile.TemporaryDirectory() as folder:
        runs = Runs(Path(folder), arguments)
        for part in arguments.parts or PARTS:
            print(f"\n{part}\n", flush=True)
            print("\n".join(getattr(runs, part)()), flush=True)


if __name__ == "__main__":
    main()
