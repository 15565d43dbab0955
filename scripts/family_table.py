"""The table of docs/families.md: Jacobian, contact head, attention, inverse covariance and MRF on protein families.

    python scripts/family_table.py FOLDER --doc docs/families.md [model=tiny] [threads=1]

Cuts each structure to the residues in its family's columns, runs predict on these domains and the evaluations
attention_heads and linear_baselines on the store. Words with `=` are passed on to predict. The folder holds
`alignments/<family>.fasta`, `structures/<structure>.pdb` and `queries.fasta` (records `<structure> <family>`, aligned
to the family). Stores are made anew each time; the maps of the baselines are kept (`--maps`), so that a second table,
of another model, takes a minute.

What it gives up: the flanks of a domain, which a model trained on alignments has not seen; the paper's models would get
the whole chain.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import gemmi
import pandas as pd
from safetensors import safe_open

import plmjac.models
from plmjac.coevolution import Query, read_queries

METHODS = {
    "contacts": "Jacobian",
    "contact_head": "contact head",
    "attention": "attention",
    "inverse_covariance": "inverse covariance",
    "mrf": "MRF",
}


def cut(structure: Path, query: str, target: Path) -> None:
    """Write the residues of the first chain that spell the query (gaps left out) as a PDB file of their own."""
    entry = gemmi.read_structure(str(structure))
    chain = entry[0][0]
    residues = [residue for residue in chain if gemmi.find_tabulated_residue(residue.name).is_amino_acid()]
    letters = "".join(gemmi.find_tabulated_residue(residue.name).one_letter_code.upper() for residue in residues)
    start = letters.find(query.replace("-", ""))
    if start < 0:
        raise SystemExit(f"family_table: {structure} does not hold the sequence of its row in queries.fasta")
    domain = gemmi.Structure()
    domain.name = structure.stem
    model, kept = gemmi.Model(1), gemmi.Chain(chain.name)
    for residue in residues[start : start + len(query.replace("-", ""))]:
        kept.add_residue(residue)
    model.add_chain(kept)
    domain.add_model(model)
    domain.write_pdb(str(target))


def run(module: str, *arguments: str) -> None:
    """A command of plmjac; its exit code is ours if it fails."""
    code = subprocess.run([sys.executable, "-m", f"plmjac.{module}", *arguments]).returncode
    if code:
        raise SystemExit(code)


def training_facts(model: str) -> dict[str, Any]:
    """Note on training in the header of the bundled model; empty for other models."""
    path = Path(plmjac.models.__file__).with_name(f"{model}.safetensors")
    if not path.exists():
        return {}
    with safe_open(path, "pt") as file:
        facts: dict[str, Any] = json.loads(file.metadata()["training"])
    return facts


def make(folder: Path, work: Path, maps: Path, labelled: list[str], overrides: list[str], heads: int) -> None:
    """Domains, stores and tables, all under `work`; `labelled` are the structures that heads are chosen on."""
    queries = read_queries(folder / "queries.fasta")
    domains, few = work / "domains", work / "labelled"
    for target in (domains, few):
        target.mkdir()
    for name, query in queries.items():
        for target in [domains, few] if name in labelled else [domains]:
            cut(folder / "structures" / f"{name}.pdb", query.row, target / f"{name}.pdb")
    dataset = f"dataset.path={domains}"
    run("predict", "+dataset=pdb", f"dataset.path={few}", f"store={work / 'few.zarr'}", "keep=[attention_heads]",
        "substitutions=none", *overrides)  # fmt: skip
    run("evaluate", "+evaluation=attention_heads", f"store={work / 'few.zarr'}", f"out={work}", "evaluation.range=all",
        f"evaluation.k={heads}", "evaluation.sweep=[1,2,3]")  # fmt: skip
    run("predict", "+dataset=pdb", dataset, f"store={work / 'all.zarr'}", "keep=[contacts,contact_head,attention]",
        f"heads={work / 'attention_heads.json'}", *overrides)  # fmt: skip
    run("evaluate", "+evaluation=linear_baselines", f"store={work / 'all.zarr'}", f"out={work}",
        f"evaluation.alignments={folder / 'alignments'}", f"evaluation.queries={folder / 'queries.fasta'}",
        "evaluation.methods=[inverse_covariance,mrf]", f"evaluation.maps={maps.absolute()}")  # fmt: skip


def table(rows: pd.DataFrame, means: pd.DataFrame, queries: dict[str, Query], labelled: list[str]) -> list[str]:
    """The Markdown table: P@L/2 of each family, then the means of all three measures."""
    rows, means = rows[rows["range"] == "all"], means[means["range"] == "all"]
    methods = [method for method in METHODS if (rows["method"] == method).any()]
    heads = ["family", "structure", "residues", "sequences", *(METHODS[method] for method in methods), "chance"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name in sorted(queries, key=lambda name: queries[name].alignment):
        here = {row["method"]: row for row in rows[rows["protein"] == name].to_dict("records")}
        if set(methods) - set(here):
            lines.append(f"| {queries[name].alignment} | {name} | not scored |" + " |" * (len(heads) - 3))
            continue
        first = here[methods[0]]
        mark = "*" if name in labelled else ""
        cells = [f"{here[method]['P@L/2']:.2f}" for method in methods]
        facts = [queries[name].alignment, name + mark, f"{first['length']:.0f}", f"{first['sequences']:,.0f}"]
        lines.append(f"| {' | '.join([*facts, *cells])} | {first['chance']:.2f} |")
    for measure in ("P@L/2", "P@L", "P@L/5"):
        found = means[means["measure"] == measure].set_index("method")
        cells = [f"**{float(found['mean'][method]):.2f}**" for method in methods]
        chance = means[means["measure"] == "chance"]["mean"].iloc[0]
        lines.append(f"| mean {measure} | | | | {' | '.join(cells)} | {chance:.2f} |")
    return lines


def page(work: Path, folder: Path, model: str, labelled: list[str], heads: int) -> str:
    """docs/families.md."""
    rows, means = (pd.read_parquet(work / f"linear_baselines{part}.parquet") for part in ("", "_summary"))
    differences = pd.read_parquet(work / "linear_baselines_differences.parquet")
    queries = read_queries(folder / "queries.fasta")
    wide = rows[rows["range"] == "all"].pivot(index="protein", columns="method", values="P@L/2")
    near = int((wide["contacts"] >= 0.9 * wide["inverse_covariance"]).sum())
    mrf = differences[(differences["range"] == "all") & (differences["first"] == "inverse_covariance")
                      & (differences["second"] == "mrf") & (differences["measure"] == "P@L/2")].iloc[0]  # fmt: skip
    seconds = rows.drop_duplicates(["protein", "method"]).groupby("method")["seconds"]
    trained = training_facts(model).get("families")
    seen = "" if trained is None else f"It was trained on {', '.join(trained) if trained else 'all of them'}.\n"
    medians, longest = seconds.median(), seconds.max()
    return f"""# {model} and the linear baselines on {len(wide)} families

