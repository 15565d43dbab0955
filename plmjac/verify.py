"""Is a store what was written? `python -m plmjac.verify store=runs/pdb.zarr [deep=true] [repair=true]`; else exit 1."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from plmjac.config import DONE, Config, Keys, parse, run

if TYPE_CHECKING:
    from plmjac.store import Damage

DAMAGED = 1


class VerifyConfig(Keys):
    """The keys of conf/verify.yaml."""

    store: Path
    deep: bool
    repair: bool


def verify(config: Config) -> int:
    """Check a store, say what is damaged and how to mend it, or mend it, and return the exit code."""
    settings = parse(VerifyConfig, config)
    from plmjac import store as stores  # noqa: PLC0415 - Zarr and Arrow, 0.6 s: not for --help

    guard = None
    try:
        store = stores.open_store(settings.store)
        if settings.repair:
            guard = stores.lock(settings.store)
            if problem := stores.renew_manifest(settings.store):
                print(f"damaged: {problem}")
        problems = _said(stores.verify(store, deep=settings.deep), len(store.rows))
        bad = sorted(key for key, found in problems.items() if key and found)
        intact = sum(1 for key, found in problems.items() if key and not found)
        print(f"{settings.store}: {intact} proteins intact, {len(bad)} damaged")
        if settings.repair:
            back, unknown = stores.repair(store, problems)
            print(f"repaired: {len(back)} proteins put back to pending, {unknown} added to the manifest")
            if back:
                print("Run the predict command of their input again to compute them.")
            mended = stores.open_store(settings.store)
            bad, problems = [], _said(stores.verify(mended, deep=settings.deep), len(mended.rows))
    except stores.CorruptStoreError as error:
        print(f"damaged: {error}")
        return DAMAGED
    finally:
        if guard is not None:
            guard.release()
    if bad:
        print("To mend: the same command with repair=true, then the predict command of their input again.")
    return DAMAGED if any(problems.values()) else DONE


def _said(checks: "Iterator[tuple[str, list[Damage]]]", total: int) -> "dict[str, list[Damage]]":
    """By key, the damage of each protein, and under the empty key that of the store itself; printed as it is found."""
    bar = tqdm(checks, total=total, unit="protein", disable=not sys.stderr.isatty())
    problems = {}
    for key, found in bar:
        problems[key] = found
        for damage in found:
            bar.write(f"damaged: {damage.key or 'the store itself'}: {damage.problem}", file=sys.stdout)
    return problems


def main() -> None:
    """The entry point; ends the process with its exit code."""
    sys.exit(run("verify", verify))


if __name__ == "__main__":
    main()
