"""Forecast a run: `python -m plmjac.plan +dataset=pdb model=esm2_650m ...`, with the arguments of predict."""

import sys

from plmjac.config import DONE, Config, run
from plmjac.datasets import build
from plmjac.inference.settings import parse_predict


def plan(config: Config) -> int:
    """Print the forecast of a prediction and return the exit code."""
    settings = parse_predict(config)
    dataset = build(**settings.dataset)  # whose mistakes need not wait for what is imported now
    from plmjac.inference.forecast import forecast_of  # noqa: PLC0415 - torch and Zarr, 2.5 s

    for line in forecast_of(settings, dataset):
        print(line)
    return DONE


def main() -> None:
    """The entry point; ends the process with its exit code."""
    sys.exit(run("plan", plan))


if __name__ == "__main__":
    main()
