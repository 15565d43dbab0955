"""The baselines by name: from an alignment to a contact map under a memory limit, and maps kept between runs.

Each baseline is a function with one signature. A map is kept under a hash of the alignment's bytes, the baseline and
its settings, so that it is found again by any run that needs the same one and by no other. Couplings are
not kept, only maps.
"""

import contextlib
import json
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float32, Int8

from plmjac.coevolution import covariance, pseudolikelihood
from plmjac.coevolution.covariance import coupling_map, inverse_covariance
from plmjac.coevolution.pseudolikelihood import fit_pseudolikelihood, sequence_weights
from plmjac.files import replacing, write_whole
from plmjac.jacobian import contact_map

GB = 1e9

_VERSION = 1
"""To be raised when a baseline gives other numbers than before, so that kept maps of the old ones are not used."""


class TooLarge(ValueError):
    """The baseline would need more memory than it was given; says how much."""


@dataclass(frozen=True)
class Limits:
    """Limits of a baseline: `memory` in bytes, and `iterations` of L-BFGS for the Markov random field."""

    memory: float
    iterations: int


@dataclass(frozen=True, eq=False)
class BaselineMap:
    """A contact map between the columns of an alignment, how it was computed, and how long that took, in seconds."""

    contacts: Float32[np.ndarray, "C C"]
    precision: str
    seconds: float


Made = tuple[Float32[np.ndarray, "C C"], str]
"""A contact map and the floating-point type of its matrices."""


def _inverse_covariance(states: Int8[np.ndarray, "N C"], limits: Limits) -> Made:
    dtype = _type_that_fits(states.shape[1], limits)
    couplings = inverse_covariance(states, dtype=dtype)
    return coupling_map(couplings).astype(np.float32), np.dtype(dtype).name


def _partial_correlation(states: Int8[np.ndarray, "N C"], limits: Limits) -> Made:
    dtype = _type_that_fits(states.shape[1], limits)
    couplings = covariance.partial_correlation(inverse_covariance(states, dtype=dtype))
    return coupling_map(couplings).astype(np.float32), np.dtype(dtype).name


def _markov_random_field(states: Int8[np.ndarray, "N C"], limits: Limits) -> Made:
    _check(pseudolikelihood.memory_needed(states.shape[1], len(states)), states.shape[1], limits)
    field = fit_pseudolikelihood(states, sequence_weights(states), iterations=limits.iterations)
    return contact_map(field.couplings, overwrite=True).numpy(), "float32"


Method = Literal["inverse_covariance", "partial_correlation", "mrf"]

BASELINES: dict[Method, Callable[[Int8[np.ndarray, "N C"], Limits], Made]] = {
    "inverse_covariance": _inverse_covariance,
    "partial_correlation": _partial_correlation,
    "mrf": _markov_random_field,
}


def _type_that_fits(length: int, limits: Limits) -> type[np.floating]:
    """float64 where its matrices fit, else float32."""
    if covariance.memory_needed(length, np.float64) <= limits.memory:
        return np.float64
    _check(covariance.memory_needed(length, np.float32), length, limits)
    return np.float32


def _check(needed: int, length: int, limits: Limits) -> None:
    if needed > limits.memory:
        raise TooLarge(
            f"{length} columns need {needed / GB:.2g} GB, above memory_limit={limits.memory / GB:g}; "
            "raise it or cut the protein into domains"
        )


def baseline_map(
    name: Method, states: Int8[np.ndarray, "N C"], limits: Limits, folder: Path | None = None
) -> BaselineMap:
    """The contact map of a baseline for an alignment, from `folder` if it is kept there, else computed and put there.

    Raises TooLarge, and ValueError for fewer than two sequences.
    """
    path = None if folder is None else folder / f"{name}-{_key(name, states, limits)}.npz"
    kept = _read(path) if path else None
    if kept is not None:
        return kept
    start = time.perf_counter()
    contacts, precision = BASELINES[name](states, limits)
    made = BaselineMap(contacts, precision, time.perf_counter() - start)
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez(file, contacts=made.contacts, precision=made.precision, seconds=made.seconds)
    return made


def effective_sequences(states: Int8[np.ndarray, "N C"], folder: Path | None = None) -> float:
    """Neff: the sum of the sequence weights at 80 % identity, from `folder` if it is kept there."""
    path = None if folder is None else folder / f"neff-{_key('neff', states, None)}.json"
    if path is not None:
        with contextlib.suppress(OSError, ValueError):
            return float(json.loads(path.read_text(encoding="utf-8")))
    number = float(sequence_weights(states).sum(dtype=np.float64))
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(number).encode())
    return number


def _key(name: str, states: Int8[np.ndarray, "N C"], limits: Limits | None) -> str:
    """A hash of all that a result depends on."""
    settings: dict[str, object] = {"version": _VERSION, "name": name, "shape": states.shape}
    if limits is not None and name == "mrf":
        settings["iterations"] = limits.iterations
    elif limits is not None:
        settings["type"] = np.dtype(_type_that_fits(states.shape[1], limits)).name
    digest = sha256(json.dumps(settings, sort_keys=True).encode())
    digest.update(np.ascontiguousarray(states).tobytes())
    return digest.hexdigest()[:32]


def _read(path: Path) -> BaselineMap | None:
    """A kept map; None where there is none, or one that cannot be read, which is made again."""
    try:
        with np.load(path, allow_pickle=False) as kept:
            return BaselineMap(kept["contacts"], str(kept["precision"]), float(kept["seconds"]))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
