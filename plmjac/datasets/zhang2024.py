"""The chains of Zhang et al. (PNAS 2024, e2406285121), from the files in the authors' repository.

2,170 chains, of which the paper used the 1,431 of 200 to 600 residues with few missing. The files state no licence,
so they are not shipped but read from a folder or fetched, at a pinned revision. The authors released no structures or
contact maps; so these proteins come without contacts.
"""

import json
from collections.abc import Iterator
from pathlib import Path

from plmjac.alphabet import clean
from plmjac.datasets.base import InputError, Record, as_list
from plmjac.files import NotFound, Unreachable, cache_folder, download, nearest, shorten
from plmjac.records import Protein, Rejected

REPOSITORY = (
    "https://raw.githubusercontent.com/zzhangzzhang/pLMs-interpretability/9f0f6f52333dd92f79377ce39dbb84d0f86583b9/data"
)
SEQUENCES, SELECTED = "full_seq_dict.json", "selected_protein.json"
_SHA256 = {
    SEQUENCES: "c95c0c34f967605ea2d5cb921c0a67641006dde061c7a098d05d6515db95509c",
    SELECTED: "d74b1060f8d56c555ae50bd810271cf6e1c8329da8a9c05276dd27db1cb11064",
}


class Zhang2024Dataset:
    """The paper's chains under their names there (`2GWGA`: entry and chain), in the order of the authors' files.

    Parameters
    ----------
    path: a folder with full_seq_dict.json and selected_protein.json; without it they are fetched.
    selected: the 1,431 chains of the paper; False for all 2,170.
    ids: only these chains, `2GWGA` or `2GWG_A`.
    cache: folder for the fetched files; default PLMJAC_CACHE/zhang2024 or ~/.cache/plmjac/zhang2024.
    url: where they are fetched from; at the default address their sha256 is checked.

    Raises InputError where the files are missing or not what they should be, or an id is not among them.
    """

    def __init__(
        self,
        path: str | None = None,
        selected: bool = True,
        ids: str | list[str] | None = None,
        cache: str | None = None,
        url: str = REPOSITORY,
    ) -> None:
        self._folder = Path(path).expanduser() if path else None
        self._ids = [name.replace("_", "") for name in as_list(ids)]
        self._selected, self._cache, self._url = selected, cache, url.rstrip("/")
        if self._folder is not None and not (self._folder / SEQUENCES).exists():
            raise InputError(f"{self._folder} has no {SEQUENCES}; give the data folder of the authors' repository, "
                             "or leave dataset.path out to fetch it")  # fmt: skip

    def __iter__(self) -> Iterator[Record]:
        sequences, source = self._load(SEQUENCES)
        if not isinstance(sequences, dict):
            raise InputError(f"{source} is not the authors' dictionary of chain and sequence")
        names = self._selection(sequences, source) if self._selected else list(sequences)
        if self._ids:
            missing = sorted(set(self._ids) - set(names))
            if missing:
                which = "the 1,431 selected chains (dataset.selected=false for all)" if self._selected else str(source)
                raise InputError(f"dataset.ids: {shorten(missing)} not in {which}; {nearest(missing[0], names, 8)}")
            names = [name for name in names if name in set(self._ids)]
        for number, name in enumerate(names, start=1):
            yield _protein(name, sequences[name], f"{source}, record {number}")

    def _selection(self, sequences: dict[str, object], source: Path) -> list[str]:
        names, path = self._load(SELECTED)
        if not isinstance(names, list) or not set(map(str, names)) <= set(sequences):
            raise InputError(f"{path} names chains that {source} does not have; are they of one revision?")
        return names

    def _load(self, name: str) -> tuple[object, Path]:
        path = self._folder / name if self._folder is not None else self._download(name)
        try:
            return json.loads(path.read_text(encoding="utf-8")), path
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror}") from None
        except ValueError as error:
            raise InputError(f"{path} is not JSON ({error}); take it again from the authors' repository") from None

    def _download(self, name: str) -> Path:
        target = Path(self._cache or cache_folder("zhang2024")).expanduser() / name
        sha256 = _SHA256[name] if self._url == REPOSITORY else None
        try:
            return download(f"{self._url}/{name}", target, sha256=sha256)
        except (Unreachable, NotFound) as error:
            raise InputError(f"{error} Otherwise give the folder with {SEQUENCES}: dataset.path=FOLDER") from None


def _protein(name: str, text: object, source: str) -> Protein | Rejected:
    try:
        sequence, note = clean(text if isinstance(text, str) else "")
    except ValueError as error:
        return Rejected(name, f"{source}: {error}", source)
    return Protein(name, sequence, source, note)
