"""Judge stores: `python -m plmjac.evaluate +evaluation=contact_precision store=runs/pdb.zarr`.

Finds the evaluation by its name, gives it what it reads, and writes what it finds: tables as parquet and csv, figures
as png and svg, the text to the screen, and all of it to W&B where a logger is on. What is computed is not known here.
"""

import logging
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, create_model, field_validator

from plmjac.config import DONE, Config, UsageError, nearest, options, parse, run
from plmjac.inference.settings import LoggerSettings

if TYPE_CHECKING:
    from plmjac.evaluation import Evaluation, Inputs, Outcome, Store
    from plmjac.records import Protein

log = logging.getLogger("plmjac.evaluate")


class EvaluateConfig(BaseModel):
    """Everything an evaluation can be told, as conf/evaluate.yaml documents it; `evaluation` is the module's own."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    store: tuple[Path, ...]
    out: Path | None
    evaluation: BaseModel
    logger: LoggerSettings = Field(discriminator="name")
    dataset: dict[str, Any] | None = None

    @field_validator("store", mode="before")
    @classmethod
    def _none_one_or_several(cls, store: Any) -> Any:
        return () if store is None else (store,) if isinstance(store, str | Path) else store


def parse_evaluate(config: Config) -> "tuple[Evaluation, EvaluateConfig]":
    """The evaluation that a configuration names and the configuration, checked by that evaluation's own schema.

    Raises UsageError; without an evaluation, or with an unknown one, it lists those there are.
    """
    from plmjac.evaluation import find

    listed = options("evaluation")
    offer = "Add one of: " + "  ".join(f"+evaluation={name}" for name in listed)
    if "evaluation" not in config:
        raise UsageError(f"which evaluation? {offer}")
    chosen = config["evaluation"]
    if not isinstance(chosen, dict):
        raise UsageError(f"there is no evaluation {chosen!r}; {nearest(str(chosen), listed)}")
    if "name" not in chosen:
        raise UsageError(f"which evaluation do these keys belong to? {offer}")
    try:
        evaluation = find(str(chosen["name"]))
    except KeyError:
        raise UsageError(f"there is no evaluation {chosen['name']!r}; {nearest(str(chosen['name']), listed)}") from None
    schema = create_model("EvaluateConfig", __base__=EvaluateConfig, evaluation=(evaluation.Settings, ...))
    settings: EvaluateConfig = parse(schema, config)
    return evaluation, settings


def evaluate(config: Config) -> int:
    """Run one evaluation job and return its exit code."""
    evaluation, settings = parse_evaluate(config)
    from plmjac.datasets import InputError
    from plmjac.evaluation import EvaluationError
    from plmjac.store import StoreError

    try:
        outcome = evaluation.evaluate(inputs_of(settings.store, settings.dataset), settings.evaluation)
    except (StoreError, InputError, EvaluationError) as error:
        raise UsageError(str(error)) from error
    out = settings.out or default_out(settings)
    try:
        images = _write(outcome, out)
    except OSError as error:
        raise UsageError(f"out={out} cannot be written: {error.strerror}") from error
    print(outcome.text)
    _log(outcome, images, settings, config, out)
    return DONE


def default_out(settings: EvaluateConfig) -> Path:
    """Beside the store and named after it; named after all of them, or the evaluation, where there is not one store."""
    if not settings.store:
        return Path("runs") / f"{settings.evaluation.model_dump()['name']}-evaluation"
    first, *others = (path.absolute() for path in settings.store)
    if not others:
        return Path(f"{first}-evaluation")
    joined = "+".join(path.stem for path in (first, *others))
    short = joined if len(joined) <= 100 else f"{first.stem}+{len(others)}_more"
    return first.parent / f"{short}-evaluation"


def inputs_of(paths: Iterable[Path], dataset: dict[str, Any] | None) -> "Inputs":
    """What an evaluation is given: these stores, opened, and the structures of this dataset or else of their own."""
    from plmjac.evaluation import EvaluationError, Inputs

    stores = tuple(_named_stores(paths))

    def truth() -> "Iterator[Protein]":
        datasets = [dataset] if dataset else _own_datasets(stores)
        if not datasets:
            raise EvaluationError("structures are needed: name a dataset, as in +dataset=pdb dataset.path=structures/")
        seen: set[str] = set()
        for each in datasets:
            for protein in _proteins(each):
                if protein.id not in seen:
                    seen.add(protein.id)
                    yield protein

    return Inputs(stores, truth)


def _named_stores(paths: Iterable[Path]) -> "Iterator[Store]":
    """The stores, each called after its folder; with its place in the list where two folders have one name."""
    from plmjac.evaluation import Store
    from plmjac.store import open_store

    stems = [path.absolute().stem for path in paths]
    for number, (path, stem) in enumerate(zip(paths, stems, strict=True), start=1):
        yield Store(stem if stems.count(stem) == 1 else f"{stem}_{number}", open_store(path))


def _own_datasets(stores: "Iterable[Store]") -> list[dict[str, Any]]:
    """What the stores were made from, each dataset once."""
    datasets: list[dict[str, Any]] = []
    for store in stores:
        dataset = store.opened.attributes["config"]["dataset"]
        if dataset not in datasets:
            datasets.append(dataset)
    return datasets


def _proteins(dataset: dict[str, Any]) -> "Iterator[Protein]":
    from plmjac.datasets import build
    from plmjac.records import Protein

    if "name" not in dataset:
        raise UsageError(f"which dataset? Add one of: {'  '.join(f'+dataset={name}' for name in options('dataset'))}")
    arguments = {key: value for key, value in dataset.items() if key != "name"}
    return (record for record in build(dataset["name"], **arguments) if isinstance(record, Protein))


def _write(outcome: "Outcome", out: Path) -> dict[str, Path]:
    """Everything an evaluation found, as files; returns the png of each figure."""
    out.mkdir(parents=True, exist_ok=True)
    for name, table in outcome.tables.items():
        table.to_parquet(out / f"{name}.parquet", index=False)
        table.to_csv(out / f"{name}.csv", index=False)
        log.info("table: %s and .csv", out / f"{name}.parquet")
    images = {}
    for name, draw in outcome.figures.items():
        from plmjac import plots

        images[name] = out / f"{name}.png"
        plots.save(draw(), images[name], out / f"{name}.svg")
        log.info("figure: %s and .svg", images[name])
    for name, data in outcome.files.items():
        (out / name).write_bytes(data)
        log.info("file: %s", out / name)
    return images


def _log(outcome: "Outcome", images: dict[str, Path], settings: EvaluateConfig, config: Config, out: Path) -> None:
    """The same to the logger that is on; it can fail without harm, for the files are written."""
    if settings.logger.name == "none":
        return
    from plmjac.inference.loggers import build_logger

    logger = build_logger(settings.logger, run_config=config, default_dir=Path(f"{out.absolute()}-logs"))
    if logger is not None:
        logger.log_metrics(outcome.metrics)
        logger.log_tables(outcome.tables)
        logger.log_images(images)
        logger.close(DONE)


def main() -> None:
    """The entry point; ends the process with its exit code."""
    sys.exit(run("evaluate", evaluate, added_groups=["dataset", "evaluation"]))


if __name__ == "__main__":
    main()
