"""Effect of half precision on contact maps: correlation, overlap of the best pairs, P@L where contacts are known."""

from collections.abc import Callable
from typing import Any

import torch
from bench_models import ARCHITECTURES, trained_like, transformers_logits, untrained
from torch import Tensor

from plmjac.alphabet import encode
from plmjac.jacobian import all_letters, categorical_jacobian, contact_map, mutants, substitutions
from plmjac.models import load_model
from plmjac.models.esm2 import Esm2
from plmjac.models.esm2_fast import Esm2Fast
from plmjac.records import Protein

MIN_SEPARATION = 6


def precision_rows(device: str, *, quick: bool) -> list[dict[str, Any]]:
    """One row per model, protein and precision: the bundled model on its domains, random weights at larger sizes."""
    precisions = ["fp16", "tf32"] if device == "cuda" else ["fp16"]
    rows = []
    for name, tokens, contacts in _proteins(1 if quick else 2):
        models = {name: load_model("tiny", device=device, precision=name) for name in ("fp32", *precisions)}  # type: ignore[arg-type]
        rows += _compare(f"tiny, {name}", models, tokens.to(device), contacts)
    if quick:
        return rows
    for size, length in (("8m", 32),) if device == "cpu" else (("8m", 256), ("150m", 128), ("650m", 96)):
        given: dict[str, Any] = {
            "name": size, "architecture": ARCHITECTURES[size], "tensors": trained_like(ARCHITECTURES[size], device),
            "weights_sha256": "",
        }  # fmt: skip
        models = {name: Esm2Fast(precision=name, **given).to(device) for name in ("fp32", *precisions)}  # type: ignore[arg-type]
        tokens = torch.randint(20, (length,), generator=torch.Generator().manual_seed(0)).to(device)
        rows += _compare(f"{size}, random weights", models, tokens, None)
    return rows


def _compare(name: str, models: dict[str, Any], tokens: Tensor, contacts: Tensor | None) -> list[dict[str, Any]]:
    length = len(tokens)
    first, second = torch.triu_indices(length, length, MIN_SEPARATION)
    maps = {
        precision: contact_map(categorical_jacobian(model.logits, tokens, max_tokens=8192)).cpu()[first, second]
        for precision, model in models.items()
    }
    true = None if contacts is None else contacts[first, second]
    full = maps.pop("fp32")
    rows = []
    for precision, found in maps.items():
        best = [set(each.argsort(descending=True)[: length // 2].tolist()) for each in (full, found)]
        rows.append({
            "model": name, "length": length, "precision": precision,
            "pearson": float(torch.corrcoef(torch.stack([full, found]).double())[0, 1]),
            "overlap": len(best[0] & best[1]) / max(1, length // 2),
            "p_at_l_fp32": _precision_at(full, true, length), "p_at_l": _precision_at(found, true, length),
        })  # fmt: skip
    return rows


def _precision_at(scores: Tensor, true: Tensor | None, count: int) -> float | None:
    """Share of contacts among the best pairs."""
    if true is None:
        return None
    return float(true[scores.argsort(descending=True)[:count]].double().mean())


def _proteins(count: int) -> list[tuple[str, Tensor, Tensor]]:
    """The shortest of the bundled domains, with their contacts (C-beta closer than 8 A)."""
    from plmjac.datasets import build

    known = [each for each in build("demo") if isinstance(each, Protein) and each.structure is not None]
    found = []
    for protein in sorted(known, key=len)[:count]:
        assert protein.structure is not None
        pairs = torch.from_numpy(protein.structure.contacts("cb", 8.0).pairs)
        found.append((protein.id, torch.from_numpy(encode(protein.sequence)), pairs))
    return found


def rounding_rows(*, quick: bool) -> list[dict[str, Any]]:
    """Errors of float32 maps against the float64 map, relative to its largest entry, on the CPU: largest and rms.

    On weights as they are before training, whose couplings are near float32 rounding, and on weights that spread logits
    as a trained model does; the reduction is in float64. The float64 map is transformers' module in double precision.
    """
    size, length = ("debug", 12) if quick else ("8m", 20)
    architecture = ARCHITECTURES[size]
    tokens = torch.randint(20, (length,), generator=torch.Generator().manual_seed(0))
    rows = []
    for name, tensors in (("untrained", untrained(architecture)), ("trained-like", trained_like(architecture))):
        given: dict[str, Any] = {
            "name": name, "architecture": architecture, "tensors": tensors, "weights_sha256": ""
        }  # fmt: skip
        plain, fast = Esm2(**given), Esm2Fast(**given)
        exact = contact_map(_jacobian(transformers_logits(architecture, tensors, "cpu", "fp64"), tokens, 19))
        ways = {
            "plain, 20 mutants a forward": (plain.logits, 20), "plain, 7 mutants a forward": (plain.logits, 7),
            "fast, 20 mutants a forward": (fast.logits, 20), "fast, 190 mutants a forward": (fast.logits, 190),
        }  # fmt: skip
        for way, (logits, together) in ways.items():
            off = (contact_map(_jacobian(logits, tokens, together).double()) - exact) / exact.abs().max()
            rows.append({
                "model": f"{size}, L = {length}, {name}", "way": way, "error": float(off.abs().max()),
                "rms": float(off.square().mean().sqrt()),
            })  # fmt: skip
    return rows


def _jacobian(logits: Callable[[Tensor], Tensor], tokens: Tensor, size: int) -> Tensor:
    """The Jacobian in the precision of the logits, `size` mutants a forward."""
    length = len(tokens)
    wild_type = logits(tokens[None])[0]
    jacobian = torch.zeros(length, 20, length, 20, dtype=wild_type.dtype)
    positions, letters = substitutions(tokens, 0, length, all_letters(length))
    for at in range(0, len(positions), size):
        place, letter = positions[at : at + size], letters[at : at + size]
        jacobian[place, letter] = logits(mutants(tokens, place, letter)) - wild_type
    return jacobian
