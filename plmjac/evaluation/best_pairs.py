"""Export the best pairs of every contact map: a ranked table, and files for other programs.

The table lists the pairs of all proteins with residue numbers, letters, scores, ranks and, with a structure, distances.
Each protein gets files in CASP RR format and EVcouplings' CSV, and with a structure scripts for PyMOL and ChimeraX.
Stores of null sequences given together with a store provide the false discovery rates of its pairs
(false_discovery.py); their own pairs are not listed.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np
import pandas as pd
from pydantic import PositiveFloat, PositiveInt, field_validator

from plmjac.config import Keys
from plmjac.evaluation.base import EvaluationError, Inputs, Outcome, Row, Store
from plmjac.evaluation.exports import FORMATS, SCRIPTS, BestPair, BestPairs
from plmjac.evaluation.false_discovery import apart, null_maps, rate_map
from plmjac.evaluation.pictures import picture
from plmjac.evaluation.scoring import Unscored, stored_proteins
from plmjac.evaluation.structures import Labelled, touching
from plmjac.evaluation.tables import lines_of, matched, not_scored, number
from plmjac.metrics import best_pairs
from plmjac.plots import Figure
from plmjac.readouts import maps
from plmjac.records import Atom
from plmjac.store import CorruptStoreError, StoredProtein
from plmjac.workplan import key_of

Format = Literal["rr", "evcouplings", "pymol", "chimerax", "picture"]


class Settings(Keys):
    """The keys of conf/evaluation/best_pairs.yaml."""

    name: Literal["best_pairs"]
    map: str | None
    ids: tuple[str, ...] | None
    pairs: PositiveFloat
    min_separation: PositiveInt
    formats: tuple[Format, ...]
    atom: Atom
    cutoff: PositiveFloat

    @field_validator("ids", "formats", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value


COLUMNS = [
    "protein", "store", "model", "structure", "match", "map", "rank", "i", "j", "number_i", "number_j", "residue_i",
    "residue_j", "score", "fdr", "distance", "contact", "reason",
]  # fmt: skip
"""`i` and `j` count residues of the sequence from 0, `rank` counts from 1; `number_i` and `number_j` are the author's
residue numbers, if known. `fdr` is the false discovery rate, NaN without a null map. `distance` is in angstrom between
the atoms of the contact definition; `contact` is 1 or 0, NaN without a structure."""


def evaluate(inputs: Inputs, settings: Settings) -> Outcome:
    """Rank the pairs of every map of the stores."""
    plain, nulls = apart(inputs.of_kind("jacobian"))
    stores, nulls = (plain, nulls) if plain else (nulls, [])
    rows: list[Row] = []
    files: dict[str, bytes] = {}
    pictures: dict[str, Callable[[], Figure]] = {}
    wanted = set(settings.ids or ())
    for store in stores:
        null = [each for each in nulls if each.model == store.model]
        for stored in stored_proteins(store):
            if wanted and stored.id not in wanted:
                continue
            try:
                for best, listed in _protein(store, stored, null, inputs, settings):
                    rows += listed
                    place = store.name if len(stores) > 1 else ""
                    files |= _files(best, place, settings)
                    if "picture" in settings.formats:
                        assert isinstance(stored, StoredProtein)
                        pictures[_name(best, place, ".")] = partial(_picture, stored, best.map, inputs, settings)
            except CorruptStoreError as error:
                rows.append({"protein": stored.id, "store": store.name, "model": store.model, "reason": str(error)})
    table = pd.DataFrame(rows, columns=COLUMNS)
    if unknown := sorted(wanted - set(table["protein"])):
        raise EvaluationError(f"evaluation.ids: no protein {', '.join(unknown)} in the stores")
    found = table[table["score"].notna()]
    text = _printed(table, found, len(files), settings)
    return Outcome({"best_pairs": table}, {}, text, found["protein"].nunique(), files=files, pictures=pictures)


def _protein(
    store: Store, stored: StoredProtein | Unscored, nulls: Sequence[Store], inputs: Inputs, settings: Settings
) -> Iterator[tuple[BestPairs, list[Row]]]:
    """The best pairs of each map of a protein, and their table rows. Raises CorruptStoreError for unreadable maps."""
    if isinstance(stored, Unscored):
        raise CorruptStoreError(stored.reason)
    names = [name for name in ([settings.map] if settings.map else maps()) if name in stored.names]
    if not names:
        kept = settings.map or "contact map"
        raise CorruptStoreError(
            f"the store keeps no {kept} of it; run predict with keep=[{settings.map or 'contacts'}]"
        )
    found = inputs.structures_if_any.find(stored)
    labels = (found.match.structure, str(found.match)) if isinstance(found, Labelled) else ("", "")
    xyz = found.positions(settings.atom) if isinstance(found, Labelled) else None
    author = getattr(stored, "residue_numbers", None) or (
        found.residue_numbers if isinstance(found, Labelled) else None
    )
    for name in names:
        scores = stored.array(name)
        first, second = best_pairs(scores, max(1, round(settings.pairs * len(stored))), settings.min_separation)
        touch = touching(found, (first, second), settings.atom, settings.cutoff)
        rates = rate_map(scores, null_maps(stored, nulls, name), settings.min_separation)[first, second]
        distance = np.full(len(first), np.nan) if xyz is None else np.linalg.norm(xyz[first] - xyz[second], axis=1)
        listed = [
            BestPair(int(i), int(j), rank, float(scores[i, j]), None if np.isnan(hit) else bool(hit), float(rate))
            for rank, (i, j, hit, rate) in enumerate(zip(first, second, touch, rates, strict=True), start=1)
        ]
        file, chain = _origin(found)
        drawn = found.residue_numbers if isinstance(found, Labelled) else None
        best = BestPairs(stored.id, name, store.model, stored.sequence, listed, drawn, chain, file)
        facts = {
            "protein": stored.id, "store": store.name, "model": store.model, "structure": labels[0] or None,
            "match": labels[1] or None, "map": name, "reason": "",
        }  # fmt: skip
        yield best, [
            {
                **facts, "rank": pair.rank, "i": pair.i, "j": pair.j, "score": pair.score, "fdr": pair.fdr,
                "distance": far,
                "number_i": author[pair.i] if author else None, "number_j": author[pair.j] if author else None,
                "residue_i": stored.sequence[pair.i], "residue_j": stored.sequence[pair.j], "contact": hit,
            }
            for pair, far, hit in zip(listed, distance, touch, strict=True)
        ]  # fmt: skip


def _origin(found: Labelled | str) -> tuple[str, str]:
    """File and chain of a structure whose source is "FILE, chain X"; empty for another source."""
    file, mark, chain = found.source.rpartition(", chain ") if isinstance(found, Labelled) else ("", "", "")
    return (file, chain) if mark else ("", "")


def _picture(stored: StoredProtein, name: str, inputs: Inputs, settings: Settings) -> Figure:
    """Figure of the map with its best pairs and, if a structure is known, its contacts; read when it is drawn."""
    found = inputs.structures_if_any.find(stored)
    return picture(
        stored, stored.array(name), found if isinstance(found, Labelled) else None, pairs=settings.pairs,
        atom=settings.atom, cutoff=settings.cutoff,
    )  # fmt: skip


def _name(best: BestPairs, store: str, between: str) -> str:
    """Name of the files of a map, without suffix: protein and map, preceded by the store if there are several."""
    return between.join(filter(None, [key_of(store) if store else "", f"{key_of(best.protein)}.{best.map}"]))


def _files(best: BestPairs, store: str, settings: Settings) -> dict[str, bytes]:
    """Files of one map by name; scripts only if the residue numbers of the structure are known."""
    place = f"pairs/{_name(best, store, '/')}"
    chosen = [each for each in settings.formats if each in FORMATS and (each not in SCRIPTS or best.numbers)]
    return {f"{place}.{FORMATS[each][0]}": FORMATS[each][1](best).encode() for each in chosen}


def _printed(table: pd.DataFrame, found: pd.DataFrame, files: int, settings: Settings) -> str:
    """Printed text: the best pairs of the first proteins, and the proteins that could not be scored."""
    lines = [
        f"the best {settings.pairs:g} x L pairs |i-j| >= {settings.min_separation} of each map: table best_pairs, "
        f"{files} files in pairs/",
        "i, j: residues counted from 0; residues: letters with the author's numbers; distance in angstrom",
        "",
    ]
    shown = [
        {
            **{key: row[key] for key in ("protein", "map")},
            **{key: int(row[key]) for key in ("rank", "i", "j")},
            "residues": f"{row['residue_i']}{row['number_i'] or ''} {row['residue_j']}{row['number_j'] or ''}",
            "score": number(row["score"]),
            **({"fdr": number(row["fdr"])} if found["fdr"].notna().any() else {}),
            "distance": number(row["distance"], ".1f"),
        }
        for row in found[found["rank"] <= 3].head(15).to_dict("records")
    ]
    return "\n".join([*lines, *lines_of(shown), *matched(table), *not_scored(table, "score")])
