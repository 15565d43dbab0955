"""The work of a run before it starts: forwards, operations, hours, bytes on disk and in memory.

Hours are forecast from this machine's own measured matrix-product rate, and beside it for the usual GPUs, in the
precision that the run would have there, from what was measured on one (`plmjac.inference.rates`). Memory is added up
tensor by tensor (`plmjac.inference.memory`).
"""

import time
from collections import Counter
from collections.abc import Iterator

import torch

from plmjac.datasets import Dataset
from plmjac.files import UsageError
from plmjac.inference.batch_size import CANDIDATES, LENGTH
from plmjac.inference.launch import Kind, Launch
from plmjac.inference.memory import forecast
from plmjac.inference.rates import Way, compiling_saves, gpu_times
from plmjac.inference.resolve import cost_of, device_of, precision_on
from plmjac.inference.settings import PredictSettings
from plmjac.inference.tasks import Task, blocks, build_task
from plmjac.jacobian import mutants_per_forward
from plmjac.limit import Limit
from plmjac.models import ModelSize, size_of
from plmjac.models.caution import caution
from plmjac.records import Protein
from plmjac.store import read_manifest, stored_proteins
from plmjac.workplan import ManifestRow, Portion, manifest, planned, whole

CPU_SHARE = 0.5


def forecast_of(settings: PredictSettings, dataset: Dataset) -> Iterator[str]:
    """The forecast of a run, line by line, then the records that it will refuse. Loads no weights, writes nothing."""
    try:
        model = size_of(**settings.model.model_dump(), kind=_kind(settings))
    except (ValueError, OSError) as error:
        raise UsageError(str(error)) from error
    task = build_task(settings, dataset)
    limit = settings.limit(model.max_length)
    task.limit(limit)
    rows, reasons, mine = _rows(settings, dataset, task, model, limit)
    yield f"model     {settings.model.name}: {model}, {_millions(model.num_parameters)} parameters"
    if warning := caution(settings.model.name, settings.dataset["name"], settings.model.checkpoint):
        yield f"          {warning}"
    yield f"dataset   {settings.dataset['name']}: {sum(reasons.values())} records"
    yield from (f"            {count:6d} {reason}" for reason, count in reasons.items())
    todo = [row for row in rows if row.status == "pending" and not row.alias_of and row.key in mine]
    if settings.shard:
        yield f"shard     {settings.shard}: {len(mine)} proteins, of which {len(todo)} are to be computed"
        for row in todo:
            if number := len(mine[row.key].starts):
                of = f"{number} of {len(task.items(row))} blocks of rows"
                yield f"          of {row.id} {of}, the rest in other shards"
    if todo:
        yield from _work([mine[row.key] for row in todo], settings, task, model, limit)
    for row in rows:
        if row.status in ("failed", "skipped"):
            yield f"{row.status:8s}  {row.id}: {row.reason} [{row.source}]"


def _rows(
    settings: PredictSettings, dataset: Dataset, task: Task, model: ModelSize, limit: Limit
) -> tuple[list[ManifestRow], Counter[str], dict[str, Portion]]:
    """The manifest as predict would write it now, the number of records under each reason to run or not to run, and
    this shard's portions by key."""
    earlier = read_manifest(settings.store)
    failed_before = {row.key for row in earlier if row.status == "failed"}

    def cost(protein: Protein) -> float:
        """As predict counts it, or shards would be cut elsewhere."""
        return cost_of(protein, task, limit, model.flops)

    stored = stored_proteins(settings.store, earlier)
    rows = manifest(dataset, limit=limit, cost=cost, stored=stored)
    shard = settings.shard
    portions = shard.of(rows, lambda row: blocks(task, row)) if shard else whole(planned(rows))
    mine = {portion.row.key: portion for portion in portions}
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
    return [row for row in rows if row.status != "done"], reasons, mine


