"""How many tokens a forward should have on this device with this model: tried out once, then remembered.

Sizes are timed from small to large on mutants of one random protein, as the loop makes them, for a second or two in
all, and the smallest that is within a few per cent of the best is taken. It changes speed and memory, and results only
by rounding; the store records what its first run used and runs that resume repeat it. Gives up what another length
might have liked better.
"""

import json
import logging
import platform
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from plmjac.files import UsageError, cache_folder, write_whole
from plmjac.inference.launch import DEFAULT_MAX_TOKENS
from plmjac.jacobian import all_letters, mutants, mutants_per_forward, substitutions
from plmjac.models import LanguageModel

log = logging.getLogger(__name__)

LENGTH = 254
CANDIDATES = {
    "cpu": (512, 1024, 2048, 4096, 8192),
    "cuda": (4096, 8192, 16384, 32768, 65536, 131072),
}
SECONDS = {"cpu": 2.5, "cuda": 10.0}
TOLERANCE = 0.05
FILE = "max_tokens.json"
"""In the cache folder: the best size by device and model."""

SMALLEST_FLOPS = 1e8
"""Of one forward; below it (model=debug) nobody waits for the forwards, and nothing is measured."""


def max_tokens_for(model: LanguageModel, variant: str, kind: str, threads: int) -> int:
    """Tokens of one forward: what was measured here before for a model of this size, or is measured now.

    `variant` says what else of the model changes its speed. The model is moved to the device if it has to be measured.
    """
    if model.flops(LENGTH) < SMALLEST_FLOPS:
        return DEFAULT_MAX_TOKENS[kind]
    device = torch.cuda.get_device_name() if kind == "cuda" else f"{_processor()}, {threads} threads"
    key = f"{device}; {model.size}; {variant}; torch {torch.__version__}"
    known = _remembered()
    if key not in known:
        if kind == "cpu":
            torch.set_num_threads(threads)
        model.to(kind)
        known[key] = fastest(model.logits, CANDIDATES[kind], torch.device(kind), SECONDS[kind])
        log.info("measured: forwards of %d tokens are fastest here", known[key])
        _remember(known)
    return known[key]


def fastest(
    logits: Callable[[Tensor], Tensor], candidates: tuple[int, ...], device: torch.device, seconds: float
) -> int:
    """The smallest of the sizes whose tokens per second are within `TOLERANCE` of the best, in about so many seconds.

    Sizes are tried in order and no further once time is up, memory runs out, or one is slower than the one before by a
    tenth.
    """
    protein = torch.randint(20, (LENGTH,), generator=torch.Generator().manual_seed(0))
    positions, letters = substitutions(protein, 0, LENGTH, all_letters(LENGTH))
    rates: dict[int, float] = {}
    # The first forward may have to be compiled, which says nothing about any size.
    logits(mutants(protein, positions[:2], letters[:2]).to(device))
    began = time.monotonic()
    for size in candidates:
        count = mutants_per_forward(LENGTH, size)
        batch = mutants(protein, positions[:count], letters[:count]).to(device)
        try:
            rates[size] = batch.numel() / _seconds(lambda batch=batch: logits(batch), device)  # type: ignore[misc]
        except torch.cuda.OutOfMemoryError:
            torch.cuda.empty_cache()
            break
        spent = time.monotonic() - began
        if spent + 2 * spent > seconds or rates[size] < 0.9 * max(rates.values()):
            break
    if not rates:
        return candidates[0]
    best = max(rates.values())
    return next(size for size, rate in rates.items() if rate >= (1 - TOLERANCE) * best)


def _seconds(forward: Callable[[], Tensor], device: torch.device) -> float:
    """The median of three forwards after one that warms up; of one where that takes long."""
    times = []
    for _ in range(4):
        began = time.perf_counter()
        forward()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - began)
        if times[0] > 1.0:
            return times[0]
    return statistics.median(times[1:])


def _processor() -> str:
    return platform.processor() or platform.machine()


def _remembered() -> dict[str, int]:
    """What was measured before; nothing where that cannot be read."""
    try:
        known = json.loads(cache_folder(FILE).read_bytes())
    except (OSError, ValueError):
        return {}
    if not isinstance(known, dict):
        return {}
    return {key: size for key, size in known.items() if isinstance(size, int) and size > 0}


def _remember(known: dict[str, int]) -> None:
    """Keep it for the next store; without a place to write it is measured again."""
    try:
        path = cache_folder(FILE)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(known, indent=1, sort_keys=True).encode())
    except (OSError, UsageError) as error:
        log.info("the batch size cannot be kept (%s) and will be measured again", error)