Made by `python scripts/family_table.py FOLDER --doc docs/families.md model={model}`; do not edit. FOLDER is the
covariation data of Ollikainen and Kortemme (2013, MIT licence): Pfam alignments, at most 80 % identical, and a crystal
structure each. `{model}` sees the structure's sequence in the columns of the alignment, without the flanks before and
after. {seen}
P@L/2: the share of contacts (C-beta < 8 A) among the L/2 best pairs |i - j| >= 6, L residues in the columns; chance:
among all pairs. Inverse covariance and MRF: docs/method.md, at most 8,000 sequences. Attention: the mean of the {heads}
heads that did best on the families marked *, which are also those that the contact head was fitted on: for these two
methods only the other families are a test.

{chr(10).join(table(rows, means, queries, labelled))}

The Jacobian reaches 90 % of inverse covariance (P@L/2) on {near} of {len(wide)} families. MRF minus inverse covariance:
{-mrf["difference"]:+.3f} (95 % interval {-mrf["high"]:+.3f} to {-mrf["low"]:+.3f}; better on {mrf["worse"]}, worse on
{mrf["better"]}). Median seconds a family on one shared core: inverse covariance {medians["inverse_covariance"]:.1f},
MRF {medians["mrf"]:.0f} (the longest {longest["mrf"]:.0f}).
"""


def main() -> None:
    """Make the table, write it, print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder with alignments/, structures/ and queries.fasta")
    parser.add_argument("--doc", type=Path, default=Path("docs/families.md"), help="file to write")
    parser.add_argument("--maps", type=Path, default=Path("runs/linear_baselines"), help="folder of kept baseline maps")
    parser.add_argument("--heads", type=int, default=3, help="attention heads in the mean")
    parser.add_argument("overrides", nargs="*", help="for predict: model=..., threads=..., trainer=...")
    arguments = parser.parse_intermixed_args()
    model = next((word[6:] for word in arguments.overrides if word.startswith("model=")), "tiny")
    queries = read_queries(arguments.folder / "queries.fasta")
    by_family = sorted(queries, key=lambda name: queries[name].alignment)
    fitted = training_facts(model).get("contact_head_fitted_on", [])
    labelled = [name for name in by_family if queries[name].alignment in fitted] or by_family[::2]
    with TemporaryDirectory() as work:
        make(arguments.folder, Path(work), arguments.maps, labelled, arguments.overrides, arguments.heads)
        text = page(Path(work), arguments.folder, model, labelled, arguments.heads)
    arguments.doc.parent.mkdir(parents=True, exist_ok=True)
    arguments.doc.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
