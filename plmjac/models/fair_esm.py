"""Base of every ESM: fair-esm's vocabulary, BOS and EOS, and the readouts of one forward of fair-esm's modules."""

import importlib.metadata
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager
from types import ModuleType
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from plmjac.alphabet import AMINO_ACIDS, NONCANONICAL, NUM_AMINO_ACIDS
from plmjac.models.base import READOUTS, BosEos, LanguageModel, Precision, indices_of, kernels


def import_fair_esm() -> ModuleType:
    """Import fair-esm's ESM-2, or say why the `esm` that Python finds is another one.

    Two distributions on PyPI install a package called `esm`: `fair-esm`, and `esm` by EvolutionaryScale. Whichever
    was installed last overwrote files of the other, so an environment with both is refused even if the import works.
    """
    installed = {name for name in ("fair-esm", "esm") if _is_installed(name)}
    remedy = "run `pip uninstall esm fair-esm`, then `pip install fair-esm==2.0.0`"
    if installed == {"fair-esm", "esm"}:
        raise ValueError(f"fair-esm and esm (EvolutionaryScale) overwrite each other's package `esm`; {remedy}")
    try:
        import esm.model.esm2  # noqa: PLC0415 - two distributions have this name
    except ImportError as error:
        if "esm" in installed:
            raise ValueError(f"the installed `esm` is EvolutionaryScale's, not fair-esm; {remedy}") from error
        raise ValueError(f"fair-esm cannot be imported ({error}); {remedy}") from error
    module: ModuleType = esm
    return module


