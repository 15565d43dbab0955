"""Printed tables: intervals in one form, rows as lines, and what was not scored, by reason."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

MAX_LISTED = 30
"""More proteins than this are not listed one by one on the screen; the tables in the files have them all."""


def with_interval(mean: Any, low: Any, high: Any, form: str = ".3f") -> str:
    """`0.512 [0.401, 0.620]`, `0.512 [-]` without an interval (fewer than 6 proteins), "-" without a mean."""
    if pd.isna(mean):
        return "-"
    return f"{mean:{form}} [-]" if pd.isna(low) or pd.isna(high) else f"{mean:{form}} [{low:{form}}, {high:{form}}]"


def number(value: Any, form: str = ".3f") -> str:
    """A number, "-" for NaN."""
    return "-" if pd.isna(value) else f"{value:{form}}"


def lines_of(rows: Sequence[Mapping[Any, Any]]) -> list[str]:
    """Rows as lines under their columns; cells are printed as they are, and missing ones are empty."""
    return pd.DataFrame(list(rows)).fillna("").to_string(index=False).splitlines() if rows else []


def means_by(means: pd.DataFrame, name: str, measures: Sequence[str]) -> list[str]:
    """One line for each value of the column `name` that has any: n, and each measure with its interval."""
    lines: dict[str, dict[str, Any]] = {}
    for row in means[means["measure"].isin(measures) & (means["n"] > 0)].to_dict("records"):
        line = lines.setdefault(row[name], {name: row[name], "n": row["n"]})
        shown = (
            number(row["mean"]) if row["measure"] == "chance" else with_interval(row["mean"], row["low"], row["high"])
        )
        line[row["measure"]] = shown
    return lines_of(list(lines.values()))


def not_scored(table: pd.DataFrame, measure: str) -> list[str]:
    """One line a reason: the proteins without a value of the measure, the first five by name."""
    found: dict[str, list[str]] = {}
    for row in table[table[measure].isna()].to_dict("records"):
        names = found.setdefault(str(row["reason"]), [])
        if row["protein"] not in names:
            names.append(row["protein"])
    return [
        f"not scored: {', '.join(names[:5])}{f' and {len(names) - 5} more' if len(names) > 5 else ''}: {reason}"
        for reason, names in found.items()
    ]


def matched(table: pd.DataFrame) -> list[str]:
    """Lines on structures not matched by an id with the same sequence; empty if there are none."""
    known = table.dropna(subset="match").drop_duplicates(["protein", "structure"])
    found: dict[str, list[str]] = {}
    for row in known[known["match"] != "id"].to_dict("records"):
        kind, _, identity = row["match"].partition(" ")
        found.setdefault(kind, []).append(f"{row['protein']} by {row['structure']}{identity and f' ({identity})'}")
    words = {"id": "id, aligned", "sequence": "identical sequence", "alignment": "alignment"}
    return [
        f"structures found by {words[kind]}: {', '.join(names[:5])}"
        + (f" and {len(names) - 5} more" if len(names) > 5 else "")
        for kind, names in found.items()
    ]
