"""The published ESM-2 checkpoints: repositories, expected hashes, and the download.

From Hugging Face only, pinned by revision and sha256; the small config and index files are pinned by revision alone.
fair-esm's own download host is not used (its files are pickles without published hashes), but its files load from a
local path. The 15B model is not downloaded, because this project knows no hash of it.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from plmjac.models.architecture import Architecture
from plmjac.models.checkpoints import check_sha256

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Published:
    """A published ESM-2 on Hugging Face; `weights` maps each file to its sha256, `also` are other files it needs."""

    architecture: Architecture
    repository: str
    revision: str | None = None
    weights: Mapping[str, str] = field(default_factory=dict)
    also: tuple[str, ...] = ("config.json",)

    @property
    def main_file(self) -> str:
        """The file to open after the download: the weights, or the index of their shards."""
        return next(iter(self.weights)) if len(self.weights) == 1 else self.also[-1]


# Revisions and hashes as recorded in public repositories; those of 8M and 650M agree in several independent ones. This
# project has not seen the files themselves. A wrong hash would refuse the right file, never accept another one.
PUBLISHED: dict[str, Published] = {
    "esm2_8m": Published(
        Architecture(6, 320, 20),
        "facebook/esm2_t6_8M_UR50D",
        "c731040fcd8d73dceaa04b0a8e6329b345b0f5df",
        {"model.safetensors": "24c5fa474c48f3b754b86efe752d5f189d2bcd88190fa2270fc92b2ef3034189"},
    ),
    "esm2_35m": Published(
        Architecture(12, 480, 20),
        "facebook/esm2_t12_35M_UR50D",
        "6fbf070e65b0b7291e7bbcd451118c216cff79d8",
        {"model.safetensors": "e35647818e0e064351d4531ed480d225a002567b4b2b93ad3a9246d753150fc0"},
    ),
    "esm2_150m": Published(
        Architecture(30, 640, 20),
        "facebook/esm2_t30_150M_UR50D",
        "a695f6045e2e32885fa60af20c13cb35398ce30c",
        {"model.safetensors": "c3f1da8aea53bddd32c246c86168c23b9fd72341fb9db9a94436f855f5053566"},
    ),
    "esm2_650m": Published(
        Architecture(33, 1280, 20),
        "facebook/esm2_t33_650M_UR50D",
        "08e4846e537177426273712802403f7ba8261b6c",
        {"model.safetensors": "a08adabb949fa67ad3c14b509d04fd60368b35007b0095e3358f81200c4f4db0"},
    ),
    "esm2_3b": Published(
        Architecture(36, 2560, 40),
        "facebook/esm2_t36_3B_UR50D",
        "476b639933c8baad5ad09a60ac1a87f987b656fc",
        {
            "pytorch_model-00001-of-00002.bin": "0f971f11c449d21422aa982b791619c10351972992c735f4c3cd43fe09790412",
            "pytorch_model-00002-of-00002.bin": "7560b46fc383c691fb74b915b7d4bcef40d3df181447f16ba4b298845e308d0c",
        },
        ("config.json", "pytorch_model.bin.index.json"),
    ),
    "esm2_15b": Published(Architecture(48, 5120, 40), "facebook/esm2_t48_15B_UR50D"),
}


def fetch(name: str) -> Path:
    """Download a published checkpoint to Hugging Face's cache, verify it, and return the file to open.

    Progress goes to stderr. Raises ValueError: without a network it names the file to download by hand, for a file with
    another hash it gives both hashes.
    """
    published = PUBLISHED[name]
    if published.revision is None:
        raise ValueError(
            f"no revision and hash of {name} are known to plmjac, so it is not downloaded: get {published.repository} "
            f"(or fair-esm's {published.repository.split('/')[1]}.pt) yourself and give model.checkpoint=PATH"
        )
    for filename in published.also:
        _fetch_file(published, filename)
    paths = {filename: _fetch_file(published, filename) for filename in published.weights}
    for filename, path in paths.items():
        check_sha256(path, (published.weights[filename],))
    return next(iter(paths.values())).with_name(published.main_file)


def _fetch_file(published: Published, filename: str) -> Path:
    try:
        import huggingface_hub  # noqa: PLC0415 - 0.5 s, and most weights are in the cache

        log.info("%s from %s@%s", filename, published.repository, published.revision)
        return Path(huggingface_hub.hf_hub_download(published.repository, filename, revision=published.revision))
    # Which HTTP library's errors come out depends on the version of the client; every one of them means "not here".
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0][:200].rstrip(".")
        raise ValueError(
            f"cannot get the weights ({type(error).__name__}: {reason}): download {filename} from "
            f"{published.repository}@{published.revision} and give model.checkpoint=PATH"
        ) from error
