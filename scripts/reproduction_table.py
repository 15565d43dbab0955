"""One table of a reproduction: what Zhang et al. (PNAS 2024) report beside what `reproduce_paper.sh` found.

    python scripts/reproduction_table.py runs/paper        prints it, and writes runs/paper/reproduction.md

Reads the tables of the evaluations; an analysis that was not run has a row without a number. The paper's numbers are of
ESM-2 3B on its 1,431 proteins where nothing else is said.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import pandas as pd

Number = Callable[[Path], str]
"""From the folder of a run to a number in words; raises OSError, KeyError or IndexError where there is none."""


def precision(method: str, table: str = "contact_precision/summary.csv") -> Number:
    """Mean long-range P@L/2 as the paper counts (ordered pairs), C-alpha < 10 angstrom, else C-beta < 8."""

    def read(folder: Path) -> str:
        rows = pd.read_csv(folder / table)
        rows = rows[(rows["range"] == "long") & (rows["method"] == method) & (rows["n"] > 0)]
        if "lengths" in rows:
            rows = rows[rows["lengths"] == "all"]
        ordered = rows[rows["measure"] == "P@L/2 ordered"]
        chosen = ordered if len(ordered) else rows[rows["measure"] == "P@L/2"]
        if "atom" in chosen and (chosen["atom"] == "ca").any():
            chosen = chosen[chosen["atom"] == "ca"]
        row = chosen.iloc[0]
        return f"{row['mean']:.2f} (n = {int(row['n'])})"

    return read


def half(name: str) -> Number:
    """Flanking residues a side at which half are recovered: flanking / random / random that avoids what is near."""

    def read(folder: Path) -> str:
        rows = pd.read_csv(folder / f"recovery_{name}" / "summary.csv")
        steps = {str(row["schedule"]): row["half_step"] for row in rows.to_dict("records")}
        first = rows.iloc[0]
        known = ("flanking", "random", "random_avoiding_30", "random_avoiding")
        words = [_whole(steps[each]) for each in known if each in steps]
        return f"{' / '.join(words)} (n = {int(first['curves'])})"

    return read


def jumps(name: str) -> Number:
    """The share of recoverable curves under flanking that jump by 0.5 on one more residue."""

    def read(folder: Path) -> str:
        rows = pd.read_csv(folder / f"recovery_{name}" / "summary.csv")
        row = rows[rows["schedule"] == "flanking"].iloc[0]
        share = row["jump"] / row["recoverable"] if row["recoverable"] else float("nan")
        return f"{share:.0%} of {int(row['recoverable'])}"

    return read


def named(protein: str, flanks: tuple[int, int]) -> Number:
    """R of one pair at two flanks."""

    def read(folder: Path) -> str:
        rows = pd.read_csv(folder / "recovery_named" / "recovery.csv")
        recovery = rows[rows["protein"].str.replace("_", "") == protein].set_index("step")["recovery"]
        return ", ".join(f"R({flank}) = {recovery.loc[flank]:.2f}" for flank in flanks)

    return read


def capacity(folder: Path) -> str:
    """Parameters for the couplings of all families."""
    rows = pd.read_csv(folder / "capacity" / "capacity.csv")
    return f"{int(rows['parameters'].iloc[0]):,}"


def spearman(folder: Path) -> str:
    """Mean Spearman correlation of couplings at the cut-offs of 1 and 4 sigma."""
    rows = pd.read_csv(folder / "coupling_correlation" / "coupling_correlation_summary.csv").set_index("sigma")
    mean, number = rows["mean"], rows["n"]
    return f"{mean.loc[1]:.2f}, {mean.loc[4]:.2f} (n = {int(number.loc[1])})"


def conformations(folder: Path) -> str:
    """Recall of each structure's own contacts among the top L pairs of the Jacobian's map, a sequence each."""
    rows = pd.read_csv(folder / "conformations" / "conformations.csv")
    rows = rows[(rows["map"] == "contacts") & (rows["top"] == "L")]
    parts = []
    for protein, found in rows.groupby("protein", sort=False):
        recall = found.set_index("class")["recall"]
        parts.append(f"{protein}: {recall['only A']:.2f} of 2QKE alone, {recall['only B']:.2f} of 5JYT alone")
    return "; ".join(parts) or _nothing()


def isoforms(folder: Path) -> str:
    """Median RMSD of the aligned regions."""
    rows = pd.read_csv(folder / "should_not_fold" / "should_not_fold.csv")
    return f"median RMSD {rows['rmsd'].median():.2f} (n = {rows['rmsd'].notna().sum()})"


def discoveries(folder: Path) -> str:
    """Pairs per residue at a false discovery rate of 0.1 by shuffled sequences."""
    row = pd.read_csv(folder / "false_discovery" / "false_discovery_rates.csv").set_index("rate").loc[0.1]
    contradicted: str = "" if pd.isna(row["no contact"]) else f" ({row['no contact']:.0%} of them no contact)"
    return f"{row['pairs / L']:.2f} pairs / L at 0.1{contradicted}"


def relatives(folder: Path) -> str:
    """P@L/2 of a protein's own map, and of the mean map of all its relatives."""
    one = pd.read_csv(folder / "relatives" / "relatives.csv").iloc[0]
    mean = pd.read_csv(folder / "relatives" / "relatives_mean.csv").iloc[-1]
    return f"{one['protein']}: {one['P@L/2']:.2f}, mean of {int(mean['relatives'])} {mean['P@L/2 mean']:.2f}"


