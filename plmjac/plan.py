"""Forecast a run: `python -m plmjac.plan +dataset=pdb model=esm2_650m ...`, the arguments of predict, nothing is run.

Hours are forecast from this machine's own measured matrix-product rate, and beside it for the usual GPUs, in the
precision that the run would have there, from what was measured on one (`plmjac.inference.rates`). Memory is added up
tensor by tensor (`plmjac.inference.memory`).
"""

import logging
import sys
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from plmjac.config import DONE, Config, run
from plmjac.files import UsageError
from plmjac.predict import build_dataset, precision_on
from plmjac.predict_settings import PredictConfig, parse_predict
from plmjac.readouts import READOUTS

if TYPE_CHECKING:
    from plmjac.datasets import Dataset
    from plmjac.models import ModelSize
    from plmjac.workplan import ManifestRow

log = logging.getLogger("plmjac.plan")

CPU_SHARE = 0.5


def plan(config: Config) -> int:
    """Print the forecast of a prediction and return the exit code."""
    settings = parse_predict(config)
    dataset = build_dataset(settings)
    from plmjac.models import size_of

    try:
        model = size_of(**settings.model.model_dump(), kind=_kind(settings))
    except (ValueError, OSError) as error:
        raise UsageError(f"{error}") from error
    rows, reasons = _rows(settings, dataset)
    print(f"model     {settings.model.name}: {model}, {millions(model.num_parameters)} parameters")
    print(f"dataset   {settings.dataset['name']}: {len(rows)} records")
    for reason, count in reasons.items():
        print(f"            {count:6d} {reason}")
    todo = [row for row in rows if row.status == "pending" and not row.alias_of]
    if todo:
        _print_work(todo, settings, model)
    for row in rows:
        if row.status in ("failed", "skipped"):
            print(f"{row.status:8s}  {row.id}: {row.reason} [{row.source}]")
    return DONE


def _rows(settings: PredictConfig, dataset: "Dataset") -> "tuple[list[ManifestRow], Counter[str]]":
    """The manifest as predict would write it now, and how many records fall under each reason to run or not to run."""
    from plmjac.store import read_manifest, stored_proteins
    from plmjac.workplan import manifest

    earlier = read_manifest(settings.store)
    failed_before = {row.key for row in earlier if row.status == "failed"}
    stored = stored_proteins(settings.store, earlier)
    rows = manifest(dataset, max_length=settings.max_length, stored=stored)
    reasons: Counter[str] = Counter()
    plain = []
    for row in rows:
        if row.status == "done":
            reasons["already in the store"] += 1
        elif row.alias_of:
            reasons["have the sequence of another record: computed once"] += 1
            plain.append(row)
        elif row.status == "pending":
            reasons["will be tried again (failed before)" if row.key in failed_before else "will be computed"] += 1
            plain.append(row)
        else:
            reasons[f"{row.status} (see below)" if row.status != "filtered" else "left out by the dataset"] += 1
            plain.append(row)
    return plain, reasons


@dataclass(frozen=True)
class _Work:
    """What is forecast of a run: forwards of each protein, how sure that is, and bytes on disk and in memory."""

    forwards: list[int]
    certainty: str
    stored: int
    memory: str


def _print_work(rows: "list[ManifestRow]", settings: PredictConfig, model: "ModelSize") -> None:
    lengths = [row.length for row in rows]
    work = (_jacobian_work if settings.recovery is None else _recovery_work)(rows, settings, model)
    total = sum(each * model.flops(length) for each, length in zip(work.forwards, lengths, strict=True))
    print(f"residues  {sum(lengths):,} (lengths {min(lengths)} to {max(lengths)})")
    print(f"forwards  {sum(work.forwards):,}{work.certainty}")
    print(f"FLOPs     {total:.3g}")
    rate = measured_rate() * CPU_SHARE
    print(
        f"time      {duration(total / rate)} on this machine's CPU at {rate / 1e9:.0f} GFLOP/s (half of what its matrix"
    )
    print("          products were just measured to do; small models are slower than this, by their overhead)")
    _print_gpu_times(total, sum(lengths) / len(lengths), settings, model)
    print(f"store     about {size(work.stored)}, uncompressed")
    print(f"memory    {work.memory}")


def _print_gpu_times(flops: float | int, length: float, settings: PredictConfig, model: "ModelSize") -> None:
    from plmjac.inference.rates import Way, compiling_saves, gpu_times

    precision = precision_on("cuda", settings)
    way: Way = "plain" if not settings.model.fast else "fast"
    if settings.model.compiled or (settings.compiles_itself and compiling_saves(flops)):
        way = "compiled"
    for each in gpu_times(flops, model.num_parameters, length, precision, way):
        print(f"          {duration(each.seconds)} on one {each.card} in {precision}\n            ({each.source})")


