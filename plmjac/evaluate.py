"""Evaluate stores: `python -m plmjac.evaluate +evaluation=contact_precision store=runs/pdb.zarr`.

Prints the text of the evaluation that is named and writes its tables and figures, to W&B as well where a logger is on.
"""

import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, Field, create_model, field_validator

from plmjac.config import DONE, SOME_FAILED, Config, Keys, UsageError, nearest, options, parse, run
from plmjac.evaluation import find
from plmjac.inference.settings import LoggerSettings

if TYPE_CHECKING:
    from plmjac.evaluation.base import Evaluation

log = logging.getLogger("plmjac.evaluate")


class EvaluateConfig(Keys):
    """The keys of conf/evaluate.yaml; `evaluation` has the schema of the evaluation that is named."""

    store: tuple[Path, ...]
    out: Path | None
    structures: Path | None
    evaluation: BaseModel
    logger: LoggerSettings = Field(discriminator="name")
    dataset: dict[str, Any] | None = None

    @field_validator("store", mode="before")
    @classmethod
    def _none_one_or_several(cls, store: Any) -> Any:
        return () if store is None else (store,) if isinstance(store, str | Path) else store


def parse_evaluate(config: Config) -> "tuple[Evaluation, EvaluateConfig]":
    """The evaluation that a configuration names, and the configuration, checked. Raises UsageError."""
    listed, chosen = options("evaluation"), config.get("evaluation")
    if not isinstance(chosen, dict) or chosen.get("name") not in listed:
        if name := chosen.get("name") if isinstance(chosen, dict) else chosen:
            raise UsageError(f"there is no evaluation {name!r}; {nearest(str(name), listed)}")
        raise UsageError(f"which evaluation? Add one of: {'  '.join(f'+evaluation={each}' for each in listed)}")
    evaluation = find(chosen["name"])
    schema = create_model("EvaluateConfig", __base__=EvaluateConfig, evaluation=(evaluation.Settings, ...))
    return evaluation, parse(schema, config)


def evaluate(config: Config) -> int:
    """Run one evaluation and return its exit code."""
    evaluation, settings = parse_evaluate(config)
    if (settings.structures or settings.dataset) and not getattr(evaluation, "READS_STRUCTURES", True):
        name = config["evaluation"]["name"]
        raise UsageError(f"structures and dataset have no effect on +evaluation={name}; leave them out")
    from plmjac.evaluation.inputs import inputs_of  # noqa: PLC0415 - pandas, Zarr, matplotlib, 3 s
    from plmjac.evaluation.output import default_folder, write  # noqa: PLC0415 - as above

    inputs = inputs_of(settings.store, settings.dataset, settings.structures)
    outcome = evaluation.evaluate(inputs, settings.evaluation)
    out = settings.out or default_folder(settings.store, config["evaluation"]["name"])
    images = write(outcome, out, inputs.caution)
    print("\n".join([*filter(None, [inputs.caution]), outcome.text]))
    if settings.logger.name != "none":
        from plmjac.inference.loggers import log_outcome  # noqa: PLC0415 - Lightning, 2 s

        log_outcome(settings.logger, config, Path(f"{out.absolute()}-logs"), outcome.metrics, outcome.tables, images)
    if not outcome.scored:
        log.error("error: nothing could be scored, for the reasons above")
    return DONE if outcome.scored else SOME_FAILED


def main() -> None:
    """The entry point; ends the process with its exit code."""
    sys.exit(run("evaluate", evaluate))


if __name__ == "__main__":
    main()
