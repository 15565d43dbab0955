"""One forward with and without each candidate for a faster one (plmjac/models/esm2_fused.py), by name.

    python scripts/gpu_candidates.py --cases 650m:256 8m:50      # a part of make gpu

Weights are random, in half precision. A candidate's logits are held against float32's beside those of the way that it
would change: it is right where it is no farther off by more than a tenth. What is faster by 3 % and right is kept for
this card, PyTorch and model size, and taken by runs that are begun from now on; `--forget` measures and keeps nothing.
Without a CUDA device each candidate is skipped by name. Prints lines and writes candidates.json to --out.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from bench_models import ARCHITECTURES, trained_like
from benchmark import seconds
from torch import Tensor

from plmjac.models.esm2_compiled import Esm2Compiled
from plmjac.models.esm2_fast import Esm2Fast
from plmjac.models.esm2_fused import CANDIDATES, choose, keep

MAX_TOKENS, ROUNDS, COMPARED = 65_536, 5, 8
"""Of a forward; forwards of each, of which the fastest counts; sequences whose logits are compared."""


def measure(model: Esm2Compiled, tokens: Tensor, exact: Tensor, timed: Callable[[Callable[[], object]], float]) -> Any:
    """The way's time and error, those of its candidates, which of them to take, and why others were not measured."""

    def measured(names: frozenset[str]) -> tuple[float, float]:
        model.taken = names
        off = float((model.logits(tokens[:COMPARED]) - exact).square().mean().sqrt())
        model.logits(tokens)  # every kernel is compiled, and every graph made, for this shape
        return min(timed(lambda: model.logits(tokens)) for _ in range(ROUNDS)), off

    names, skipped = [], {}
    for name in CANDIDATES[model.way]:
        try:
            if reason := model.why_not_taken(name):
                raise ValueError(reason)
            model.taken = frozenset([name])
            model.logits(tokens[:COMPARED])
            names.append(name)
        except Exception as error:  # whatever Triton and CUDA say of a card that a kernel was not made for
            skipped[name] = (str(error).strip() or repr(error)).splitlines()[0]
    plain = measured(frozenset())
    best, found = choose(names, plain, measured)
    model.taken = frozenset()
    return {"plain": plain, "found": found, "taken": sorted(best), "skipped": skipped}


def case(size: str, length: int, device: str, forget: bool) -> list[dict[str, Any]]:
    """Both ways of a model size at a length; the compiled one is left out where nothing can be compiled."""
    architecture = ARCHITECTURES[size]
    given: dict[str, Any] = {
        "name": "random", "architecture": architecture, "tensors": trained_like(architecture, device),
        "weights_sha256": "",
    }  # fmt: skip
    batch = min(19 * length, MAX_TOKENS // (length + 2)) if device == "cuda" else 2
    generator = torch.Generator().manual_seed(length)
    tokens = torch.randint(20, (batch, length), generator=generator).to(device)
    exact = Esm2Fast(precision="fp32", **given).to(device).logits(tokens[:COMPARED])
    model = Esm2Compiled(precision="fp16", in_use=False, **given).to(device)
    rows = []
    for way in CANDIDATES:
        row: dict[str, Any] = {"size": size, "length": length, "sequences": batch, "way": way}
        if way == "compiled" and (device != "cuda" or not model.use_compiled(True)):
            why = "no CUDA device" if device != "cuda" else "torch.compile does not work here"
            rows.append({**row, "skipped": dict.fromkeys(CANDIDATES[way], why)})
            continue
        row |= measure(model, tokens, exact, lambda work: seconds(work, device))
        if row["taken"] and not forget:
            row["kept"] = keep(model, row["taken"])
        rows.append(row)
    return rows


def lines_of(row: dict[str, Any]) -> list[str]:
    """A line for the way and for each of its candidates."""
    head = f"{row['size']}, L = {row['length']}, {row['sequences']} sequences, {row['way']}"
    lines = []
    if "plain" in row:
        plain = row["plain"]
        lines.append(f"{head}: {1000 * plain[0]:.1f} ms, off float32 by {plain[1]:.1e}")
        for name, (time, off) in row["found"].items():
            taken = ", taken" if sorted(name.split(" + ")) == row["taken"] else ""
            lines.append(f"  {name}: {1000 * time:.1f} ms ({plain[0] / time:.2f} x), off by {off:.1e}{taken}")
    else:
        lines.append(f"{head}: not measured")
    return lines + [f"  {name}: skipped, {why}" for name, why in row["skipped"].items()]


def main(words: list[str] | None = None) -> None:
    """Measure every case; each is written as soon as it is there."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--cases", nargs="+", default=["650m:256", "8m:50"], metavar="SIZE:L")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="cpu: a rehearsal")
    parser.add_argument("--forget", action="store_true", help="keep nothing for later runs")
    parser.add_argument("--out", type=Path, default=Path("benchmark"))
    given = parser.parse_args(words)
    rows: list[dict[str, Any]] = []
    for each in given.cases:
        size, _, length = each.partition(":")
        rows += case(size, int(length), given.device, given.forget)
        text = "\n".join(line for row in rows for line in lines_of(row))
        given.out.mkdir(parents=True, exist_ok=True)
        (given.out / "candidates.json").write_text(json.dumps({"text": text, "rows": rows}, indent=1) + "\n")
    print(text)


if __name__ == "__main__":
    main()
