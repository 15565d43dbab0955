"""Judge a store: `python -m plmjac.evaluate +evaluation=contact_precision store=runs/pdb.zarr`.

Tables go to parquet and csv, figures to png and svg, and the one that matters to the screen.
"""

import logging
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, PositiveFloat

from plmjac.config import DONE, Config, UsageError, options, parse, run

if TYPE_CHECKING:
    import pandas as pd

    from plmjac.records import Protein
    from plmjac.store import JacobianStore

log = logging.getLogger("plmjac.evaluate")

MAX_PANELS = 20


class ContactPrecisionSettings(BaseModel):
    """The keys of conf/evaluation/contact_precision.yaml."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Literal["contact_precision"]
    atom: Literal["cb", "ca"]
    cutoff: PositiveFloat
    range: Literal["all", "short", "medium", "long"]


class EvaluateConfig(BaseModel):
    """Everything an evaluation can be told, as conf/evaluate.yaml documents it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    store: Path
    out: Path | None
    evaluation: ContactPrecisionSettings
    dataset: dict[str, Any] | None = None


def evaluate(config: Config) -> int:
    """Run one evaluation job and return its exit code."""
    if "evaluation" not in config:
        names = "  ".join(f"+evaluation={name}" for name in options("evaluation"))
        raise UsageError(f"which evaluation? Add one of: {names}")
    settings = parse(EvaluateConfig, config)
    from plmjac.datasets import InputError
    from plmjac.store import StoreError, open_store

    try:
        store = open_store(settings.store)
        _contact_precision(store, list(_structures(store, settings)), settings)
    except (StoreError, InputError) as error:
        raise UsageError(str(error)) from error
    return DONE


def _structures(store: "JacobianStore", settings: EvaluateConfig) -> "Iterable[Protein]":
    """The proteins, with their structures, of the dataset that is named, or else of the one the store was made from."""
    from plmjac.datasets import build
    from plmjac.records import Protein

    dataset = settings.dataset or store.attributes["config"]["dataset"]
    arguments = {key: value for key, value in dataset.items() if key != "name"}
    return (record for record in build(dataset["name"], **arguments) if isinstance(record, Protein))


def _contact_precision(store: "JacobianStore", truth: "list[Protein]", settings: EvaluateConfig) -> None:
    from plmjac.evaluation import contact_precision

    job = settings.evaluation
    table = contact_precision(store, truth, atom=job.atom, cutoff=job.cutoff)
    out = settings.out or Path(f"{settings.store.absolute()}-evaluation")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"out={out} cannot be written: {error.strerror}") from error
    table.to_parquet(out / "contact_precision.parquet", index=False)
    table.to_csv(out / "contact_precision.csv", index=False)
    print(_printed(table, store, settings))
    figures = _draw(table, store, truth, settings, out)
    log.info("tables: %s and .csv", out / "contact_precision.parquet")
    for path in figures:
        log.info("figure: %s", path)


def _printed(table: "pd.DataFrame", store: "JacobianStore", settings: EvaluateConfig) -> str:
    """The table of one range with its mean, and every reason why something is missing from it."""
    import pandas as pd

    from plmjac.metrics import RANGES

    job, columns = settings.evaluation, ["P@L", "P@L/2", "P@L/5", "chance"]
    chosen = table[(table["range"] == job.range) & table["reason"].isin(["", None])]
    low, high = RANGES[job.range]
    span = f"|i-j| >= {low}" if high is None else f"{low} <= |i-j| < {high}"
    lines = [
        f"model {store.attributes['model']['name']}; contacts: {job.atom} < {job.cutoff:g} A, {span}",
        "P@L: share of contacts among the L best pairs (L: residues); chance: among all pairs",
    ]
    for name, rows in chosen.groupby("map", sort=False):
        mean = pd.DataFrame([{"protein": f"mean of {len(rows)}", **rows[columns].mean()}])
        shown = pd.concat([rows[["protein", "length", *columns]], mean], ignore_index=True)
        shown["length"] = ["" if pd.isna(length) else f"{length:.0f}" for length in shown["length"]]
        lines += [f"\n{name}", shown.to_string(index=False, float_format=lambda x: f"{x:.3f}", na_rep="")]
    missing = table[~table["reason"].isin(["", None]) & table["range"].isin([job.range, None, float("nan")])]
    lines += [f"not scored: {row.protein}: {row.reason}" for row in missing.itertuples()]
    return "\n".join(lines)


def _draw(
    table: "pd.DataFrame", store: "JacobianStore", truth: "list[Protein]", settings: EvaluateConfig, out: Path
) -> list[Path]:
    from plmjac import plots

    job = settings.evaluation
    structures = {protein.id: protein.structure for protein in truth}
    scored = table[(table["range"] == job.range) & (table["map"] == "contacts")]
    panels = [
        plots.MapPanel(
            f"{row['protein']}  P@L/2 {row['P@L/2']:.2f} ({row['chance']:.2f})",
            store[row["protein"]].contacts,
            contacts,
        )
        for row in scored.to_dict("records")
        if (structure := structures[row["protein"]]) is not None
        for contacts in [structure.contacts(job.atom, job.cutoff)]
    ][:MAX_PANELS]
    if not panels:
        return []
    model = store.attributes["model"]["name"]
    title = f"{model}: categorical Jacobian above, structure below ({job.atom} < {job.cutoff:g} A); yellow: not scored"
    paths = [out / "contact_maps.png", out / "contact_maps.svg"]
    for path in paths:
        plots.save(plots.contact_maps(panels, title), path)
    return paths


def main() -> None:
    """The entry point; ends the process with its exit code."""
    sys.exit(run("evaluate", evaluate, added_groups=["dataset", "evaluation"]))


if __name__ == "__main__":
    main()
