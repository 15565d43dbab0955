"""Side by side, in one run: the authors' loop, transformers' EsmForMaskedLM, our plain path and our fast path.

    python scripts/benchmark.py --out benchmark                     # or: make bench
    python scripts/benchmark.py --device cuda --cases 650m:256 150m:256 --minutes 20   # make gpu runs it with less

Each case is a model size and a length; weights are random, which changes no speed. All compute the categorical
Jacobian of the same sequence and must give the same contact map, which is checked on a short sequence in the same run.

- *authors*: fair-esm's module in float32, the 20 mutants of one position a forward, logits copied to numpy, the
  reduction of Zhang et al. (2024) in numpy float64.
- *transformers*: EsmForMaskedLM with sdpa in float32 (fp16 autocast where --precision is fp16), otherwise our loop:
  same batches, same reduction.
- *plain*, *fast*: `plmjac.jacobian.jacobian_rows`, then `contact_map`, with `fast=false` and `fast=true`: the
  arithmetic of `plmjac.predict` without its start, its processes and its files, which are not timed.
- *compiled* and *transformers compiled*, with --compiled (always on a GPU): fast with `compiled=true`, and
  EsmForMaskedLM with each layer through torch.compile. One that cannot be compiled is left out, by name. "First use" is
  what the very first map of each costs, of two residues: compiling, mostly.

Positions cost the same, so a round times a few of them (a whole number of forwards; on a GPU two for those in float32)
and scales up; the wild type's forward and the reduction are timed once and added. Rounds alternate, and ratios are of
the same round: medians and ranges over rounds. Writes benchmark.json and benchmark.md, and with --docs the tables into
docs/benchmarks.md.
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import bench_precision
import bench_tables
import numpy as np
import torch
from bench_models import ARCHITECTURES, authors_map, authors_rows, trained_like, transformers_logits
from torch import Tensor

from plmjac.jacobian import all_letters, contact_map, jacobian_rows
from plmjac.models import Architecture, Precision
from plmjac.models.base import kernels
from plmjac.models.esm2 import Esm2
from plmjac.models.esm2_compiled import Esm2Compiled
from plmjac.models.esm2_fast import Esm2Fast

KINDS = ("authors", "transformers", "plain", "fast")
COMPILED = ("transformers compiled", "compiled")
CHECKED_LENGTH = 12
"""Residues of the sequence whose maps are compared."""


TOLERANCES = {"fp32": 2e-4, "tf32": 5e-2, "fp16": 5e-2}
"""Of the largest entry of the authors' map; tf32 and fp16 both have 11 bits of significand."""


@dataclass(frozen=True)
class Case:
    """A model size and a length to measure."""

    size: str
    length: int

    @property
    def architecture(self) -> Architecture:
        return ARCHITECTURES[self.size]


class Contenders:
    """The ways to one contact map, with the same weights on one device."""

    def __init__(
        self, architecture: Architecture, device: str, precision: Precision, max_tokens: int, compiled: bool
    ) -> None:
        tensors = trained_like(architecture, device)
        given: dict[str, Any] = {
            "name": "random", "architecture": architecture, "tensors": tensors, "weights_sha256": ""
        }  # fmt: skip
        self.plain = Esm2(**given).to(device)
        self.ways: dict[str, Callable[[Tensor], Tensor]] = {
            "authors": self.plain.logits, "plain": self.plain.logits,
            "fast": Esm2Fast(precision=precision, **given).to(device).logits,
            "transformers": transformers_logits(architecture, tensors, device, precision),
        }  # fmt: skip
        if compiled:
            self.ways["compiled"] = Esm2Compiled(precision=precision, **given).to(device).logits
            theirs = transformers_logits(architecture, tensors, device, precision, compiled=True)
            self.ways["transformers compiled"] = theirs
        self.max_tokens, self.device = max_tokens, device

    def count_of(self, kind: str, count: int) -> int:
        """Number of positions that a round times; few for the two in float32 on a GPU, which they keep busy anyway."""
        return min(count, 2) if self.device == "cuda" and kind in ("authors", "plain") else count

    def rows(self, kind: str, tokens: Tensor, start: int, stop: int) -> Tensor | np.ndarray:
        """Rows of the Jacobian before the wild type's logits are subtracted; its forward is not run."""
        if kind == "authors":
            return authors_rows(self.plain, tokens, start, stop)
        letters = all_letters(len(tokens)).to(self.device)
        nothing = torch.zeros(len(tokens), 20, device=self.device)
        return jacobian_rows(
            self.ways[kind], tokens, start, stop, wild_type=nothing, letters=letters, max_tokens=self.max_tokens
        )

    def wild_type(self, kind: str, tokens: Tensor) -> Tensor:
        """Logits (L, 20) of the sequence as it is."""
        return self.ways[kind](tokens[None])[0].float()

    def reduce(self, kind: str, jacobian: Tensor | np.ndarray) -> np.ndarray:
        """From the Jacobian to the contact map on the host; the Jacobian may be overwritten."""
        if kind == "authors":
            return authors_map(np.asarray(jacobian))
        assert isinstance(jacobian, Tensor)
        return contact_map(jacobian, overwrite=True).cpu().numpy()

    def whole(self, kind: str, tokens: Tensor) -> np.ndarray:
        """The contact map, every forward run."""
        rows = self.rows(kind, tokens, 0, len(tokens))
        if kind == "authors":
            return self.reduce(kind, np.asarray(rows) - self.wild_type(kind, tokens).cpu().numpy())
        assert isinstance(rows, Tensor)
        rows -= self.wild_type(kind, tokens)
        rows[torch.arange(len(tokens)), tokens] = 0  # the native residue is not run
        return self.reduce(kind, rows)


