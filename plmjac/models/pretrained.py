"""Checkpoint folders of transformers models, local or from Hugging Face's hub, and the library itself."""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

_DOWNLOADED = ["*.json", "*.txt", "*.model", "*.safetensors", "*.bin"]


def import_transformers() -> ModuleType:
    """Import transformers, an optional extra. Raises ValueError that says how to install it."""
    try:
        import transformers  # noqa: PLC0415 - an optional extra
    except ImportError as error:
        raise ValueError(
            f"model=masked_lm needs transformers, an optional part: pip install 'plmjac[transformers]' ({error})"
        ) from error
    return transformers


def folder_of(checkpoint: str | Path | None, revision: str | None, trust: bool, *, weights: bool = True) -> Path:
    """Local folder of a checkpoint: the one given, or the download of a Hugging Face repository at a revision.

    Without `weights` only the small files are downloaded. Raises ValueError with the remedy.
    """
    if checkpoint is None:
        raise ValueError("model=masked_lm needs model.checkpoint=FOLDER, or a repository of Hugging Face's hub")
    path = Path(checkpoint)
    if path.is_dir():
        if revision is not None:
            raise ValueError(f"model.revision has no effect on the local folder {path}")
        return path
    if path.exists() or not re.fullmatch(r"[\w.-]+/[\w.-]+", str(checkpoint)):
        raise ValueError(f"model.checkpoint={checkpoint} is no folder, and no repository such as Rostlab/prot_bert")
    wanted = [*_DOWNLOADED[: None if weights else 3], *(["*.py"] if trust else [])]
    try:
        import huggingface_hub  # noqa: PLC0415 - 0.5 s, only where the model is no folder

        ignored = ["*.bin"] if weights and _has_safetensors(str(checkpoint), revision) else []
        return Path(
            huggingface_hub.snapshot_download(
                str(checkpoint), revision=revision, allow_patterns=wanted, ignore_patterns=ignored
            )
        )
    # Which HTTP library's errors come out depends on the version of the client; every one of them means "not here".
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0][:200].rstrip(".")
        raise ValueError(
            f"cannot get {checkpoint} ({type(error).__name__}: {reason}); download its files and give "
            "model.checkpoint=FOLDER"
        ) from error


def _has_safetensors(repository: str, revision: str | None) -> bool:
    import huggingface_hub  # noqa: PLC0415 - as above

    try:
        files = huggingface_hub.list_repo_files(repository, revision=revision)
    except Exception:  # without a network the cache decides
        return False
    return any(name.endswith(".safetensors") for name in files)


@contextlib.contextmanager
def readable_errors(folder: Path) -> Iterator[None]:
    """Turn exceptions of transformers into a ValueError of one sentence, within the context."""
    try:
        yield
    except ValueError as error:
        if "trust_remote_code" in str(error):
            raise ValueError(
                f"{folder} runs code of its own, which is not loaded unless model.trust_remote_code=true is given"
            ) from error
        raise ValueError(f"{folder}: {str(error).splitlines()[0]}") from error
    except (OSError, KeyError, ImportError, RuntimeError) as error:
        raise ValueError(f"{folder} cannot be loaded by transformers: {str(error).strip().splitlines()[0]}") from error


@contextlib.contextmanager
def quiet(transformers: ModuleType) -> Iterator[None]:
    """Silence the progress bars and messages of transformers, within the context."""
    logging_of = transformers.utils.logging
    before = logging_of.get_verbosity()
    logging_of.set_verbosity_error()
    logging_of.disable_progress_bar()
    try:
        yield
    finally:
        logging_of.set_verbosity(before)