def _jacobian_work(rows: "list[ManifestRow]", settings: PredictConfig, model: "ModelSize") -> _Work:
    from plmjac.inference.batch_size import CANDIDATES, LENGTH
    from plmjac.inference.memory import forecast
    from plmjac.jacobian import mutants_per_forward
    from plmjac.workplan import forwards

    lengths, letters = [row.length for row in rows], settings.substitutions.num_letters
    kind = _kind(settings)
    max_tokens = settings.max_tokens or max(CANDIDATES[kind])
    memory = forecast(
        model, max(lengths), settings.substitutions, settings.keep, max_tokens, settings.rows_per_chunk, kind=kind
    )
    # Where the number of tokens is still to be measured, as large a forward is tried, whatever the proteins.
    tried = 0 if settings.max_tokens else model.of_logits(mutants_per_forward(LENGTH, max_tokens), LENGTH)
    return _Work(
        [forwards(length, settings.substitutions.forwards_per_residue) for length in lengths],
        "",
        sum(stored_bytes(length, settings.keep, letters, model) for length in lengths),
        f"{size(max(memory.peak, memory.weights + tried))} of each {'GPU' if kind == 'cuda' else 'process'}, "
        f"libraries apart; in it the weights {size(memory.weights)}, a forward of\n          {max_tokens:,} tokens"
        f"{'' if settings.max_tokens else ', the most that is tried,'} {size(max(memory.forward, tried))}, "
        f"the longest protein's Jacobian {size(memory.jacobian)}",
    )


def _kind(settings: PredictConfig) -> Literal["cpu", "cuda"]:
    """The device that the run is meant for: with trainer=gpu, or tf32, one that need not be in this machine."""
    from plmjac.inference.device import device_kind

    on_gpu = settings.trainer.accelerator == "gpu" or settings.model.precision == "tf32"
    return "cuda" if on_gpu else device_kind(settings.trainer)


def _recovery_work(rows: "list[ManifestRow]", settings: PredictConfig, model: "ModelSize") -> _Work:
    from plmjac.inference.annotations import annotations

    recovery = settings.recovery
    assert recovery is not None
    known = annotations(recovery.segments, build_dataset(settings))
    contexts = [recovery.contexts_of(row.id, row.length, known) for row in rows]
    longest = max(row.length for row in rows)
    return _Work(
        [recovery.forwards_of(row.length, number) for row, number in zip(rows, contexts, strict=True)],
        " exactly" if recovery.is_exact else " at most: segments are chosen by contacts that are not known yet",
        sum(recovery.stored_bytes(row.length, number) for row, number in zip(rows, contexts, strict=True)),
        f"{size(1600 * longest**2)} for the Jacobian of the longest protein, besides model and forward"
        if recovery.readout == "jacobian"
        else f"{size(max(recovery.stored_bytes(row.length, n) for row, n in zip(rows, contexts, strict=True)))} "
        "for the contexts of one protein, besides model and forward",
    )


def stored_bytes(length: int, keep: Iterable[str], letters: int, model: "ModelSize") -> int:
    """Bytes of one protein's arrays before compression; `letters` are those each position is set to."""
    sizes = {"L": length, "A": letters, "layers": model.num_layers, "heads": model.num_heads}
    return sum(READOUTS[name].num_bytes(sizes) for name in keep)


def measured_rate(seconds: float = 0.3) -> float:
    """FLOP/s of float32 matrix products on this machine's CPU, measured now."""
    import torch

    a = torch.randn(512, 512)
    done, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        a @ a
        done += 1
    return done * 2 * 512**3 / (time.perf_counter() - began)


def duration(seconds: float | int) -> str:
    """Seconds in the unit that suits them."""
    for unit, length in (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 2 * length:
            return f"about {seconds / length:.1f} {unit}"
    return f"about {seconds:.0f} s" if seconds >= 1 else "under 1 s"


def millions(number: int) -> str:
    """A count of parameters as the field gives it."""
    return f"{number / 1e6:.1f} M" if number >= 1e5 else f"{number / 1e3:.0f} k"


def size(number: float | int) -> str:
    """Bytes in the unit that suits them."""
    for unit, length in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if number >= length:
            return f"{number / length:.1f} {unit}"
    return f"{number / 1e3:.1f} kB"


def main() -> None:
    """The entry point; ends the process with its exit code."""
    sys.exit(run("plan", plan, added_groups=["dataset"]))


if __name__ == "__main__":
    main()
