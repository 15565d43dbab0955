"""Train the bundled model `tiny`: a small ESM-2 on a folder of protein family alignments, from data to shipped file.

    python scripts/train_tiny.py train ../shared/data/covariation --out runs/tiny --families PF00076 PF00018
    python scripts/train_tiny.py finish ../shared/data/covariation --run runs/tiny --export tiny.safetensors

`train` is masked language modelling with Lightning. It writes `last.ckpt` and `loss.csv`; run the same command again
and it goes on from the checkpoint, to the same loss curve as without the interruption. `finish` fits the contact head
(Rao et al. 2021) on the structures of some of the families, measures contacts on all, and writes the safetensors file.

The folder holds `alignments/<family>.fasta`, and for the columns and for `finish` `queries.fasta` (records named
`<structure> <family>`, aligned to the family) and `structures/<structure>.pdb`.

The parts are in scripts/tiny. What it gives up is said there: made for one CPU core and a model of less than a million
parameters.
"""

import argparse
from pathlib import Path

from tiny.export import finish
from tiny.training import Settings, train


def parser() -> argparse.ArgumentParser:
    """All options with their defaults."""
    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = top.add_subparsers(dest="command", required=True)
    _add_train(commands.add_parser("train", help="train, or go on training", formatter_class=_HELP))
    _add_finish(commands.add_parser("finish", help="contact head, table, export", formatter_class=_HELP))
    return top


_HELP = argparse.ArgumentDefaultsHelpFormatter


def _add_train(fit: argparse.ArgumentParser) -> None:
    add = fit.add_argument
    add("folder", type=Path, help="folder with alignments/ and queries.fasta")
    add("--out", type=Path, default=Path("runs/tiny"), help="folder for last.ckpt and loss.csv")
    add("--families", nargs="*", default=[], help="names of alignments; none means all")
    add("--layers", type=int, default=3, help="transformer layers")
    add("--width", type=int, default=160, help="hidden size; the feed-forward part is 4 times as wide")
    add("--heads", type=int, default=10, help="attention heads a layer")
    add("--steps", type=int, default=18500, help="optimiser steps in all, those of earlier starts included")
    add("--decay-steps", type=int, default=10500, help="the last steps, in which the learning rate falls to 0")
    add("--batch-size", type=int, default=32, help="sequences a step")
    add("--mask-rate", type=float, default=0.25, help="share of residues selected")
    add("--lr", type=float, default=0.01, help="Muon's learning rate, for matrices")
    add("--adam-lr", type=float, default=3e-3, help="Adam's learning rate, for embeddings, biases and norms")
    add("--weight-decay", type=float, default=0.01, help="decoupled weight decay of matrices, times lr each step")
    add("--column-weight", type=float, default=0.3, help="of the loss of the column, read off the first layer")
    add("--teacher-weight", type=float, default=1.0, help="of the divergence from the alignments' Markov random fields")
    add("--teacher-steps", type=int, default=14500, help="the first steps, which have that teacher; 0 for none at all")
    add("--mutation-rate", type=float, default=0.05, help="share of residues set at random while there is a teacher")
    add("--seed", type=int, default=0, help="of weights, batches and masks")
    add("--every", type=int, default=200, help="steps between rows of loss.csv and checkpoints")
    add("--no-compile", action="store_true", help="skip torch.compile (saves a minute, costs a third in speed)")


def _add_finish(end: argparse.ArgumentParser) -> None:
    add = end.add_argument
    add("folder", type=Path, help="folder with alignments/, structures/ and queries.fasta")
    add("--run", type=Path, default=Path("runs/tiny"), help="folder with last.ckpt")
    add("--export", type=Path, default=Path("plmjac/models/tiny.safetensors"), help="file to write")
    add("--fit-families", nargs="*", default=[], help="for the contact head; none means every other one")


def main() -> None:
    """Run one of the two commands."""
    arguments = vars(parser().parse_args())
    command, folder = arguments.pop("command"), arguments.pop("folder")
    if command == "finish":
        finish(folder, arguments["run"], arguments["export"], arguments["fit_families"])
        return
    out, every, compiled = arguments.pop("out"), arguments.pop("every"), not arguments.pop("no_compile")
    train(folder, out, Settings(**arguments), every=every, compiled=compiled)


if __name__ == "__main__":
    main()
