"""Train the bundled model `tiny`: a small ESM-2 on a folder of protein family alignments, from data to shipped file.

    python scripts/train_tiny.py recipe FOLDER --out runs/recipe
    python scripts/train_tiny.py train FOLDER --out runs/two --families PF00076 PF00018
    python scripts/train_tiny.py finish FOLDER --run runs/two --export two.safetensors

`recipe` is the whole way (scripts/tiny/recipe.py). `train` is one run with settings of your own: it teaches a masked
language model what a Markov random field of each family knows (scripts/tiny/teacher.py), and masked residues. `finish`
fits the contact head (Rao et al. 2021) on the structures of some of the families, measures contacts on all, and writes
the safetensors file. Killed, give the same command again: it goes on from the last checkpoint, to the same loss curve
as without the interruption.

The folder holds `alignments/<family>.fasta`, `queries.fasta` (records named `<structure> <family>`, aligned to the
family) and, for `recipe` and `finish`, `structures/<structure>.pdb`.

The parts are in scripts/tiny. What it gives up is said there: made for one CPU core and a model of little more than a
million parameters.
"""

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tiny.export import finish
from tiny.recipe import FAMILIES, follow
from tiny.training import Settings, train

from plmjac.datasets import InputError


def parser() -> argparse.ArgumentParser:
    """All options with their defaults."""
    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = top.add_subparsers(dest="command", required=True)
    _add_recipe(commands.add_parser("recipe", help="all stages and finish", formatter_class=_HELP))
    _add_train(commands.add_parser("train", help="train, or go on training", formatter_class=_HELP))
    _add_finish(commands.add_parser("finish", help="contact head, table, export", formatter_class=_HELP))
    return top


_HELP = argparse.ArgumentDefaultsHelpFormatter


def _add_recipe(whole: argparse.ArgumentParser) -> None:
    add = whole.add_argument
    add("folder", type=Path, help="folder with alignments/, structures/ and queries.fasta")
    add("--out", type=Path, default=Path("runs/recipe"), help="folder for the folders of its three runs")
    add("--export", type=Path, help="file to write; none means tiny.safetensors in --out")
    add("--families", nargs="+", default=list(FAMILIES), help="names of alignments")


def _add_train(fit: argparse.ArgumentParser) -> None:
    fit.add_argument("folder", type=Path, help="folder with alignments/ and queries.fasta")
    fit.set_defaults(**asdict(Settings()), out=Path("runs/tiny"), every=100)
    add = fit.add_argument
    add("--out", type=Path, help="folder for last.ckpt, loss.csv and the teacher's fields")
    add("--families", nargs="*", help="names of alignments; none means all")
    add("--layers", type=int, help="transformer layers, 4 or more")
    add("--width", type=int, help="hidden size; the feed-forward part is 4 times as wide")
    add("--heads", type=int, help="attention heads a layer")
    add("--steps", type=int, help="optimiser steps in all, those of earlier starts included")
    add("--decay-steps", type=int, help="the last steps, in which the learning rate falls to 0")
    add("--per-family", type=int, help="wild types of each family a step")
    add("--mutants", type=int, help="mutants of each wild type")
    add("--mutations", type=int, help="residues set at random in a mutant")
    add("--masked", type=int, help="further sequences a step, most of them masked")
    add("--tokens", type=int, help="the longest sequence with its flanks, BOS and EOS")
    add("--flanked", type=float, help="share of sequences with residues before or after the domain")
    add("--lr", type=float, help="Muon's learning rate, for matrices")
    add("--adam-lr", type=float, help="Adam's learning rate, for embeddings, biases and norms")
    add("--weight-decay", type=float, help="decoupled weight decay of matrices, times lr each step")
    add("--weights", type=float, nargs=5, help="of the losses: masked residues, divergence, change, column, attention")
    add("--held-layers", type=int, help="the last layers, which stay as they are, as does the embedding")
    add("--seed", type=int, help="of weights, batches and masks")
    add("--every", type=int, help="steps between rows of loss.csv and checkpoints")
    fit.add_argument(
        "--start-from", type=Path, help="checkpoint of another run, to start from its weights instead of random ones"
    )


def _add_finish(end: argparse.ArgumentParser) -> None:
    add = end.add_argument
    add("folder", type=Path, help="folder with alignments/, structures/ and queries.fasta")
    add("--run", type=Path, default=Path("runs/tiny"), help="folder with last.ckpt")
    add("--export", type=Path, help="file to write; none means tiny.safetensors in --run")
    add("--fit-families", nargs="*", default=[], help="for the contact head; none means every other one")


def main() -> None:
    """Run one of the three commands; bad input is a sentence, not a traceback."""
    try:
        run(vars(parser().parse_args()))
    except InputError as error:
        raise SystemExit(f"train_tiny: {error}") from None


def run(arguments: dict[str, Any]) -> None:
    """Run the command of these arguments."""
    command, folder = arguments.pop("command"), arguments.pop("folder")
    if command == "finish":
        finish(folder, arguments["run"], _export(arguments["export"], arguments["run"]), arguments["fit_families"])
    elif command == "recipe":
        out = arguments["out"]
        follow(folder, out, _export(arguments["export"], out), tuple(arguments["families"]))
    else:
        out, every, start_from = (arguments.pop(name) for name in ("out", "every", "start_from"))
        train(folder, out, Settings(**arguments), every=every, start_from=start_from)


def _export(given: Path | None, folder: Path) -> Path:
    return given or folder / "tiny.safetensors"


if __name__ == "__main__":
    main()
