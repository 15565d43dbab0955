"""Functions and files of plmjac that one protein enters on its way from a file to the store, and stays of the settings.

    python scripts/trace_protein.py [-v]

One protein, model=debug, in this process. A stay is a file entered by a function that is given the settings, or a part
of them, after another file was; fewer of both means that a newcomer has less to read.
"""

import sys
import tempfile
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import plmjac

PACKAGE = str(Path(plmjac.__file__).parent)


class Trace:
    """Counts the functions that are called, in every thread."""

    def __init__(self) -> None:
        self.functions: set[tuple[str, str]] = set()
        self.stays: list[str] = []

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        """Called by Python at every event; only calls into plmjac count."""
        code = frame.f_code
        if event != "call" or not code.co_filename.startswith(PACKAGE) or code.co_name.startswith("<"):
            return
        file = code.co_filename.removeprefix(PACKAGE + "/")
        self.functions.add((file, code.co_qualname))
        given = [frame.f_locals.get(name) for name in code.co_varnames[: code.co_argcount]]
        has_settings = any(type(value).__name__.endswith(("Settings", "Config", "Request", "Run")) for value in given)
        if has_settings and self.stays[-1:] != [file]:
            self.stays.append(file)


def main() -> None:
    """Trace one run and print the counts."""
    # Imported before the trace begins: imports are no calls that a protein makes.
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    import plmjac.predict
    from plmjac.config import config_dir

    for module in ("inference.loop", "inference.jacobian_task", "inference.module", "inference.writer", "models.debug"):
        try:
            __import__(f"plmjac.{module}")
        except ImportError:
            continue  # of another version of plmjac, whose counts are wanted too
    trace = Trace()
    with tempfile.TemporaryDirectory() as folder:
        fasta = Path(folder, "one.fasta")
        fasta.write_text(">one\nMKTAYIAKQRQISFVKSHFSRQLE\n")
        with initialize_config_dir(str(config_dir()), version_base="1.3"):
            words = ["+dataset=fasta", f"dataset.path={fasta}", "model=debug", f"store={folder}/run.zarr", "threads=1"]
            config: Any = OmegaConf.to_container(compose("predict", overrides=words), resolve=True)
        threading.setprofile(trace)
        sys.setprofile(trace)
        code = plmjac.predict.predict(config)
        sys.setprofile(None)
        threading.setprofile(None)
    assert code == 0
    files = {file for file, _ in trace.functions}
    if "-v" in sys.argv:
        print("\n".join(sorted(files)))
    print(f"{len(trace.functions)} functions in {len(files)} files; the settings make {len(trace.stays)} stays in "
          f"{len(set(trace.stays))} files")  # fmt: skip


if __name__ == "__main__":
    main()
