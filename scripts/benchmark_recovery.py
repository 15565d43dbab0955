"""Contact recovery in full batches against one context at a time, in alternating rounds of one run.

    python scripts/benchmark_recovery.py 2X1B_A 1GUU_A --threads 2

`tiny`, the demo's domains, flanking, three segments of 12 residues, contact head; the choice of segments is included.
Milliseconds are medians over rounds, ratios medians of the ratios within a round.
"""

import argparse
import statistics
import time

import torch

from plmjac.datasets import build
from plmjac.inference.recovery_task import RecoveryTask
from plmjac.models import LanguageModel, load_model
from plmjac.records import Protein, WorkItem
from plmjac.schedules import Flanking
from plmjac.segments import Single

TASK = RecoveryTask(
    Flanking(name="flanking", direction="outward", stride=1, max_step=None),
    Single(name="single", size=12, margin=3, threshold=0, per_protein=3),
    "contact_head",
    0,
    ("blocks",),
)
TOKENS = (1024, 2048, 4096)


def milliseconds(model: LanguageModel, protein: Protein, max_tokens: int) -> float:
    """Of one context, the forward of the full sequence counted as one."""
    began = time.perf_counter()
    item = WorkItem("p", protein.sequence, 0, len(protein), id=protein.id)
    found = TASK.compute(model, item, max_tokens)
    return 1000 * (time.perf_counter() - began) / (len(found.arrays["step"]) + 1)


def main() -> None:
    """Measure and print one line a domain and batch size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ids", nargs="+", help="demo domains")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    plain, fast = load_model("tiny", fast=False), load_model("tiny")
    for protein in build("demo", ids=arguments.ids):
        assert isinstance(protein, Protein)
        rounds = [
            [milliseconds(plain, protein, 1), milliseconds(fast, protein, 1)]
            + [milliseconds(fast, protein, tokens) for tokens in TOKENS]
            for _ in range(arguments.rounds)
        ]
        one, ours, *batched = (statistics.median(each) for each in zip(*rounds, strict=True))
        print(f"{protein.id}: one at a time {one:.2f} ms (fair-esm), {ours:.2f} ms (plmjac)")
        for number, (tokens, time_of) in enumerate(zip(TOKENS, batched, strict=True), start=2):
            ratio = statistics.median(each[0] / each[number] for each in rounds)
            print(f"  {tokens} tokens: {time_of:.2f} ms, {ratio:.1f} x fair-esm one at a time")


if __name__ == "__main__":
    main()
