"""Reads ESM-2 weights from a local file without running any code that is in it.

Two formats, recognised by their first bytes and never by name: safetensors (Hugging Face, one file or a folder with
shards) and torch's zip or pickle (fair-esm's `.pt`, Hugging Face's `.bin`), the latter with `weights_only=True` and
`argparse.Namespace` as the only additional class. Tensors stay memory-mapped until a model copies them, so reading the
architecture of a large file takes a few kB. Not supported: TorchScript, TensorFlow, GGUF.
"""

import argparse
import functools
import hashlib
import json
import pickle
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from plmjac.models import layouts
from plmjac.models.architecture import Architecture

REGRESSION_SUFFIX = "-contact-regression.pt"
_FOLDER_ORDER = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)


@dataclass(frozen=True)
class Checkpoint:
    """An ESM-2 on disk, checked: its architecture, and memory-mapped tensors under fair-esm's names.

    `token_dropout` is that of the model's training, by the file. `files` are the weights without the contact regression
    that fair-esm keeps in a file of its own.
    """

    files: tuple[Path, ...]
    architecture: Architecture
    token_dropout: bool
    tensors: Mapping[str, Tensor]

    def sha256(self) -> str:
        """Hash of the weights file, or of the list of hashes of its shards; reads every byte."""
        return _sha256_of_files(self.files)


def open_checkpoint(path: str | Path) -> Checkpoint:
    """Open a fair-esm `.pt`, a Hugging Face weights file, or a folder that holds one.

    Raises ValueError that says what is wrong with the file, or what else it is.
    """
    main = _find_weights(Path(path))
    where = str(main)
    if main.name.endswith(".index.json"):
        files = _shards(main)
        contents = [_read_file(file) for file in files]
        content = {name: value for shard in contents for name, value in shard[0].items()}
        metadata = {key: value for shard in contents for key, value in shard[1].items()}
    else:
        files = (main,)
        content, metadata = _read_file(main)
    if isinstance(content.get("model"), Mapping):
        architecture, token_dropout = layouts.architecture_of_fair_esm(content, where)
        merged = {**content["model"], **_contact_regression(main)}
        layouts.refuse_other_models(merged, where)
        tensors = layouts.from_fair_esm(merged)
    else:
        layouts.refuse_other_models(content, where)
        if not layouts.is_hugging_face(content):
            raise ValueError(f"{where} holds no ESM-2: its first entries are {', '.join(list(content)[:3]) or 'none'}")
        architecture, token_dropout = layouts.architecture_of_hf_config(_hf_config(main, metadata), where)
        tensors = layouts.from_hugging_face(content, architecture.num_layers)
    if others := sorted(name for name, value in tensors.items() if not isinstance(value, Tensor)):
        raise ValueError(f"{where}: {others[0]} is not a tensor")
    layouts.check_tensors(tensors, architecture, where)
    return Checkpoint(files, architecture, token_dropout, tensors)


def read_fair_esm(path: Path) -> dict[str, Any]:
    """Read any fair-esm checkpoint; tensors of the contact regression file beside it are added to its own."""
    main = _find_weights(path)
    content = _read_pickle(main)
    if not isinstance(content.get("model"), Mapping):
        raise ValueError(f"{main} is no checkpoint of fair-esm: it has no entry 'model'")
    return {**content, "model": {**content["model"], **_contact_regression(main)}}


def sha256_of_weights(folder: Path) -> str:
    """Hash of the weights of a Hugging Face folder, as by `Checkpoint.sha256`."""
    main = _find_weights(folder)
    return _sha256_of_files(_shards(main) if main.name.endswith(".index.json") else (main,))


def _sha256_of_files(files: Sequence[Path]) -> str:
    digests = [sha256_of_file(path) for path in files]
    return digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()


