"""Documentation, job scripts, the sweep and a notebook for those without a checkout: `plmjac examples FOLDER`."""

import shutil
import sys
from pathlib import Path

PARTS = ("README.md", "docs", "examples", "scripts/predict.sbatch", "scripts/predict_array.sbatch", "conf/sweep")
"""The files that are copied, by their paths in a checkout; a wheel has it in plmjac/copied/ (pyproject.toml)."""


def source() -> Path:
    """The folder that has the parts: the checkout's, or that of a wheel."""
    package = Path(__file__).resolve().parent
    return package / "copied" if (package / "copied").is_dir() else package.parent


def copy(folder: Path) -> list[Path]:
    """Copy the parts into a new or empty folder and return their paths there. Raises FileExistsError for another."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder} is there already; name a new folder")
    for part in PARTS:
        here, there = source() / part, folder / part
        there.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(here, there) if here.is_dir() else shutil.copy(here, there)
    return [folder / part for part in PARTS]


def main() -> None:
    """Copy into the folder that is named and say what is where; exit code 2 where that cannot be."""
    try:
        (folder,) = sys.argv[1:]
        for path in copy(Path(folder)):
            print(path)
    except ValueError:
        print("usage: plmjac examples FOLDER", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