def seconds(work: Callable[[], object], device: str) -> float:
    """Time of one call: CUDA events on a GPU, the clock elsewhere."""
    if device != "cuda":
        began = time.perf_counter()
        work()
        return time.perf_counter() - began
    event: Any = torch.cuda.Event
    start, stop = event(enable_timing=True), event(enable_timing=True)
    start.record()
    work()
    stop.record()
    torch.cuda.synchronize()
    return float(start.elapsed_time(stop)) / 1000


def matrix_rate(device: str, precision: Precision) -> float:
    """Multiply-adds of a large matrix product that this machine does in a second, times two: the best of ten."""
    dtype = torch.float16 if precision == "fp16" else torch.float32
    side = 8192 if device == "cuda" else 1536
    left = torch.randn(side, side, device=device, dtype=dtype)
    out = torch.empty_like(left)
    with kernels(precision, left.device):
        times = [seconds(lambda: torch.mm(left, left, out=out), device) for _ in range(10)]
    return 2 * side**3 / min(times)


def positions_per_round(length: int, max_tokens: int, quick: bool) -> int:
    """Number of positions that make about a whole number of our forwards, at least two."""
    if quick:
        return 1
    mutants = max(1, max_tokens // (length + 2))
    return min(length, max(2, round(mutants / 19)))


def measure(case: Case, arguments: argparse.Namespace, seconds_left: float) -> dict[str, Any]:
    """Rounds of all four until time is up (two at least, `--rounds` at most), and what they say."""
    entered = time.monotonic()
    device, length = arguments.device, case.length
    torch._dynamo.reset()  # what was compiled for another size would count towards the limit of recompilations
    contenders = Contenders(case.architecture, device, arguments.precision, arguments.max_tokens, arguments.compiled)
    generator = torch.Generator().manual_seed(length)
    tokens = torch.randint(20, (length,), generator=generator).to(device)
    count = positions_per_round(length, arguments.max_tokens, arguments.quick)
    start_up, left_out = {}, {}
    for kind in (*KINDS, *COMPILED) if arguments.compiled else KINDS:
        try:
            start_up[kind] = seconds(lambda kind=kind: contenders.whole(kind, tokens[:2]), device)  # type: ignore[misc]
        except Exception as error:  # whatever Inductor, Triton and the compilers raise
            if kind not in COMPILED:
                raise
            left_out[kind] = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
    kinds = tuple(start_up)
    maps = {kind: contenders.whole(kind, tokens[:CHECKED_LENGTH]) for kind in kinds}
    for kind in kinds:  # every shape that is timed has run once
        contenders.rows(kind, tokens, 0, contenders.count_of(kind, count))
        contenders.wild_type(kind, tokens)
    reductions = {kind: _reduction_seconds(contenders, kind, length, device) for kind in ("authors", "fast")}
    reductions |= {kind: reductions["fast"] for kind in kinds if kind not in reductions}
    once = {
        kind: reductions[kind] + seconds(lambda kind=kind: contenders.wild_type(kind, tokens), device)  # type: ignore[misc]
        for kind in kinds
    }
    rounds: list[dict[str, float]] = []
    seconds_left -= time.monotonic() - entered
    began = time.monotonic()
    while len(rounds) < arguments.rounds and (len(rounds) < 2 or _one_more(began, len(rounds), seconds_left)):
        start = (len(rounds) * count) % max(1, length - count + 1)
        order = kinds if len(rounds) % 2 == 0 else kinds[::-1]
        times = {}
        for kind in order:
            stop = start + contenders.count_of(kind, count)
            times[kind] = seconds(
                lambda kind=kind, stop=stop: contenders.rows(kind, tokens, start, stop), device  # type: ignore[misc]  # noqa: B023
            ) * length / (stop - start) + once[kind]  # fmt: skip
        rounds.append(times)
    return {
        "size": case.size, "length": length, "rounds": rounds, "positions_timed": count, "left_out": left_out,
        "reduction_s": reductions,
        "once_s": once,
        "map_error": {kind: _relative(maps[kind], maps["authors"]) for kind in kinds}, "start_up_s": start_up,
        "flops": (19 * length + 1) * case.architecture.flops(length), "tokens": (19 * length + 1) * (length + 2),
        "profile": profile(contenders, "compiled" if "compiled" in kinds else "fast", tokens, count, device),
    }  # fmt: skip


def _one_more(began: float, done: int, limit: float) -> bool:
    spent = time.monotonic() - began
    return spent + spent / done <= limit


def _reduction_seconds(contenders: Contenders, kind: str, length: int, device: str) -> float:
    jacobian = torch.randn(length, 20, length, 20, device=device)
    if kind == "authors":
        array = jacobian.double().cpu().numpy()
        return seconds(lambda: contenders.reduce(kind, array), device)
    contenders.reduce(kind, jacobian.clone())  # kernels are loaded
    return seconds(lambda: contenders.reduce(kind, jacobian), device)


def _relative(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def profile(contenders: Contenders, kind: str, tokens: Tensor, count: int, device: str) -> dict[str, float]:
    """Share of our path's time by operator on a CPU and by kernel on a GPU, the ten largest."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiler

    on_gpu = device == "cuda"
    with profiler(activities=[ProfilerActivity.CUDA] if on_gpu else [ProfilerActivity.CPU]) as found:
        contenders.rows(kind, tokens, 0, count)
    attribute = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    operators = [event for event in found.key_averages() if event.key.startswith("aten::") != on_gpu]
    times = {event.key[:60]: float(getattr(event, attribute)) for event in operators}
    total = sum(times.values()) or 1.0
    largest = sorted(times.items(), key=lambda item: -item[1])[:10]
    return {name: spent / total for name, spent in largest}


def summary(result: dict[str, Any], rate: float) -> dict[str, Any]:
    """Medians, ranges and ratios of one case; ratios are taken within a round."""
    rows = {}
    for kind in result["rounds"][0]:
        times = [each[kind] for each in result["rounds"]]
        ratios = [each["authors"] / each[kind] for each in result["rounds"]]
        median = statistics.median(times)
        rows[kind] = {
            "seconds": median, "seconds_range": [min(times), max(times)],
            "ratio": statistics.median(ratios), "ratio_range": [min(ratios), max(ratios)],
            "tokens_per_s": result["tokens"] / median, "share_of_matrix_rate": result["flops"] / median / rate,
            "map_error": result["map_error"][kind], "start_up_s": result["start_up_s"][kind],
        }  # fmt: skip
    ahead = statistics.median(each["transformers"] / each["fast"] for each in result["rounds"])
    return {
        "size": result["size"], "length": result["length"], "rows": rows, "fast_over_transformers": ahead,
        "left_out": result.get("left_out", {}),
    }  # fmt: skip


def machine(arguments: argparse.Namespace) -> dict[str, Any]:
    """Machine and versions of the measurement."""
    import transformers

    name = torch.cuda.get_device_name() if arguments.device == "cuda" else platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if arguments.device == "cpu" and cpuinfo.exists():
        models = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        name = models[0] if models else name
    return {
        "device": name, "threads": torch.get_num_threads(), "precision": arguments.precision,
        "max_tokens": arguments.max_tokens, "torch": torch.__version__, "transformers": transformers.__version__,
        "python": platform.python_version(), "when": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }  # fmt: skip


def parse(words: list[str] | None = None) -> argparse.Namespace:
    """The command line; raises SystemExit with a sentence for what cannot be measured."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    add = parser.add_argument
    add("--cases", nargs="+", default=["8m:128", "8m:256", "150m:128"], metavar="SIZE:L", help="such as 650m:256")
    add("--device", default="cpu", choices=["cpu", "cuda"])
    add("--precision", choices=["fp32", "tf32", "fp16"], help="of the fast path; default fp32, fp16 on a GPU")
    add("--max-tokens", type=int, help="tokens of one of our forwards; default 5120 on a CPU, 131072 on a GPU")
    add("--threads", type=int, help="of the CPU; default as PyTorch finds it")
    add("--rounds", type=int, default=7, help="at most so many")
    add("--minutes", type=float, default=8, help="for all cases together, about; two rounds of each in any case")
    add("--quick", action="store_true", help="one position a round, two rounds: does it run")
    add("--out", type=Path, default=Path("benchmark"), help="folder for benchmark.json and benchmark.md")
    add("--compiled", action="store_true", help="also the fast path with model.compiled=true (torch.compile)")
    add("--docs", type=Path, help="a Markdown file whose section between the benchmark marks is replaced")
    add("--precision-table", action="store_true", help="also what fp16 and rounding do to maps")
    arguments = parser.parse_args(words)
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("PyTorch sees no CUDA device here; use --device cpu")
    arguments.precision = arguments.precision or ("fp16" if arguments.device == "cuda" else "fp32")
    arguments.max_tokens = arguments.max_tokens or (131072 if arguments.device == "cuda" else 5120)
    arguments.compiled |= arguments.device == "cuda"
    if arguments.quick:
        arguments.rounds = 2
    try:
        pairs = [case.split(":") for case in arguments.cases]
        arguments.cases = [Case(size, int(length)) for size, length in pairs]
    except ValueError:
        parser.error("a case is SIZE:L, such as 8m:256")
    for case in arguments.cases:
        if case.size not in ARCHITECTURES or case.length < CHECKED_LENGTH:
            parser.error(f"sizes are {', '.join(ARCHITECTURES)} and L is {CHECKED_LENGTH} or more, not {case}")
    return arguments


def write(found: dict[str, Any], folder: Path) -> str:
    """Both files; returns the Markdown."""
    text = bench_tables.markdown(found)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "benchmark.json").write_text(json.dumps(found, indent=1) + "\n")
    (folder / "benchmark.md").write_text(text)
    return text


def main(words: list[str] | None = None) -> dict[str, Any]:
    """Measure, print and write; returns what benchmark.json holds. SystemExit if the maps are not the same."""
    arguments = parse(words)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    rate = matrix_rate(arguments.device, arguments.precision)
    cases: list[dict[str, Any]] = []
    began = time.monotonic()
    for number, case in enumerate(arguments.cases):
        left = arguments.minutes * 60 - (time.monotonic() - began)
        result = measure(case, arguments, max(0.0, left) / (len(arguments.cases) - number))
        cases.append({**result, "summary": summary(result, rate)})
        print(bench_tables.case_line(cases[-1]["summary"]), flush=True)
        found = {"machine": machine(arguments), "matrix_rate": rate, "cases": cases}
        write(found, arguments.out)  # what is measured is kept, whatever the next case meets
    if arguments.precision_table:
        found["precision"] = bench_precision.precision_rows(arguments.device, quick=arguments.quick)
        found["rounding"] = bench_precision.rounding_rows(quick=arguments.quick)
    text = write(found, arguments.out)
    if arguments.docs:
        bench_tables.replace_section(arguments.docs, text)
    print(text)
    tolerance = TOLERANCES[arguments.precision]
    wrong = [f"{each['size']}:{each['length']}" for each in cases if max(each["map_error"].values()) > tolerance]
    if wrong:
        raise SystemExit(f"benchmark: the contact maps of {', '.join(wrong)} differ by more than {tolerance}")
    return found


if __name__ == "__main__":
    main()
