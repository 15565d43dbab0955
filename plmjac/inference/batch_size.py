"""The best number of tokens in a forward on this device with this model.

On a CPU sizes are tried out once and remembered: timed from small to large on mutants of one random protein, as the
loop makes them, for a second or two in all; the smallest that is within a few per cent of the best is taken. On a GPU
larger was faster up to 131,072 (docs/benchmarks.md), so the largest that its memory holds is taken, and none is timed.
It changes speed and memory, and results only by rounding; the store records what its first run used and runs that
resume repeat it. Another length may have another best size.
"""

import logging
import platform
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from plmjac.files import remember, remembered
from plmjac.inference.launch import DEFAULT_MAX_TOKENS
from plmjac.jacobian import all_letters, mutants, mutants_per_forward, substitutions
from plmjac.models import LanguageModel, ModelSize

log = logging.getLogger(__name__)

LENGTH = 254
CANDIDATES = {
    "cpu": (512, 1024, 2048, 4096, 8192),
    "cuda": (4096, 8192, 16384, 32768, 65536, 131072),
}
SECONDS = 2.5
TOLERANCE = 0.05
SHARE = 0.7
"""Of a GPU's memory for weights and a forward; the rest is for Jacobians, and for what torch.compile plans itself."""

FILE = "max_tokens.json"
"""In the cache folder: the best size by device and model."""

SMALLEST_FLOPS = 1e8
"""Of one forward; below it (model=debug) any batch size is quick enough, and nothing is measured."""


def max_tokens_for(model: LanguageModel, variant: str, kind: str, threads: int) -> int:
    """Tokens of one forward: what was measured here before for a model of this size, or is measured now.

    `variant` says what else of the model changes its speed. The model is moved to a GPU, to tell its size there.
    """
    if model.flops(LENGTH) < SMALLEST_FLOPS:
        return DEFAULT_MAX_TOKENS[kind]
    if kind == "cuda":
        return largest_that_fits(model.to(kind).size, torch.cuda.get_device_properties("cuda").total_memory)
    key = f"{_processor()}, {threads} threads; {model.size}; {variant}; torch {torch.__version__}"
    known = {name: tokens for name, tokens in remembered(FILE).items() if isinstance(tokens, int) and tokens > 0}
    if key not in known:
        torch.set_num_threads(threads)
        known[key] = fastest(model.logits, CANDIDATES[kind], SECONDS)
        log.info("measured: forwards of %d tokens are fastest here", known[key])
        remember(FILE, known)
    return known[key]


def largest_that_fits(size: ModelSize, memory: int) -> int:
    """The most tokens whose forward fits beside the weights into `SHARE` of so many bytes; the least if none does."""
    of_logits = {number: size.of_logits(mutants_per_forward(LENGTH, number), LENGTH) for number in CANDIDATES["cuda"]}
    fits = [number for number, needed in of_logits.items() if size.weights + needed <= SHARE * memory]
    return max(fits, default=CANDIDATES["cuda"][0])


def fastest(logits: Callable[[Tensor], Tensor], candidates: tuple[int, ...], seconds: float) -> int:
    """The smallest of the sizes whose tokens per second are within `TOLERANCE` of the best, in about so many seconds.

    Sizes are tried in order and no further once time is up or one is slower than the one before by a tenth.
    """
    protein = torch.randint(20, (LENGTH,), generator=torch.Generator().manual_seed(0))
    positions, letters = substitutions(protein, 0, LENGTH, all_letters(LENGTH))
    rates: dict[int, float] = {}
    # The first forward may have to be compiled, which says nothing about any size.
    logits(mutants(protein, positions[:2], letters[:2]))
    began = time.monotonic()
    for size in candidates:
        count = mutants_per_forward(LENGTH, size)
        batch = mutants(protein, positions[:count], letters[:count])
        rates[size] = batch.numel() / _seconds(lambda batch=batch: logits(batch))  # type: ignore[misc]
        spent = time.monotonic() - began
        if spent + 2 * spent > seconds or rates[size] < 0.9 * max(rates.values()):
            break
    best = max(rates.values())
    return next(size for size, rate in rates.items() if rate >= (1 - TOLERANCE) * best)


def _seconds(forward: Callable[[], Tensor]) -> float:
    """The median of three forwards after one that warms up; of one where that takes long."""
    times = []
    for _ in range(4):
        began = time.perf_counter()
        forward()
        times.append(time.perf_counter() - began)
        if times[0] > 1.0:
            return times[0]
    return statistics.median(times[1:])


def _processor() -> str:
    return platform.processor() or platform.machine()
