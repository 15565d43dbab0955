"""benchmark.py's numbers as lines and Markdown tables, and their place in a document."""

from pathlib import Path
from typing import Any

BEGIN, END = "<!-- benchmark: begin -->", "<!-- benchmark: end -->"


def case_line(summary: dict[str, Any]) -> str:
    """One line per case while it runs."""
    rows = summary["rows"]
    parts = [f"{kind} {rows[kind]['seconds']:.1f} s ({rows[kind]['ratio']:.2f}x)" for kind in rows]
    return f"{summary['size']} L={summary['length']}: " + ", ".join(parts)


def markdown(found: dict[str, Any]) -> str:
    """Everything measured, as tables."""
    machine = found["machine"]
    lines = [
        f"Measured {machine['when']} on {machine['device']}, {machine['threads']} threads, "
        f"{machine['precision']}, {machine['max_tokens']} tokens a forward; PyTorch {machine['torch']}, transformers "
        f"{machine['transformers']}, Python {machine['python']}. Matrix products alone: "
        f"{found['matrix_rate'] / 1e9:,.0f} GFLOP/s.",
        "",
        "| model | L | | s per Jacobian (range) | x authors' loop (range) | tokens/s | of matrix rate | map error "
        "| first use, s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for case in found["cases"]:
        summary = case["summary"]
        for kind, row in summary["rows"].items():
            low, high = row["seconds_range"]
            few, many = row["ratio_range"]
            lines.append(
                f"| {summary['size']} | {summary['length']} | {kind} "
                f"| {row['seconds']:.1f} ({low:.1f} to {high:.1f}) | "
                f"{row['ratio']:.2f} ({few:.2f} to {many:.2f}) | {row['tokens_per_s']:,.0f} | "
                f"{row['share_of_matrix_rate']:.0%} | {row['map_error']:.0e} | {row['start_up_s']:.1f} |"
            )
    lines += [
        f"\n{case['summary']['size']}, L = {case['summary']['length']}: {kind} left out, {reason}"
        for case in found["cases"]
        for kind, reason in case["summary"]["left_out"].items()
    ]
    lines += ["", "Where our path's time goes:", "", "| model | L | share of time by operator |", "|---|---|---|"]
    for case in found["cases"]:
        shares = ", ".join(f"{name} {share:.0%}" for name, share in case["profile"].items() if share >= 0.01)
        lines.append(f"| {case['size']} | {case['length']} | {shares} |")
    if "precision" in found:
        lines += _precision(found["precision"])
        lines += ["", "Error of float32 maps against float64, as a share of the largest entry:", ""]
        lines += ["| model | way | largest error | root mean square |", "|---|---|---|---|"]
        lines += [
            f"| {row['model']} | {row['way']} | {row['error']:.1e} | {row['rms']:.1e} |" for row in found["rounding"]
        ]
    return "\n".join(lines) + "\n"


def _precision(rows: list[dict[str, Any]]) -> list[str]:
    lines = [
        "", "Half precision against fp32 (contact maps, |i - j| >= 6):", "",
        "| model | L | precision | Pearson | top-L/2 overlap | P@L in fp32 | P@L |", "|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for row in rows:
        scored = [f"{value:.3f}" if value is not None else "" for value in (row["p_at_l_fp32"], row["p_at_l"])]
        lines.append(
            f"| {row['model']} | {row['length']} | {row['precision']} | {row['pearson']:.7f} | {row['overlap']:.3f} | "
            f"{scored[0]} | {scored[1]} |"
        )
    return lines


def replace_section(path: Path, text: str) -> None:
    """Put the tables between the marks of a document. Raises SystemExit if it has none."""
    document = path.read_text() if path.exists() else ""
    if document.count(BEGIN) != 1 or document.count(END) != 1:
        raise SystemExit(f"benchmark: {path} needs the lines {BEGIN} and {END}, between which the tables go")
    before, rest = document.split(BEGIN)
    path.write_text(f"{before}{BEGIN}\n{text}{END}{rest.split(END)[1]}")
