"""Random checkpoints made by transformers' and fair-esm's own code, with the libraries' own forwards as references."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import esm
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor

from plmjac.alphabet import AMINO_ACIDS, NONCANONICAL

Reference = Callable[[Tensor], Tensor]
OF_BERT = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
OF_ROBERTA = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
LETTERS = "ACDEFGHIKLMNPQRSTVWYX"


def randomise(model: Any, seed: int = 0) -> None:
    """Weights far from the flat ones of initialisation, so that a swapped tensor cannot hide."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        scale = 1.5 / parameter.shape[-1] ** 0.5 if parameter.ndim == 2 else 0.2
        scale = 1.0 if "embed" in name or "contact_head" in name else scale
        parameter.data.add_(torch.randn(parameter.shape, generator=generator), alpha=scale)


def bert(folder: Path, **changes: Any) -> Reference:
    """A BERT of letters with spaces between them, such as ProtBert and AntiBERTy."""
    vocabulary = folder / "vocab.txt"
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary.write_text("\n".join([*OF_BERT, *LETTERS]))
    tokenizer = transformers.BertTokenizer(vocab=str(vocabulary), do_lower_case=False)
    options = dict(
        vocab_size=26, hidden_size=64, num_hidden_layers=3, num_attention_heads=4, intermediate_size=256,
        max_position_embeddings=64,
    )  # fmt: skip
    return _saved(transformers.BertForMaskedLM(transformers.BertConfig(**(options | changes))), tokenizer, folder, " ")


def roberta(folder: Path, **changes: Any) -> Reference:
    """A RoBERTa of letters without spaces, whose positions begin after that of padding."""
    words = [*OF_ROBERTA, *LETTERS]
    tokenizer = Tokenizer(models.WordLevel({word: at for at, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", cls_token="<s>", sep_token="</s>",
        unk_token="<unk>", pad_token="<pad>", mask_token="<mask>",
    )  # fmt: skip
    options = dict(
        vocab_size=26, hidden_size=64, num_hidden_layers=3, num_attention_heads=4, intermediate_size=256,
        max_position_embeddings=66, pad_token_id=1, bos_token_id=0, eos_token_id=2, type_vocab_size=1,
    )  # fmt: skip
    return _saved(transformers.RobertaForMaskedLM(transformers.RobertaConfig(**(options | changes))), fast, folder, "")


def hf_esm(folder: Path, **changes: Any) -> Reference:
    """An ESM of transformers: rotary, or with learned positions (ESM-1b)."""
    folder.mkdir(parents=True, exist_ok=True)
    alphabet = esm.data.Alphabet.from_architecture("ESM-1b")
    (folder / "vocab.txt").write_text("\n".join(alphabet.all_toks))
    tokenizer = transformers.EsmTokenizer(vocab_file=str(folder / "vocab.txt"))
    options = dict(
        vocab_size=33, mask_token_id=32, pad_token_id=1, hidden_size=64, num_hidden_layers=3, num_attention_heads=4,
        intermediate_size=256, position_embedding_type="rotary", token_dropout=True, emb_layer_norm_before=False,
        max_position_embeddings=66,
    )  # fmt: skip
    return _saved(transformers.EsmForMaskedLM(transformers.EsmConfig(**(options | changes))), tokenizer, folder, "")


def _saved(model: Any, tokenizer: Any, folder: Path, between: str) -> Reference:
    """Save both as transformers does; returns their own forward, of text."""
    randomise(model.eval())
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    columns = [tokenizer.convert_tokens_to_ids(letter) for letter in AMINO_ACIDS]
    known = set(tokenizer.get_vocab())
    words = [letter if letter in known else "X" for letter in AMINO_ACIDS + NONCANONICAL] + [tokenizer.mask_token]

    def reference(tokens: Tensor) -> Tensor:
        texts = [between.join(words[token] for token in row) for row in tokens.tolist()]
        with torch.no_grad():
            out: Tensor = model(**tokenizer(texts, return_tensors="pt")).logits
        return out[:, 1:-1, columns]

    return reference


def esm1(path: Path, *, norm_before: bool, regression: bool = True) -> Reference:
    """An ESM-1b (with a norm before the first layer) or ESM-1v in fair-esm's own file."""
    alphabet = esm.data.Alphabet.from_architecture("ESM-1b")
    options = dict(
        arch="roberta_large", layers=3, embed_dim=64, ffn_embed_dim=256, attention_heads=4, max_positions=64,
        token_dropout=True, emb_layer_norm_before=norm_before,
    )  # fmt: skip
    with torch.random.fork_rng():
        module = esm.ProteinBertModel(argparse.Namespace(**options), alphabet).eval()
    randomise(module)
    module.embed_tokens.weight.data[alphabet.mask_idx] = 0  # as fair-esm does when it loads one
    state, head = module.state_dict(), ("contact_head.regression.weight", "contact_head.regression.bias")
    weights = {
        ("encoder." if name.startswith("lm_head") else "encoder.sentence_encoder.") + name: tensor
        for name, tensor in state.items()
        if name not in head
    }
    written = {f"encoder_{name}" if name in ("layers", "embed_dim", "ffn_embed_dim", "attention_heads") else name: value
               for name, value in options.items()}  # fmt: skip
    torch.save({"args": argparse.Namespace(**written), "model": weights}, path)
    if regression:
        torch.save(
            {"model": {name: state[name] for name in head}}, path.with_name(f"{path.stem}-contact-regression.pt")
        )
    return _fair_esm_forward(module, alphabet)


def fair_esm_forward(module: Any) -> Reference:
    """fair-esm's own forward of an ESM-2."""
    return _fair_esm_forward(module, esm.data.Alphabet.from_architecture("ESM-1b"))


def _fair_esm_forward(module: Any, alphabet: Any) -> Reference:
    letters = [*AMINO_ACIDS, *NONCANONICAL, "<mask>"]
    columns = [alphabet.get_idx(letter) for letter in AMINO_ACIDS]
    convert = alphabet.get_batch_converter()

    def reference(tokens: Tensor) -> Tensor:
        _, _, ids = convert([("x", "".join(letters[token] for token in row)) for row in tokens.tolist()])
        with torch.no_grad():
            out: Tensor = module(ids)["logits"]
        return out[:, 1:-1, columns]

    reference.module = module  # type: ignore[attr-defined]
    return reference
