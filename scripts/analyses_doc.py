"""Write docs/analyses.md and docs/kaib.png from the outputs of `make reproduce-tiny`.

    data=FOLDER  # of Ollikainen and Kortemme (docs/tiny.md)
    { grep -A 1 2O9S_A $data/queries.fasta; cat $data/alignments/PF00018.fasta; } > demo/SH3.fasta
    KAIB=STRUCTURES FAMILY=demo/SH3.fasta FAMILY_STRUCTURE=$data/structures/2O9S_A.pdb make reproduce-tiny
    python scripts/analyses_doc.py demo/paper

KAIB names the folder with the two structures and the alignment of KaiB, FAMILY an alignment whose first row is the
protein of FAMILY_STRUCTURE; without them the page has no such tables.
"""

import argparse
import shutil
import textwrap
from pathlib import Path

import pandas as pd

DOCS = Path(__file__).resolve().parents[1] / "docs"


def paragraph(text: str) -> str:
    """Text in lines of the width of these pages."""
    return textwrap.fill(" ".join(text.split()), 118)


def markdown(rows: pd.DataFrame) -> list[str]:
    """A table with its columns as they are called."""
    names = [str(name) for name in rows.columns]
    lines = [f"| {' | '.join(names)} |", f"|{'---|' * len(names)}"]
    return [*lines, *(f"| {' | '.join(str(value) for value in row)} |" for row in rows.itertuples(index=False))]


def kaib(folder: Path) -> list[str]:
    """The classes of contacts among the top L pairs of every map."""
    table = pd.read_csv(folder / "conformations.csv")
    rows = []
    for _, found in table[table["top"] == "L"].groupby(["store", "protein", "map", "part"], sort=False, dropna=False):
        of = {row["class"]: row for row in found.to_dict("records")}
        both, a, b = of["both"], of["only A"], of["only B"]
        is_baseline = pd.notna(both["sequences"])
        rows.append(
            {
                "map": both["map"] if is_baseline else f"{both['model']}, {both['map']}",
                "of": both["part"] if is_baseline else both["protein"],
                "sequences": f"{both['sequences']:,.0f}" if is_baseline else "",
                "precision": f"{both['precision'] + a['precision'] + b['precision']:.2f}",
                "both": f"{both['recall']:.2f}",
                "2QKE alone": f"{a['recall']:.2f}",
                "5JYT alone": f"{b['recall']:.2f}",
                "null": f"{a['null low']:.2f} to {a['null high']:.2f}",
                "p": f"{a['p']:.2g}",
            }
        )
    counts = table[table["top"] == "L"].drop_duplicates("class").set_index("class")["contacts"]
    shutil.copyfile(folder / "conformations.png", DOCS / "kaib.png")
    return [
        "## KaiB: two conformations",
        "",
        paragraph(
            "2QKE chain E is the ground state, 5JYT chain A the fold-switched one, whose sequence has five "
            "substitutions "
            "that keep it there. Contacts (C-beta < 8 A, |i-j| >= 6): "
            f"{counts['both']} of both, {counts['only A']} of 2QKE alone, {counts['only B']} of 5JYT alone. "
            "Columns are the shares of these among the best L = 91 pairs; null: 95 % of the share of 2QKE's own if the "
            "found contacts of one structure alone were dealt out at random; p that the map prefers neither. "
            "Alignment: "
            "8,159 sequences (AF_Cluster, MIT licence), clusters by k-means."
        ),
        "",
        *markdown(pd.DataFrame(rows)),
        "",
        "![KaiB: the best pairs of each map in the colours of the structures that have them](kaib.png)",
        "",
    ]


def false_discovery(folder: Path) -> list[str]:
    """Rates of the demo's pairs by shuffled sequences."""
    rates = pd.read_csv(folder / "false_discovery_rates.csv")
    proteins = pd.read_csv(folder / "false_discovery_proteins.csv")
    shown = pd.DataFrame(
        {
            "false discovery rate": rates["rate"].map("{:g}".format),
            "pairs / L": rates["pairs / L"].map("{:.2f}".format),
            "of them no contact": rates["no contact"].map("{:.0%}".format).replace("nan%", ""),
        }
    )
    median = proteins["median fdr of L/2"].map("{:.2f}".format)
    by_protein = pd.DataFrame({"domain": proteins["protein"], "median rate of the best L/2": median})
    return [
        "## False discovery rates by shuffled sequences",
        "",
        paragraph(
            f"The demo's domains against one shuffle of each under `{proteins['model'].iloc[0]}`. The rate says "
            "how many "
            "of the pairs a shuffled sequence would give as well; a pair that is real need not be a contact, so "
            "that more "
            "than that do not touch."
        ),
        "",
        *markdown(shown),
        "",
        *markdown(by_protein),
        "",
    ]


