"""Train the bundled model `tiny`: a small ESM-2 on a folder of protein family alignments, from data to shipped file.

    python scripts/train_tiny.py train FOLDER --out runs/tiny --families PF00076 PF00018
    python scripts/train_tiny.py front FOLDER --out runs/front --alone runs/tiny/last.ckpt
    python scripts/train_tiny.py finish FOLDER --run runs/tiny --export tiny.safetensors

`train` teaches a masked language model what a Markov random field of each family knows (scripts/tiny/teacher.py), and
masked residues. It writes `last.ckpt` and `loss.csv`; run the same command again and it goes on from the checkpoint, to
the same loss curve as without the interruption. `front` makes of a run without flanks a model to start another run
from, which finds domains in longer sequences (scripts/tiny/front.py). `finish` fits the contact head (Rao et al. 2021)
on the structures of some of the families, measures contacts on all, and writes the safetensors file.

The folder holds `alignments/<family>.fasta`, `queries.fasta` (records named `<structure> <family>`, aligned to the
family) and, for `finish`, `structures/<structure>.pdb`.

The parts are in scripts/tiny. What it gives up is said there: made for one CPU core and a model of little more than a
million parameters.
"""

import argparse
from functools import partial
from pathlib import Path

from tiny.export import finish
from tiny.front import FrontModule
from tiny.training import Settings, TinyModule, train


def parser() -> argparse.ArgumentParser:
    """All options with their defaults."""
    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = top.add_subparsers(dest="command", required=True)
    _add_train(commands.add_parser("train", help="train, or go on training", formatter_class=_HELP))
    _add_front(commands.add_parser("front", help="a new front for domains with flanks", formatter_class=_HELP))
    _add_finish(commands.add_parser("finish", help="contact head, table, export", formatter_class=_HELP))
    return top


_HELP = argparse.ArgumentDefaultsHelpFormatter


def _add_train(fit: argparse.ArgumentParser) -> None:
    add = fit.add_argument
    add("folder", type=Path, help="folder with alignments/ and queries.fasta")
    add("--out", type=Path, default=Path("runs/tiny"), help="folder for last.ckpt, loss.csv and the teacher's fields")
    add("--families", nargs="*", default=[], help="names of alignments; none means all")
    add("--layers", type=int, default=5, help="transformer layers, 4 or more")
    add("--width", type=int, default=160, help="hidden size; the feed-forward part is 4 times as wide")
    add("--heads", type=int, default=8, help="attention heads a layer")
    add("--steps", type=int, default=2100, help="optimiser steps in all, those of earlier starts included")
    add("--decay-steps", type=int, default=882, help="the last steps, in which the learning rate falls to 0")
    add("--per-family", type=int, default=1, help="wild types of each family a step")
    add("--mutants", type=int, default=2, help="mutants of each wild type")
    add("--mutations", type=int, default=4, help="residues set at random in a mutant")
    add("--masked", type=int, default=4, help="further sequences a step, most of them masked")
    add("--tokens", type=int, default=116, help="the longest sequence with its flanks, BOS and EOS")
    add("--flanked", type=float, default=0.67, help="share of sequences with residues before or after the domain")
    add("--lr", type=float, default=0.01, help="Muon's learning rate, for matrices")
    add("--adam-lr", type=float, default=3e-3, help="Adam's learning rate, for embeddings, biases and norms")
    add("--weight-decay", type=float, default=0.02, help="decoupled weight decay of matrices, times lr each step")
    add("--weights", type=float, nargs=5, default=[1.0, 1.0, 30.0, 0.5, 1.0],
        help="of the losses: masked residues, divergence, change, column, attention")  # fmt: skip
    add("--looking-steps", type=int, default=1890, help="the first steps, in which attention is shown where to look")
    add("--held-layers", type=int, default=0, help="the last layers, which stay as they are, as does the embedding")
    add("--start-from", type=Path, help="checkpoint of another run, to start from its weights instead of random ones")
    add("--seed", type=int, default=0, help="of weights, batches and masks")
    add("--every", type=int, default=100, help="steps between rows of loss.csv and checkpoints")


def _add_front(fit: argparse.ArgumentParser) -> None:
    _add_train(fit)
    fit.add_argument("--alone", type=Path, required=True, help="checkpoint of a run on domains alone")


def _add_finish(end: argparse.ArgumentParser) -> None:
    add = end.add_argument
    add("folder", type=Path, help="folder with alignments/, structures/ and queries.fasta")
    add("--run", type=Path, default=Path("runs/tiny"), help="folder with last.ckpt")
    add("--export", type=Path, default=Path("plmjac/models/tiny.safetensors"), help="file to write")
    add("--fit-families", nargs="*", default=[], help="for the contact head; none means every other one")


def main() -> None:
    """Run one of the three commands."""
    arguments = vars(parser().parse_args())
    command, folder = arguments.pop("command"), arguments.pop("folder")
    if command == "finish":
        finish(folder, arguments["run"], arguments["export"], arguments["fit_families"])
        return
    out, every, start_from = (arguments.pop(name) for name in ("out", "every", "start_from"))
    alone = arguments.pop("alone", None)
    module_of = TinyModule if alone is None else partial(FrontModule, alone=alone)
    train(folder, out, Settings(**arguments), every=every, start_from=start_from, module_of=module_of)


if __name__ == "__main__":
    main()
