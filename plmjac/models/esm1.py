"""ESM-1b and ESM-1v on fair-esm's own module, from a local fair-esm file; in float32.

They differ from ESM-2 in their learned positions, of which there are 1,024 with the two ends, and ESM-1b in a layer
norm before the first layer. They have no fast path; `model=masked_lm` runs Hugging Face's copies with PyTorch's
attention.
"""

from argparse import Namespace
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Int64
from torch import Tensor

from plmjac.models.architecture import Architecture, Esm2Size
from plmjac.models.base import BosEos, LanguageModel
from plmjac.models.checkpoints import read_fair_esm, sha256_of_file
from plmjac.models.fair_esm import EsmAdapter, NoDrawing, import_fair_esm
from plmjac.models.layouts import CONTACT_HEAD

ENDS = 2
"""BOS and EOS take one learned position each."""


@dataclass(frozen=True)
class Esm1Size(Esm2Size):
    """Cost of an ESM-1b or ESM-1v: an ESM-2 on fair-esm's module plus the learned positions."""

    positions: int
    norm_before: bool

    @property
    def max_length(self) -> int:
        """Residues that the learned positions allow."""
        return self.positions - ENDS

    @property
    def num_parameters(self) -> int:
        """Number of trained parameters, contact head included."""
        positions = self.positions + 2  # two more for padding, which no residue ever has
        return super().num_parameters + self.architecture.width * (positions + 2 * self.norm_before)


def load(
    *,
    name: str,
    checkpoint: str | Path | None,
    token_dropout: bool | None,
    bos_eos: BosEos,
    device: torch.device,
) -> LanguageModel:
    """Load an ESM-1b or ESM-1v on a device; `token_dropout` None follows the file."""
    path = _path(name, checkpoint)
    content = read_fair_esm(path)
    model = Esm1(
        content, name=name, where=str(path), weights_sha256=sha256_of_file(path), token_dropout=token_dropout,
        bos_eos=bos_eos,
    )  # fmt: skip
    return model.to(device)


def size(*, name: str, kind: str, checkpoint: str | Path | None, **_: Any) -> Esm1Size:
    """Cost of an ESM-1b or ESM-1v on a kind of device."""
    path = _path(name, checkpoint)
    content = read_fair_esm(path)
    return _size(_options(content, str(path)), content["model"], kind)


class Esm1(EsmAdapter):
    """An ESM-1b or ESM-1v in eval mode and float32 on fair-esm's module.

    `content` is a fair-esm checkpoint whose tensors include the contact regression, if there is one.
    """

    def __init__(
        self,
        content: Mapping[str, Any],
        *,
        name: str,
        where: str,
        weights_sha256: str,
        token_dropout: bool | None = None,
        bos_eos: BosEos = "keep",
    ) -> None:
        options, tensors = _options(content, where), dict(content["model"])
        options.token_dropout = (
            bool(getattr(options, "token_dropout", False)) if token_dropout is None else token_dropout
        )
        super().__init__(
            name=name,
            weights_sha256=weights_sha256,
            token_dropout=options.token_dropout,
            bos_eos=bos_eos,
            has_contact_head=set(CONTACT_HEAD) <= set(tensors),
        )
        self._size = _size(options, tensors, "cpu")
        self.max_length = self._size.max_length
        self.esm: Any = _build(options, tensors, where)
        self.eval().requires_grad_(False)

    @property
    def size(self) -> Esm1Size:
        """Costs on any device."""
        return self._size

    @contextmanager
    def _placed_at(self, indices: Int64[Tensor, " T"]) -> Iterator[None]:
        """Let fair-esm's module look up the learned positions of these indices instead of 0 .. T - 1."""
        if int(indices[-1]) >= self._size.positions:
            raise ValueError(
                f"{self.name} has learned positions for {self._size.max_length} residues, gaps between chains "
                f"included; these take {int(indices[-1]) - 1}"
            )
        embedding = self.esm.embed_positions
        looked_up = indices + embedding.padding_idx + 1
        embedding.forward = lambda ids: F.embedding(looked_up.expand_as(ids), embedding.weight)
        try:
            yield
        finally:
            del embedding.forward


def _path(name: str, checkpoint: str | Path | None) -> Path:
    if checkpoint is None:
        raise ValueError(
            f"model={name} needs model.checkpoint=FILE, a fair-esm .pt; it is not downloaded, because plmjac knows no "
            "hash of it"
        )
    return Path(checkpoint)


def _options(content: Mapping[str, Any], where: str) -> Namespace:
    """The training options of a checkpoint, named as fair-esm's module does. Raises ValueError for other models."""
    given = content.get("args")
    known = vars(given) if isinstance(given, Namespace) else {}
    if known.get("arch") != "roberta_large":
        raise ValueError(f"{where} is no ESM-1b or ESM-1v of fair-esm: its args say arch={known.get('arch')!r}")
    options = Namespace(**{name.removeprefix("encoder_"): value for name, value in known.items()})
    for name in ("layers", "embed_dim", "ffn_embed_dim", "attention_heads", "max_positions"):
        if not isinstance(getattr(options, name, None), int):
            raise ValueError(f"{where} does not say its {name}; is it a fair-esm file of ESM-1b or ESM-1v?")
    if options.ffn_embed_dim != 4 * options.embed_dim:
        raise ValueError(f"{where} has feed-forward layers of {options.ffn_embed_dim}, not 4 x {options.embed_dim}")
    return options


def _size(options: Namespace, tensors: Mapping[str, Tensor], kind: str) -> Esm1Size:
    architecture = Architecture(options.layers, options.embed_dim, options.attention_heads)
    norm_before = any("emb_layer_norm_before" in name for name in tensors)
    return Esm1Size(architecture, False, "fp32", kind, options.max_positions, norm_before)


def _build(options: Namespace, tensors: dict[str, Tensor], where: str) -> Any:
    """Build fair-esm's module with these weights; fair-esm's own loader renames them."""
    esm = import_fair_esm()
    width = options.layers * options.attention_heads
    for name, shape in zip(CONTACT_HEAD, ((1, width), (1,)), strict=True):
        # NaN where there are no trained weights, so that noise can never pass for contacts.
        tensors.setdefault(name, torch.full(shape, torch.nan))
    copied = {name: tensor.to("cpu", torch.float32, copy=True) for name, tensor in tensors.items()}
    with torch.device("meta"), NoDrawing():
        module, _, state = esm.pretrained._load_model_and_alphabet_core_v1({"args": options, "model": copied})
    state["lm_head.weight"] = state.get("lm_head.weight", state["embed_tokens.weight"])
    try:
        module.load_state_dict(state, strict=True, assign=True)
    except RuntimeError as error:
        wrong = " ".join(str(error).split("\n\t")[1:2]) or str(error)
        raise ValueError(f"{where} is not a whole ESM-1b or ESM-1v: {wrong[:200]}") from None
    module.lm_head.weight = module.embed_tokens.weight
    return module
