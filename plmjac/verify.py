"""Is a store what was written? `python -m plmjac.verify store=runs/pdb.zarr [deep=true]`; exit code 1 if not."""

import logging
import sys
from pathlib import Path

from pydantic import BaseModel, ConfigDict
from tqdm import tqdm

from plmjac.config import DONE, Config, parse, run

log = logging.getLogger("plmjac.verify")

DAMAGED = 1


class VerifyConfig(BaseModel):
    """The keys of conf/verify.yaml."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    store: Path
    deep: bool


def verify(config: Config) -> int:
    """Check a store, say what is damaged and how to mend it, and return the exit code."""
    settings = parse(VerifyConfig, config)
    from plmjac.store import CorruptStoreError, open_store  # with Zarr, Arrow and torch: not for --help
    from plmjac.store import verify as check

    try:
        store = open_store(settings.store)
        checked = check(store, deep=settings.deep)
        results = list(tqdm(checked, total=len(store.rows), unit="protein", disable=not sys.stderr.isatty()))
    except CorruptStoreError as error:
        print(f"damaged: {error}")
        return DAMAGED
    damages = [damage for _, found in results for damage in found]
    for damage in damages:
        print(f"damaged: {damage.key or 'the store itself'}: {damage.problem}")
    bad = sorted({damage.key for damage in damages if damage.key})
    intact = sum(1 for key, found in results if key and not found)
    print(f"{settings.store}: {intact} proteins intact, {len(bad)} damaged")
    if bad:
        folder = settings.store / "proteins"
        print(f"To mend: delete {folder}/NAME for each of them and run the same predict command again.")
    return DAMAGED if damages else DONE


def main() -> None:
    """The entry point; ends the process with its exit code."""
    sys.exit(run("verify", verify))


if __name__ == "__main__":
    main()
