"""From alignments to the shipped file: which run starts from which, and with what settings.

Columns in any surroundings and couplings are not learnt at once. So a first run learns the couplings of domains alone;
a second one a front that names columns between flanks; the third joins them, the front first and then all layers,
slowly at first: a front that is not yet what the last layers are used to makes them forget within a hundred steps. What
it gives up: the numbers of steps are those that did for ten families.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from tiny.data import load_families
from tiny.export import finish
from tiny.front import FrontModule
from tiny.training import Settings, TinyModule, train

FAMILIES = (
    "PF00249", "PF00018", "PF00226", "PF00013", "PF00498", "PF00364", "PF00550", "PF00076", "PF00041", "PF00327",
)  # fmt: skip
"""Those of the demo's ten domains."""


class Stage(NamedTuple):
    """A stretch of the run `run`, up to `settings.steps`.

    The weights are at first those of the run `start_from`, or random. With `front` it is the front of layers that is
    trained, for the last layers of `start_from`.
    """

    run: str
    settings: Settings
    start_from: str = ""
    front: bool = False


ALONE = Settings(layers=4, flanked=0.0, tokens=84)
STAGES = (
    Stage("alone", replace(ALONE, mutants=3, masked=6, steps=1000, decay_steps=0)),
    Stage("alone", replace(ALONE, steps=2100, decay_steps=882)),
    Stage("front", Settings(per_family=2, mutants=1, masked=20, steps=750, decay_steps=0, lr=0.015), "alone", True),
    Stage("tiny", Settings(held_layers=2, steps=800, decay_steps=450), "front"),
    Stage("tiny", Settings(steps=2300, decay_steps=3750)),
    Stage("tiny", Settings(steps=9000, decay_steps=5500, weights=[1.0, 1.0, 45.0, 0.5, 1.0])),
)


def follow(
    folder: Path, out: Path, export: Path, families: tuple[str, ...] = FAMILIES, stages: tuple[Stage, ...] = STAGES,
    every: int = 100,
) -> None:  # fmt: skip
    """Every stage in its run's folder under `out`, then `finish` on the last one.

    A killed one is given again: stages that are done are passed over and the one that was cut off goes on from its
    checkpoint, to the same weights. Ends the program before any training where a structure is missing or a run in `out`
    is of something else.
    """
    _check(folder, out, families, stages)
    export.parent.mkdir(parents=True, exist_ok=True)
    for stage in stages:
        settings = replace(stage.settings, families=list(families))
        before = out / stage.start_from / "last.ckpt" if stage.start_from else None
        module_of = partial(FrontModule, alone=before) if stage.front and before else TinyModule
        print(f"{out / stage.run} to step {settings.steps:,}", flush=True)
        start_from = None if stage.front else before
        train(folder, out / stage.run, settings, every=every, start_from=start_from, module_of=module_of)
    finish(folder, out / stages[-1].run, export, [])


def _check(folder: Path, out: Path, families: tuple[str, ...], stages: tuple[Stage, ...]) -> None:
    for family in load_families(folder, list(families)):
        path = folder / "structures" / f"{family.structure}.pdb"
        if not path.is_file():
            raise SystemExit(f"train_tiny: there is no {path}, the structure of {family.name} for the contact head")
    for stage in stages:
        run, before = out / stage.run / "last.ckpt", out / stage.start_from / "last.ckpt"
        if stage.start_from and run.exists() and not before.exists():
            raise SystemExit(f"train_tiny: {run} did not start from {before}, which is not there; take another --out")