def _work(
    portions: list[Portion], settings: PredictSettings, task: Task, model: ModelSize, limit: Limit
) -> Iterator[str]:
    rows = [portion.row for portion in portions]
    lengths = [row.length for row in rows]
    parts = [portion.cost / row.cost if row.cost else 1.0 for portion, row in zip(portions, rows, strict=True)]
    forwards = [round(task.forwards(row.id, row.length) * part) for row, part in zip(rows, parts, strict=True)]
    each = [model.flops(min(length, limit.window or length)) for length in lengths]
    flops = sum(number * cost for number, cost in zip(forwards, each, strict=True))
    yield f"residues  {sum(lengths):,} (lengths {min(lengths)} to {max(lengths)})"
    if cut := [length for length in lengths if len(limit.windows(length)) > 1]:
        number = sum(len(limit.windows(length)) for length in cut)
        yield f"windows   {number} of {limit.window} residues, of {len(cut)} proteins"
    if limit.positions:
        start, stop = limit.positions
        yield f"positions {start}:{stop}, counted from 0: {stop - start} residues of each protein are mutated"
    yield f"forwards  {sum(forwards):,}{task.certainty}"
    yield f"FLOPs     {flops:.3g}"
    rate = measured_rate() * CPU_SHARE
    yield (
        f"time      {duration(flops / rate)} on this machine's CPU at {rate / 1e9:.0f} GFLOP/s (half of what its matrix"
    )
    yield "          products were just measured to do; small models are slower than this, by their overhead)"
    yield from _gpu_times(flops, sum(lengths) / len(lengths), settings, model)
    yield f"store     about {in_bytes(sum(task.num_bytes(r.id, r.length, model) for r in rows))}, uncompressed"
    yield f"memory    {task.memory(rows, settings, model)}"


def _gpu_times(flops: float | int, length: float, settings: PredictSettings, model: ModelSize) -> Iterator[str]:
    precision = precision_on("cuda", settings)
    way: Way = "fast" if settings.model.fast else "plain"
    if settings.model.compiled or (settings.compiles_itself and compiling_saves(flops)):
        way = "compiled"
    for each in gpu_times(flops, model.num_parameters, length, precision, way):
        yield f"          {duration(each.seconds)} on one {each.card} in {precision}"
        yield f"            ({each.source})"


def jacobian_memory(longest: int, mutated: int, settings: PredictSettings, model: ModelSize) -> str:
    """The memory of a run of Jacobians whose longest protein has so many residues, in words."""
    kind = _kind(settings)
    max_tokens = settings.max_tokens or max(CANDIDATES[kind])
    memory = forecast(
        model,
        longest,
        settings.substitutions,
        settings.keep,
        max_tokens,
        settings.rows_per_chunk,
        kind=kind,
        mutated=mutated,
    )
    # Where the number of tokens is still to be measured, as large a forward is tried, whatever the proteins.
    tried = 0 if settings.max_tokens else model.of_logits(mutants_per_forward(LENGTH, max_tokens), LENGTH)
    return (
        f"{in_bytes(max(memory.peak, memory.weights + tried))} of each {'GPU' if kind == 'cuda' else 'process'}, "
        f"libraries apart; in it the weights {in_bytes(memory.weights)}, a forward of\n          {max_tokens:,} tokens"
        f"{'' if settings.max_tokens else ', the most that is tried,'} {in_bytes(max(memory.forward, tried))}, "
        f"the longest protein's Jacobian {in_bytes(memory.jacobian)}"
    )


def _kind(settings: PredictSettings) -> Kind:
    """The device that the run is meant for: with trainer=gpu, or tf32, one that need not be in this machine."""
    if settings.trainer.accelerator == "gpu" or settings.model.precision == "tf32":
        return "cuda"
    return "cpu" if device_of(settings.trainer, Launch()) == "cpu" else "cuda"


def measured_rate(seconds: float = 0.3) -> float:
    """FLOP/s of float32 matrix products on this machine's CPU: the best of those of so many seconds, measured now.

    Beside other work on the same cores a mean would say more about that work.
    """
    a, best, ends = torch.randn(512, 512), 0.0, time.perf_counter() + seconds
    while (began := time.perf_counter()) < ends:
        a @ a
        best = max(best, 2 * 512**3 / (time.perf_counter() - began))
    return best


def duration(seconds: float | int) -> str:
    """Seconds in the unit that suits them."""
    for unit, length in (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 2 * length:
            return f"about {seconds / length:.1f} {unit}"
    return f"about {seconds:.0f} s" if seconds >= 1 else "under 1 s"


def in_bytes(number: float | int) -> str:
    """Bytes in the unit that suits them."""
    for unit, length in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if number >= length:
            return f"{number / length:.1f} {unit}"
    return f"{number / 1e3:.1f} kB"


def _millions(number: int) -> str:
    """A count of parameters as the field gives it."""
    return f"{number / 1e6:.1f} M" if number >= 1e5 else f"{number / 1e3:.0f} k"
