"""ESM-2 on fair-esm's own module: the plain path that every faster one is held equal to.

It is slow: attention maps are formed in every layer, all 33
output columns are computed and 13 dropped, and the contact head holds all maps at once (layers x heads x L^2 numbers).
"""

import importlib.metadata
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from plmjac.alphabet import AMINO_ACIDS, NONCANONICAL, NUM_AMINO_ACIDS
from plmjac.models.architecture import Architecture, Esm2Size
from plmjac.models.base import READOUTS, BosEos, LanguageModel, Precision, indices_of, kernels
from plmjac.models.layouts import CONTACT_HEAD, check_tensors, rotary_frequencies


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
        import esm.model.esm2
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


class Esm2Adapter(LanguageModel):
    """Base of the plain and the fast ESM-2: translates our tokens to ESM's vocabulary and adds the two ends.

    `tensors` carry fair-esm's names and are copied. `token_dropout` is the rescaling of embeddings by the fraction of
    masked tokens that ESM-2 was trained with. `bos_eos="mask"` replaces <cls> and <eos> by <mask>, the variant
    "without BOS/EOS" of Zhang et al. (2024).
    """

    fast = False
    precision: Precision = "fp32"
    _esm_ids: Tensor

    def __init__(
        self,
        *,
        name: str,
        architecture: Architecture,
        tensors: Mapping[str, Tensor],
        weights_sha256: str,
        token_dropout: bool = True,
        bos_eos: BosEos = "keep",
    ) -> None:
        super().__init__()
        if bos_eos not in ("keep", "mask"):
            raise ValueError(f"bos_eos is keep or mask, not {bos_eos!r}")
        check_tensors(tensors, architecture, name)
        embedding = tensors["embed_tokens.weight"]
        if not torch.equal(tensors.get("lm_head.weight", embedding), embedding):
            raise ValueError("the output matrix of this checkpoint is not its embedding; every ESM-2 ties the two")
        self.name = name
        self.architecture = architecture
        self.weights_sha256 = weights_sha256
        self.token_dropout = token_dropout
        has_contact_head = set(CONTACT_HEAD) <= set(tensors)
        self.readouts: frozenset[str] = frozenset(READOUTS if has_contact_head else set(READOUTS) - {"contact_head"})
        alphabet = import_fair_esm().data.Alphabet.from_architecture("ESM-1b")
        self.register_buffer("_esm_ids", _lookup(alphabet), persistent=False)
        ends = (alphabet.cls_idx, alphabet.eos_idx) if bos_eos == "keep" else (alphabet.mask_idx, alphabet.mask_idx)
        self._bos_id, self._eos_id = ends
        self._mask_id = int(alphabet.mask_idx)

    @property
    def size(self) -> Esm2Size:
        """Costs on the device that the model is on."""
        return Esm2Size(self.architecture, self.fast, self.precision, self.device.type)

    def why_not(self, readout: str) -> str:
        """Say how to get a contact head, the one readout that a file of an ESM-2 may lack."""
        return (
            f"{self.name} has no trained contact head: put fair-esm's <stem>-contact-regression.pt beside the "
            "checkpoint, or use the Hugging Face files, which contain it"
        )

    def _weights(self) -> Tensor:
        """Any of the weights, for their dtype."""
        raise NotImplementedError("a subclass is the model")

    def _to_esm(self, tokens: Int64[Tensor, "B L"]) -> Int64[Tensor, "B L+2"]:
        """Our tokens as ESM's, with the two ends."""
        if self._weights().dtype != torch.float32:  # the embedding, which no precision of ours changes
            raise ValueError(
                f"{self.name} was cast to {self._weights().dtype}, which ruins its rotary positions; "
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


class Esm2(Esm2Adapter):
    """An ESM-2 in eval mode and float32 on fair-esm's module."""

    def __init__(self, *, tensors: Mapping[str, Tensor], architecture: Architecture, **options: Any) -> None:
        super().__init__(tensors=tensors, architecture=architecture, **options)
        esm = import_fair_esm()
        alphabet = esm.data.Alphabet.from_architecture("ESM-1b")
        self.esm: Any = _build(esm, architecture, alphabet, self.token_dropout)
        _fill(self.esm, architecture, tensors)
        self.eval().requires_grad_(False)

    def read(
        self,
        tokens: Int64[Tensor, "B L"],
        readouts: Collection[str],
        positions: Int64[Tensor, " L"] | None = None,
        heads: Sequence[tuple[int, int]] | None = None,
    ) -> dict[str, Tensor]:
        """Everything asked for from one forward of fair-esm's module."""
        self.check_readouts(readouts)
        wanted = self.wanted_heads(heads)
        ids = self._to_esm(tokens)
        indices = indices_of(tokens.shape[1], positions, ids.device)
        last = self.architecture.num_layers
        with torch.inference_mode(), kernels("fp32", ids.device), self._rotated_by(indices):
            out: dict[str, Any] = self.esm(
                ids,
                repr_layers=[last] if "representation" in readouts else [],
                need_head_weights="attention" in readouts,
                return_contacts="contact_head" in readouts,
            )
        # Copies made outside inference mode are ordinary tensors; views of `out` would refuse in-place changes.
        results: dict[str, Tensor] = {}
        if "logits" in readouts:
            results["logits"] = out["logits"][:, 1:-1].float().index_select(2, self._esm_ids[:NUM_AMINO_ACIDS])
        if "contact_head" in readouts:
            results["contact_head"] = out["contacts"].float().clone()
        if "attention" in readouts:
            maps = out["attentions"][..., 1:-1, 1:-1]
            chosen = maps if heads is None else torch.stack([maps[:, layer, head] for layer, head in wanted], dim=1)
            results["attention"] = chosen.float().clone()
        if "representation" in readouts:
            results["representation"] = out["representations"][last][:, 1:-1].float().clone()
        return results

    @contextmanager
    def _rotated_by(self, indices: Int64[Tensor, " T"]) -> Iterator[None]:
        """Put cos and sin of these indices where fair-esm's module looks them up, which makes them of 0 .. T - 1.

        Its own arithmetic, so that the usual indices give the usual bits; forgotten afterwards.
        """
        rotaries = [layer.self_attn.rot_emb for layer in self.esm.layers]
        for rotary in rotaries:
            angles = torch.einsum("i,j->ij", indices.type_as(rotary.inv_freq), rotary.inv_freq)
            angles = torch.cat((angles, angles), dim=-1)
            rotary._seq_len_cached = len(indices)
            rotary._cos_cached, rotary._sin_cached = angles.cos()[None], angles.sin()[None]
        try:
            yield
        finally:
            for rotary in rotaries:
                rotary._seq_len_cached = rotary._cos_cached = rotary._sin_cached = None

    def _weights(self) -> Tensor:
        weight: Tensor = self.esm.embed_tokens.weight
        return weight


def _lookup(alphabet: Any) -> Int64[Tensor, " 26"]:
    """ESM's id of each of our tokens, from fair-esm's own alphabet."""
    ids = [alphabet.get_idx(letter) for letter in AMINO_ACIDS + NONCANONICAL] + [alphabet.mask_idx]
    # get_idx answers <unk> for what it does not know, which would read as a letter that carries no information.
    assert alphabet.unk_idx not in ids and len(set(ids)) == len(ids), "fair-esm's alphabet is not that of ESM-2"
    return torch.tensor(ids, device="cpu")


class _NoDrawing(TorchFunctionMode):
    """Keeps from the meta device what is pointless there and imports torch's compiler, which takes seconds."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        named = kwargs or {}
        if func is nn.init.normal_:
            return args[0] if args else named["tensor"]
        if func is torch.arange:  # of the rotary frequencies
            named = {**named, "device": "cpu"}
        return func(*args, **named)


def _build(esm: ModuleType, architecture: Architecture, alphabet: Any, token_dropout: bool) -> Any:
    """fair-esm's module without weights: nothing is drawn, so that the global random numbers stay as they were."""
    with torch.device("meta"), _NoDrawing():
        module = esm.model.esm2.ESM2(
            num_layers=architecture.num_layers,
            embed_dim=architecture.width,
            attention_heads=architecture.num_heads,
            alphabet=alphabet,
            token_dropout=token_dropout,
        )
    for part in module.modules():
        if isinstance(part, nn.LayerNorm):
            part.eps = architecture.layer_norm_eps
    return module


def _fill(module: Any, architecture: Architecture, tensors: Mapping[str, Tensor]) -> None:
    """Copy weights into a module on the meta device, in float32."""
    state = {name: tensor.to("cpu", torch.float32, copy=True) for name, tensor in tensors.items()}
    state["lm_head.weight"] = state["embed_tokens.weight"]
    for name in CONTACT_HEAD:
        # Without trained weights: NaN, so that a path around `readouts` cannot pass off noise as contacts.
        width = architecture.num_layers * architecture.num_heads
        state.setdefault(name, torch.full((1, width) if name.endswith("weight") else (1,), torch.nan))
    for layer in range(architecture.num_layers):
        # The published models were trained with frequencies rounded to float16, so what the file says goes first.
        state.setdefault(f"layers.{layer}.self_attn.rot_emb.inv_freq", rotary_frequencies(architecture))
    module.load_state_dict(state, strict=True, assign=True)
    module.lm_head.weight = module.embed_tokens.weight
