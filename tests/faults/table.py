"""Try every kind of fault and print what came of it: `make test-faults`; exits 1 if one was not survived.

python tests/faults/table.py [--places 4] [--only TEXT]
"""

import argparse
import sys
import time
from pathlib import Path

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).resolve().parents[1])]

from faults.bench import Bench, fast_folder
from faults.forks import Forks
from faults.kinds import kinds


def main() -> int:
    """Print a row a kind as it is tried, then the totals."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--places", type=int, default=4, help="places tried of each operation")
    parser.add_argument("--only", default="", help="kinds whose name holds this text")
    options = parser.parse_args()
    tried = survived = kinds_tried = lost = 0
    began = time.monotonic()
    print(f"{'kind of fault':<58} {'tried':>5} {'survived':>8} {'lost':>4}")
    with Forks() as forks, fast_folder() as folder:
        bench = Bench.set_up(forks, Path(folder))
        for kind in kinds():
            if options.only not in kind.name:
                continue
            trials = list(kind.trials(bench, options.places))
            good = sum(not trial.problems for trial in trials)
            gone = sum(trial.lost for trial in trials)
            print(f"{kind.name:<58} {len(trials):>5} {good:>8} {gone:>4}", flush=True)
            for trial in trials:
                for problem in trial.problems:
                    print(f"    {problem}", flush=True)
            kinds_tried, tried, survived, lost = kinds_tried + 1, tried + len(trials), survived + good, lost + gone
    print(
        f"{kinds_tried} kinds, {tried} faults tried, {survived} survived, {lost} proteins lost; "
        f"{time.monotonic() - began:.0f} s"
    )
    return 0 if survived == tried and not lost else 1


if __name__ == "__main__":
    sys.exit(main())
