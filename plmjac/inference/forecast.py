"""The work of a run before it starts: forwards, operations, hours, bytes on disk and in memory.

Hours are forecast from this machine's own measured matrix-product rate, and beside it for the usual GPUs, in the
precision that the run would have there, at the share of their peak that is stated; they are orders of magnitude, not
promises. Memory is added up tensor by tensor.
"""

import time
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from plmjac.files import UsageError
from plmjac.inference.launch import Kind, Launch, device_of
from plmjac.inference.resolve import build_dataset, precision_on
from plmjac.inference.settings import PredictSettings
from plmjac.inference.tasks import Task, build_task
from plmjac.workplan import ManifestRow, manifest

if TYPE_CHECKING:
    from plmjac.datasets import Dataset
    from plmjac.models import Architecture

GPU_FLOPS = {
    "fp32": {"A100": 19.5e12, "H100 or H200": 60e12},
    "tf32": {"A100": 156e12, "H100 or H200": 494e12},
    "fp16": {"A100": 312e12, "H100 or H200": 989e12},
}
"""Peak rates of the makers' data sheets: without tensor cores (fp32), and with them and without sparsity."""
GPU_SHARE = {"fp32": 0.5, "tf32": 0.3, "fp16": 0.3}
"""A guess: published codes for this workload reach 0.1 to 0.4 with tensor cores."""
CPU_SHARE = 0.5


def forecast_of(settings: PredictSettings) -> Iterator[str]:
    """The forecast of a run, line by line, then the records that it will refuse. Loads no weights, writes nothing."""
    dataset = build_dataset(settings)
    from plmjac.models import architecture  # imports torch: after the mistakes that can be named without it

    try:
        model_size = architecture(settings.model.name, settings.model.checkpoint)
    except (ValueError, OSError) as error:
        raise UsageError(str(error)) from error
    rows, reasons = _rows(settings, dataset)
    yield f"model     {settings.model.name}: {model_size}, {_millions(model_size.num_parameters)} parameters"
    yield f"dataset   {settings.dataset['name']}: {len(rows)} records"
    yield from (f"            {count:6d} {reason}" for reason, count in reasons.items())
    if todo := [row for row in rows if row.status == "pending" and not row.alias_of]:
        yield from _work(todo, settings, build_task(settings, dataset), model_size)
    for row in rows:
        if row.status in ("failed", "skipped"):
            yield f"{row.status:8s}  {row.id}: {row.reason} [{row.source}]"


def _rows(settings: PredictSettings, dataset: "Dataset") -> tuple[list[ManifestRow], Counter[str]]:
    """The manifest as predict would write it now, and how many records fall under each reason to run or not to run."""
    from plmjac.store import read_manifest, stored_proteins

    earlier = read_manifest(settings.store)
    failed_before = {row.key for row in earlier if row.status == "failed"}
    rows = manifest(dataset, max_length=settings.max_length, stored=stored_proteins(settings.store, earlier))
    reasons: Counter[str] = Counter()
    for row in rows:
        if row.status == "done":
            reasons["already in the store"] += 1
        elif row.alias_of:
            reasons["have the sequence of another record: computed once"] += 1
        elif row.status == "pending":
            reasons["will be tried again (failed before)" if row.key in failed_before else "will be computed"] += 1
        else:
            reasons[f"{row.status} (see below)" if row.status != "filtered" else "left out by the dataset"] += 1
    return [row for row in rows if row.status != "done"], reasons


def _work(rows: list[ManifestRow], settings: PredictSettings, task: Task, model_size: "Architecture") -> Iterator[str]:
    lengths = [row.length for row in rows]
    forwards = [task.forwards(row.id, row.length) for row in rows]
    flops = sum(number * model_size.flops(length) for number, length in zip(forwards, lengths, strict=True))
    yield f"residues  {sum(lengths):,} (lengths {min(lengths)} to {max(lengths)})"
    yield f"forwards  {sum(forwards):,}{task.certainty}"
    yield f"FLOPs     {flops:.3g}"
    rate = measured_rate() * CPU_SHARE
    yield (
        f"time      {duration(flops / rate)} on this machine's CPU at {rate / 1e9:.0f} GFLOP/s (half of what its matrix"
    )
    yield "          products were just measured to do; small models are slower than this, by their overhead)"
    precision = precision_on("cuda", settings)
    share = GPU_SHARE[precision]
    for name, peak in GPU_FLOPS[precision].items():
        yield f"          {duration(flops / (peak * share))} on one {name} in {precision}, at {share:.0%} of its peak"
    yield f"store     about {size_of(sum(task.num_bytes(r.id, r.length, model_size) for r in rows))}, uncompressed"
    yield f"memory    {task.memory(rows, settings, model_size)}"


def jacobian_memory(longest: int, settings: PredictSettings, model_size: "Architecture") -> str:
    """The memory of a run of Jacobians whose longest protein has so many residues, in words."""
    from plmjac.inference.batch_size import CANDIDATES, LENGTH
    from plmjac.inference.memory import Forward, forecast
    from plmjac.jacobian import mutants_per_forward

    kind = _kind(settings)
    max_tokens = settings.max_tokens or max(CANDIDATES[kind])
    forward = Forward(model_size, settings.model.fast, precision_on(kind, settings), kind)
    memory = forecast(forward, longest, settings.substitutions, settings.keep, max_tokens, settings.rows_per_chunk)
    # Where the number of tokens is still to be measured, as large a forward is tried, whatever the proteins.
    tried = 0 if settings.max_tokens else forward.of_logits(mutants_per_forward(LENGTH, max_tokens), LENGTH)
    return (
        f"{size_of(max(memory.peak, memory.weights + tried))} of each {'GPU' if kind == 'cuda' else 'process'}, "
        f"libraries apart; in it the weights {size_of(memory.weights)}, a forward of\n          {max_tokens:,} tokens"
        f"{'' if settings.max_tokens else ', the most that is tried,'} {size_of(max(memory.forward, tried))}, "
        f"the longest protein's Jacobian {size_of(memory.jacobian)}"
    )


def _kind(settings: PredictSettings) -> Kind:
    """The device that the run is meant for: with trainer=gpu, or tf32, one that need not be in this machine."""
    if settings.trainer.accelerator == "gpu" or settings.model.precision == "tf32":
        return "cuda"
    return "cpu" if device_of(settings.trainer, Launch()) == "cpu" else "cuda"


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


def size_of(number: float | int) -> str:
    """Bytes in the unit that suits them."""
    for unit, length in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if number >= length:
            return f"{number / length:.1f} {unit}"
    return f"{number / 1e3:.1f} kB"


def _millions(number: int) -> str:
    """A count of parameters as the field gives it."""
    return f"{number / 1e6:.1f} M" if number >= 1e5 else f"{number / 1e3:.0f} k"
