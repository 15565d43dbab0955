"""Forecast a run: `python -m plmjac.plan +dataset=pdb model=esm2_650m ...`, with the arguments of predict."""

import sys

from plmjac.config import DONE, Config, run
from plmjac.inference.forecast import forecast_of
from plmjac.inference.settings import parse_predict


def plan(config: Config) -> int:
    """Print the forecast of a prediction and return the exit code."""
    for line in forecast_of(parse_predict(config)):
        print(line)
    return DONE


def main() -> None:
    """The entry point; ends the process with its exit code."""
    sys.exit(run("plan", plan))


if __name__ == "__main__":
    main()