def fingerprints(folder: Path) -> list[str]:
    """The share of strong pairs that look like the typical one."""
    row = pd.read_csv(folder / "fingerprints_summary.csv").iloc[0]
    cosines = {name.removeprefix("cosine, "): f"{row[name]:.2f}" for name in row.index if name.startswith("cosine, ")}
    alike = round(row["contact-like"] * row["pairs"])
    others = f", of the others {row['of the others']:.0%}" if alike < row["pairs"] else ""
    return [
        "## Fingerprints",
        "",
        paragraph(
            f"The best 1.5 L pairs of each domain under `{row['model']}`: {alike} of {row['pairs']:.0f} are "
            f"contact-like (cosine of their 20 x 20 couplings with the mean block of the main cluster from 0.07 on); "
            f"{row['precision of these']:.0%} of these touch{others}. Mean cosines:"
        ),
        "",
        *markdown(pd.DataFrame([cosines])),
        "",
    ]


def relatives(folder: Path) -> list[str]:
    """Precision of a protein's relatives against identity to it, and of their mean map."""
    table = pd.read_csv(folder / "relatives.csv")
    table = table[table["P@L"].notna()]
    own, others = table.iloc[0], table.iloc[1:]
    bins = (10 * others["identity"] + 1e-9).astype(int) / 10  # as the evaluation prints them
    grouped = others.assign(identity=bins.map(lambda low: f"{low:.1f} to {low + 0.1:.1f}")).groupby("identity")
    measures = ["P@L", "P@L/2", "P@L/5", "r"]
    rows = grouped[measures].mean().assign(relatives=grouped.size()).reset_index()
    alone = pd.DataFrame([{"identity": f"{own['protein']} itself", "relatives": 1, **own[measures]}])
    rows = pd.concat([rows, alone])[["identity", "relatives", *measures]]
    means = pd.read_csv(folder / "relatives_mean.csv")
    ranges = means[["P@L/2 low", "P@L/2 high"]].apply(
        lambda row: "" if row.isna().any() else f"{row.iloc[0]:.2f} to {row.iloc[1]:.2f}", axis=1
    )
    return [
        "## Relatives of one protein",
        "",
        paragraph(
            f"Relatives of {own['protein']} (L = {own['length']:.0f}) drawn from its family's alignment by identity to "
            f"it, their maps under `{own['model']}` carried to its residues and judged by its structure's contacts "
            f"(|i-j| >= 6; chance {own['chance']:.2f}). r: correlation of a relative's map with the protein's own. "
            "Then the mean map of k of them, drawn at random, with the range of 95 % of the draws."
        ),
        "",
        *markdown(rows.assign(**{name: rows[name].map("{:.2f}".format) for name in measures})),
        "",
        *markdown(
            pd.DataFrame(
                {"mean map of": means["relatives"], "P@L/2": means["P@L/2 mean"].map("{:.2f}".format), "range": ranges}
            )
        ),
        "",
    ]


def document(folder: Path) -> str:
    """The page; what was not run is left out."""
    lines = [
        "# Analyses",
        "",
        paragraph(
            "Written by `python scripts/analyses_doc.py demo/paper` after `make reproduce-tiny` with KAIB, FAMILY and "
            "FAMILY_STRUCTURE; do not edit. All numbers of a language model here are of the bundled `tiny`, which "
            "knows a few families and no more: they show that the analyses run, and what they look like, not what "
            "ESM-2 knows. Baselines (inverse covariance, MRF) need no model."
        ),
        "",
        "## The paper",
        "",
        (folder / "reproduction.md").read_text(encoding="utf-8").strip(),
        "",
        paragraph(
            "Here windows are smaller than the paper's (12 residues; close pairs of 6), the domains short, and "
            "contacts those of five demo domains, on three of which the contact head was fitted. BOS and EOS are "
            "visible, where nearly every single segment is recovered with nothing else shown (docs/recovery.md)."
        ),
        "",
    ]
    for name, section in (
        ("conformations", kaib),
        ("false_discovery", false_discovery),
        ("fingerprints", fingerprints),
        ("relatives", relatives),
    ):
        if (folder / name).is_dir():
            lines += section(folder / name)
    return "\n".join(lines)


def main() -> None:
    """The entry point."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path, help="the OUT of reproduce_paper.sh")
    text = document(parser.parse_args().folder)
    (DOCS / "analyses.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