def _is_installed(distribution: str) -> bool:
    try:
        importlib.metadata.distribution(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


class EsmAdapter(LanguageModel):
    """Base of ESM-1b, ESM-1v and ESM-2: translates our tokens to ESM's vocabulary and adds BOS and EOS.

    A subclass sets `esm`, fair-esm's module, and places its positions, or has a forward of its own (`Esm2Fast`).
    `token_dropout` rescales embeddings by the fraction of masked tokens, as in training. `bos_eos="mask"` replaces
    <cls> and <eos> by <mask>, the variant "without BOS/EOS" of Zhang et al. (2024).
    """

    esm: Any
    precision: Precision = "fp32"
    _esm_ids: Tensor

    def __init__(
        self, *, name: str, weights_sha256: str, token_dropout: bool, bos_eos: BosEos, has_contact_head: bool
    ) -> None:
        super().__init__()
        if bos_eos not in ("keep", "mask"):
            raise ValueError(f"bos_eos is keep or mask, not {bos_eos!r}")
        self.name, self.weights_sha256, self.token_dropout = name, weights_sha256, token_dropout
        self.readouts = frozenset(READOUTS if has_contact_head else set(READOUTS) - {"contact_head"})
        alphabet = import_fair_esm().data.Alphabet.from_architecture("ESM-1b")
        self.register_buffer("_esm_ids", _lookup(alphabet), persistent=False)
        ends = (alphabet.cls_idx, alphabet.eos_idx) if bos_eos == "keep" else (alphabet.mask_idx, alphabet.mask_idx)
        self._bos_id, self._eos_id = ends
        self._mask_id = int(alphabet.mask_idx)

    def why_not(self, readout: str) -> str:
        """Say how to get a contact head, the only readout that an ESM can lack."""
        return (
            f"{self.name} has no trained contact head: put fair-esm's <stem>-contact-regression.pt beside the "
            "checkpoint, or use the Hugging Face files, which contain it"
        )

    def read(
        self,
        tokens: Int64[Tensor, "B L"],
        readouts: Collection[str],
        positions: Int64[Tensor, " L"] | None = None,
        heads: Sequence[tuple[int, int]] | None = None,
    ) -> dict[str, Tensor]:
        """All requested readouts from one forward."""
        self.check_readouts(readouts)
        chosen = None if heads is None else self.wanted_heads(heads)
        ids = self._to_esm(tokens)
        indices = indices_of(tokens.shape[1], positions, ids.device)
        with torch.inference_mode(), kernels(self.precision, ids.device):
            results = self._forward(ids, indices, frozenset(readouts), chosen)
        # Copies made outside inference mode are ordinary tensors, free to be changed in place.
        return {name: value.float().clone() for name, value in results.items()}

    def _embedding(self) -> Tensor:
        """The token embeddings, which stay in float32 in every precision."""
        weight: Tensor = self.esm.embed_tokens.weight
        return weight

    def _placed_at(self, indices: Int64[Tensor, " T"]) -> AbstractContextManager[None]:
        """Give fair-esm's module these position indices instead of 0 .. T - 1."""
        raise NotImplementedError("a subclass knows how its model encodes positions")

    def _to_esm(self, tokens: Int64[Tensor, "B L"]) -> Int64[Tensor, "B L+2"]:
        """Translate our tokens to ESM's and add BOS and EOS."""
        if self._embedding().dtype != torch.float32:
            raise ValueError(
                f"{self.name} was cast to {self._embedding().dtype}, which ruins its rotary positions; "
                "use trainer.precision=16-mixed or bf16-mixed, which keep the weights in float32"
            )
        batch, length = tokens.shape
        if length == 0:
            raise ValueError("a sequence of no residues has no logits")
        ids = tokens.new_empty((batch, length + 2))
        ids[:, 0], ids[:, -1] = self._bos_id, self._eos_id
        # index_select refuses negative tokens, which indexing would wrap around to MASK.
        ids[:, 1:-1] = self._esm_ids.index_select(0, tokens.reshape(-1)).view(batch, length)
        if self._bos_id == self._mask_id and bool((ids == self._mask_id).all(dim=1).any()):
            raise ValueError("with bos_eos=mask at least one residue must be visible: there is nothing to rescale")
        return ids

    def _forward(
        self,
        ids: Int64[Tensor, "B T"],
        indices: Int64[Tensor, " T"],
        readouts: frozenset[str],
        heads: list[tuple[int, int]] | None,
    ) -> dict[str, Tensor]:
        """The readouts of one forward of fair-esm's module; `heads` None means all attention heads."""
        last = len(self.esm.layers)
        with self._placed_at(indices):
            out: dict[str, Any] = self.esm(
                ids,
                repr_layers=[last] if "representation" in readouts else [],
                need_head_weights="attention" in readouts,
                return_contacts="contact_head" in readouts,
            )
        results: dict[str, Tensor] = {}
        if "logits" in readouts:
            results["logits"] = out["logits"][:, 1:-1].index_select(2, self._esm_ids[:NUM_AMINO_ACIDS])
        if "contact_head" in readouts:
            results["contact_head"] = out["contacts"]
        if "attention" in readouts:
            maps = out["attentions"][..., 1:-1, 1:-1]
            chosen = maps if heads is None else torch.stack([maps[:, layer, head] for layer, head in heads], dim=1)
            results["attention"] = chosen
        if "representation" in readouts:
            results["representation"] = out["representations"][last][:, 1:-1]
        return results


def _lookup(alphabet: Any) -> Int64[Tensor, " 26"]:
    """Map our tokens to ESM's ids, by fair-esm's own alphabet."""
    ids = [alphabet.get_idx(letter) for letter in AMINO_ACIDS + NONCANONICAL] + [alphabet.mask_idx]
    # get_idx answers <unk> for what it does not know, which would read as a letter that carries no information.
    assert alphabet.unk_idx not in ids and len(set(ids)) == len(ids), "fair-esm's alphabet is not that of ESM-2"
    return torch.tensor(ids, device="cpu")


class NoDrawing(TorchFunctionMode):
    """Skips random initialisation on the meta device: it is pointless there, and takes seconds to import."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        named = kwargs or {}
        if func is nn.init.normal_:
            return args[0] if args else named["tensor"]
        if func is torch.arange:  # of the rotary frequencies
            named = {**named, "device": "cpu"}
        return func(*args, **named)
