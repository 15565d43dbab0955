"""What contact_precision prints: its tables as a screen's worth of lines.

Knows the columns of those tables and computes nothing; what does not fit on a screen is in the files.
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import pandas as pd

MAX_LISTED = 30
"""More proteins than this are not listed one by one on the screen; the table has them all."""


def mean_lines(means: pd.DataFrame, measures: Sequence[str]) -> list[str]:
    """One line a method: n, each measure with its interval, chance."""
    of = {(row["method"], row["measure"]): row for row in means.to_dict("records")}
    lines = [
        {
            "method": method,
            "n": of[method, measures[0]]["n"],
            **{name: _interval(of[method, name], "mean") for name in measures},
            "chance": f"{of[method, 'chance']['mean']:.3f}",
        }
        for method in means["method"].unique()
    ]
    return _text(lines) if any(line["n"] for line in lines) else ["nothing could be scored"]


def length_lines(binned: pd.DataFrame) -> list[str]:
    """P@L/2 of each method in each bin of lengths, where there is more than one."""
    if binned["lengths"].nunique() < 2:
        return []
    lines: dict[str, dict[str, str]] = {}
    for row in sorted(binned.to_dict("records"), key=lambda row: _start(row["lengths"])):
        line = lines.setdefault(row["method"], {"P@L/2 by length": row["method"]})
        line[row["lengths"]] = f"{row['mean']:.3f} (n={row['n']})"
    return ["", *_text(list(lines.values()))]


def _start(bin_name: str) -> int:
    """Where a bin begins; the inverse of contact_precision's `_bin`."""
    return 0 if bin_name.startswith("<") else int(bin_name.removeprefix(">=").split("-")[0])


def difference_lines(differences: pd.DataFrame) -> list[str]:
    """One line a pair of methods, by P@L/2."""
    lines = [
        {
            "first": row["first"], "second": row["second"], "n": row["n"],
            "difference of P@L/2": _interval(row, "difference"),
            "better": row["better"], "worse": row["worse"], "p": f"{row['p']:.4f}" if pd.notna(row["p"]) else "-",
        }
        for row in differences[differences["measure"] == "P@L/2"].to_dict("records")
    ]  # fmt: skip
    heading = "first minus second on the proteins of both; p: paired bootstrap, two-sided"
    return ["", heading, *_text(lines)] if lines else []


def protein_lines(shown: pd.DataFrame) -> list[str]:
    """P@L/2 of each protein by each method, where they fit on a screen."""
    lines: dict[str, dict[str, str]] = {}
    for row in shown.to_dict("records"):
        line = lines.setdefault(row["protein"], {"P@L/2 of": row["protein"], "length": f"{row['length']:.0f}"})
        line[row["method"]] = f"{row['P@L/2']:.3f}"
        line["chance"] = f"{row['chance']:.3f}"
    return ["", *_text(list(lines.values()))] if len(lines) <= MAX_LISTED else []


def missing_lines(table: pd.DataFrame, chosen: str) -> list[str]:
    """What was not scored in the chosen range, by reason."""
    here = (table["range"] == chosen) | table["range"].isna()
    proteins: dict[str, list[str]] = {}
    for row in table[here & table["P@L"].isna()].to_dict("records"):
        listed = proteins.setdefault(row["reason"], [])
        listed += [] if row["protein"] in listed else [row["protein"]]
    lines = [
        f"not scored: {', '.join(names[:5])}{f' and {len(names) - 5} more' if len(names) > 5 else ''}: {reason}"
        for reason, names in proteins.items()
    ]
    return ["", *lines] if lines else []


def _interval(row: Mapping[Hashable, Any], name: str) -> str:
    """Without its interval where there is none, of a single protein."""
    return f"{row[name]:.3f}" + (f" [{row['low']:.3f}, {row['high']:.3f}]" if pd.notna(row["low"]) else "")


def _text(rows: list[dict[str, Any]]) -> list[str]:
    return pd.DataFrame(rows).fillna("").to_string(index=False).splitlines() if rows else []