def sha256_of_file(path: Path) -> str:
    """Hash of a file, in constant memory; an unchanged file is read once per process."""
    status = path.stat()
    return _hash_content(path, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _hash_content(path: Path, _size: int, _modified: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_tensors(tensors: Mapping[str, Tensor]) -> str:
    """Hash of names, dtypes, shapes and bytes, sorted by name: the identity of weights that are in no file."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def check_sha256(path: Path, expected: Sequence[str]) -> None:
    """Raise ValueError if a file has none of the expected hashes."""
    found = sha256_of_file(path)
    if found not in expected:
        raise ValueError(
            f"{path.name} is not the published file: its sha256 is {found}, expected {' or '.join(expected)}; "
            f"delete {path.resolve()} and download it again"
        )


def _find_weights(path: Path) -> Path:
    """The weights file: the path itself, or the first file found in a Hugging Face folder."""
    if path.is_dir():
        for name in _FOLDER_ORDER:
            if (path / name).is_file():
                return path / name
        raise ValueError(f"{path} holds no weights; expected one of {', '.join(_FOLDER_ORDER)}, or give a .pt file")
    if not path.is_file():
        raise ValueError(f"there is no checkpoint {path}; model.checkpoint is a .pt or .safetensors file or a folder")
    return path


def _shards(index: Path) -> tuple[Path, ...]:
    """The shards that an index lists; they must be in its folder."""
    try:
        names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ValueError(f"{index} is not an index of weight shards ({error})") from None
    files = tuple(index.parent / str(name) for name in names)
    if strange := [name for name in names if Path(str(name)).name != name]:
        raise ValueError(f"{index} points outside its folder: {strange[0]}")
    if missing := [file.name for file in files if not file.is_file()]:
        raise ValueError(f"{index} lists {missing[0]}, which is not beside it; download all {len(files)} shards")
    return files


def _read_file(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Memory-map a file of either format; returns its entries and, for safetensors, its metadata."""
    with path.open("rb") as file:
        head = file.read(128)
    if not head:
        raise ValueError(f"{path} is empty; download it again")
    if head.startswith(b"version https://git-lfs"):
        raise ValueError(f"{path} is a git-lfs pointer, not the weights; run `git lfs pull` or download the file")
    if head[8:9] == b"{":
        return _read_safetensors(path)
    if head.startswith(b"PK") or head[:1] == b"\x80":
        return _read_pickle(path), {}
    raise ValueError(f"{path} is not a checkpoint: neither safetensors nor a file saved by torch")


def _read_safetensors(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            # The handle has `keys` but is no mapping, so it cannot be iterated.
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return tensors, dict(file.metadata() or {})
    except SafetensorError as error:
        raise ValueError(f"{path} is truncated or damaged ({error}); download it again") from None


def _read_pickle(path: Path) -> dict[str, Any]:
    """Load a file saved by torch with the restricted unpickler: tensors, containers and Namespace only."""
    is_zip = zipfile.is_zipfile(path)
    with path.open("rb") as file:
        if file.read(2) == b"PK" and not is_zip:
            raise ValueError(f"{path} is truncated: its end is missing; download it again")
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except pickle.UnpicklingError as error:
        wanted = re.search(r"GLOBAL ([\w.]+)", str(error))
        # A truncated pickle ends in part of one of torch's own names.
        if wanted and (is_zip or not wanted[1].startswith("torch.")):
            raise ValueError(f"{path} refused: the file wants to run code: {wanted[1]}") from None
        raise ValueError(f"{path} refused: damaged, or no checkpoint saved by torch but some other pickle") from None
    except (RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        raise ValueError(f"{path} is truncated or not a torch checkpoint ({_first_sentence(error)})") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} is not a checkpoint: it holds a {type(content).__name__} instead of named tensors")
    return content


def _first_sentence(error: Exception) -> str:
    """First line of torch's message, without its advice to load the file unsafely."""
    return (str(error).splitlines() or [type(error).__name__])[0].split(" In PyTorch 2.6")[0].rstrip(".")


def _contact_regression(main: Path) -> dict[str, Tensor]:
    """The contact head that fair-esm keeps in a file beside its weights; empty if there is none."""
    path = main.with_name(main.stem + REGRESSION_SUFFIX)
    if not path.is_file():
        return {}
    content = _read_pickle(path).get("model")
    if not isinstance(content, Mapping):
        raise ValueError(f"{path} is not a contact regression of fair-esm: it has no entry 'model'")
    return dict(content)


def _hf_config(main: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    """Config of Hugging Face weights: from a safetensors file's metadata, else from config.json beside it."""
    beside = main.with_name("config.json")
    if "config" in metadata:
        text, where = metadata["config"], f"the metadata of {main}"
    elif beside.is_file():
        text, where = beside.read_text(), str(beside)
    else:
        raise ValueError(f"{main} needs its config.json beside it: the number of heads is not in the weights")
    try:
        config = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{where} is not JSON ({error})") from None
    if not isinstance(config, dict):
        raise ValueError(f"{where} is not the config of a model")
    return config