def fingerprint(folder: Path) -> str:
    """How many strong pairs look like the store's typical pair."""
    row = pd.read_csv(folder / "fingerprints" / "fingerprints_summary.csv").iloc[0]
    return f"{round(row['contact-like'] * row['pairs'])} of {int(row['pairs'])} pairs"


ROWS: list[tuple[str, str, str, Number]] = [
    ("Jacobian, long-range P@L/2", "0.80", "STRUCTURES", precision("contacts")),
    ("contact head, long-range P@L/2", "0.87", "STRUCTURES", precision("contact_head")),
    (
        "inverse covariance, long-range P@L/2", "0.67", "STRUCTURES, ALIGNMENTS",
        precision("inverse_covariance", "linear_baselines/linear_baselines_summary.csv"),
    ),
    ("couplings, Spearman at 1 and 4 sigma", "0.33, 0.46", "ALIGNMENTS", spearman),
    ("parameters for all couplings", "261 billion", "", capacity),
    ("single segments, half recovered at f", "25 / 49 / 53 (n = 4,293)", "", half("single")),
    ("pairs 51 to 100 apart, half recovered at f", "22 flanking (n = 1,273)", "DATA or STRUCTURES", half("near")),
    ("pairs over 100 apart, half recovered at f", "41 / 78 / 81 (n = 304)", "DATA or STRUCTURES", half("far")),
    ("close pairs that jump by 0.5", "82% of 3,264", "", jumps("close")),
    ("pairs 51 to 100 apart that jump", "76%", "DATA or STRUCTURES", jumps("near")),
    ("pairs over 100 apart that jump", "64%", "DATA or STRUCTURES", jumps("far")),
    ("2B61A, 182 and 316, ESM-2 650M", "jumps from flank 43 to 44", "ESM-2 650M", named("2B61A", (43, 44))),
    ("1PVGA, 101 and 202, ESM-2 650M", "recovered at 65, not at 63", "ESM-2 650M", named("1PVGA", (63, 65))),
    ("KaiB, two sequences", "the fold-switched state for both", "KAIB", conformations),
    ("isoforms that should not fold", "RMSD 0.49 to 1.01 (one example)", "ISOFORMS", isoforms),
    ("control: shuffled sequences, false discovery rate", "not in the paper", "", discoveries),
    ("P@L/2 of one protein, and of its relatives' mean map", "not in the paper", "FAMILY", relatives),
    ("strong pairs like the typical one", "not in the paper", "", fingerprint),
]  # fmt: skip
"""Analysis, the paper's number, what it needs, and how ours is read."""


def table(folder: Path) -> str:
    """The table as Markdown."""
    lines = ["| analysis | Zhang et al. (2024) | here |", "|---|---|---|"]
    for analysis, paper, needs, number in ROWS:
        try:
            ours = number(folder)
        except (OSError, KeyError, IndexError):
            ours = f"not run: needs {needs}" if needs else "not run"
        lines.append(f"| {analysis} | {paper} | {ours} |")
    return "\n".join(lines)


def _whole(value: float) -> str:
    return "never" if pd.isna(value) else f"{value:g}"


def _nothing() -> str:
    raise KeyError("no row")


def main() -> None:
    """The entry point."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path, help="the OUT of reproduce_paper.sh")
    folder = parser.parse_args().folder
    text = table(folder)
    (folder / "reproduction.md").write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
