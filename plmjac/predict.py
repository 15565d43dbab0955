"""Compute a store of contact maps and Jacobians: `python -m plmjac.predict +dataset=pdb ...`.

Settings are checked, resolved to a run, and the run is executed; the exit code says how it ended.
"""

import logging
import os
import sys
import traceback

from plmjac import interruption

if __name__ == "__main__":
    interruption.install_for_start()  # before the imports below, which take their time
    # Threads that wait spin by default; beside a second rank that costs a factor of three to five. Read with torch.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from plmjac.config import DONE, SOME_FAILED, Config, run
from plmjac.datasets import build
from plmjac.inference.launch import may_have_peers, read_launch, under_torchrun
from plmjac.inference.settings import parse_predict
from plmjac.models.caution import caution

log = logging.getLogger("plmjac.predict")


def predict(config: Config) -> int:
    """Run one prediction to its end and return its exit code."""
    settings = parse_predict(config)
    launch = read_launch(settings.trainer)
    logging.getLogger("plmjac").setLevel(logging.WARNING if launch.rank else logging.INFO)
    log.info("dataset=%s model=%s store=%s", settings.dataset["name"], settings.model.name, settings.store)
    if warning := caution(settings.model.name, settings.dataset["name"], settings.model.checkpoint):
        log.warning(warning)
    dataset = build(**settings.dataset)  # whose mistakes need not wait for what is imported now
    from plmjac.inference.resolve import resolve  # noqa: PLC0415 - torch, 2 s
    from plmjac.inference.session import Session, outcome_of  # noqa: PLC0415 - Zarr and Arrow, 0.6 s

    with Session(resolve(settings, dataset, config, launch)) as session:
        if launch.is_alone:
            session.prepare()
        if launch.is_alone and not session.to_compute:
            log.info("nothing left to compute")
        else:
            from plmjac.inference.loop import execute  # noqa: PLC0415 - Lightning, 2 s

            if not execute(session, config):
                return DONE  # rank 0 speaks for all
        rows = session.finish()
    log.info("%s: %s", settings.store, outcome_of(rows))
    return SOME_FAILED if any(row.status in ("failed", "skipped") for row in rows) else DONE


def main() -> None:
    """The entry point; ends the process with the exit code (README)."""
    interruption.install()
    if under_torchrun():
        interruption.end_with_parent()
    try:
        code = run("predict", predict)
    except interruption.Interrupted as signal:
        interruption.end(f"interrupted by {signal}; nothing is lost, run the same command again to resume")
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            code, said = interruption.failed_by_the_system(error)
            interruption.end(said, code)
        if not may_have_peers():
            raise
        traceback.print_exc()
        code = 1
    if may_have_peers():
        interruption.leave(code)
    sys.exit(code)


if __name__ == "__main__":
    main()
