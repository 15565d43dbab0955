"""One way to get a file from the network: retried, checked, and whole or not there at all.

Used by `pdb`, `zhang2024` and `proteome`. A file comes into being under its name by rename, after its content was
checked, so whatever lies in the cache is complete and a second run needs no network. No partial download is resumed:
the files are small, and a server may have changed in between.
"""

import hashlib
import logging
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import httpx
import stamina
from tqdm import tqdm

from plmjac.datasets.base import InputError

_log = logging.getLogger(__name__)
_RETRIED_STATUS = {408, 425, 429, 500, 502, 503, 504}


class NotFound(InputError):
    """The server answers, and says that there is no such file (404 or 410)."""


class BadDownload(InputError):
    """The server answers, but not with the file: an error that lasts, or content that does not pass its check."""


class Unreachable(InputError):
    """No connection to the server: no network, a wrong address, or a proxy that refuses."""


class _BadContent(Exception):
    """Content that failed its check; retried, because a cut transfer looks like this too."""


def cache_folder(name: str, cache: str | None = None) -> Path:
    """The folder for one dataset's files: `cache` if given, else PLMJAC_CACHE/name, else ~/.cache/plmjac/name."""
    if cache:
        return Path(cache).expanduser()
    root = os.environ.get("PLMJAC_CACHE") or "~/.cache/plmjac"
    return Path(root).expanduser() / name


def fetch(
    url: str,
    target: Path,
    *,
    check: Callable[[Path], None] | None = None,
    sha256: str | None = None,
    attempts: int = 5,
    wait: float = 0.5,
    timeout: float = 30.0,
    progress: bool = True,
) -> Path:
    """Download `url` to `target` and return it; at once, without network, if it is there already.

    `check` reads the temporary file and raises ValueError if it is not what it should be. `timeout` is in seconds
    without a byte, `wait` the first pause in seconds; it doubles. Raises NotFound, BadDownload or Unreachable, all of
    them InputErrors that name the address and the remedy.
    """
    if target.exists():
        return target
    _make_folder(target.parent)
    try:
        for attempt in stamina.retry_context(on=_is_worth_retrying, attempts=attempts, wait_initial=wait, timeout=None):
            with attempt:
                _download_once(url, target, check, sha256, timeout, progress)
    except httpx.HTTPStatusError as error:
        status = error.response.status_code
        if status in {404, 410}:
            raise NotFound(f"{url}: no such file on the server (HTTP {status})") from None
        raise BadDownload(f"{url}: the server answers HTTP {status}; try again later") from None
    except (httpx.RequestError, httpx.InvalidURL) as error:
        reason = str(error) or type(error).__name__
        raise Unreachable(f"{url} cannot be reached ({reason}); is there a network and, if needed, a proxy?") from None
    except _BadContent as error:
        raise BadDownload(f"{url}: what was downloaded is not usable: {error}; try again later") from None
    except OSError as error:
        raise _unwritable(target.parent, error) from None
    return target


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(folder, error) from None


def _unwritable(folder: Path, error: OSError) -> InputError:
    return InputError(
        f"cannot write to the cache folder {folder} ({error.strerror}); set dataset.cache or the environment variable "
        "PLMJAC_CACHE to a folder that can be written"
    )


def _is_worth_retrying(error: Exception) -> bool:
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code in _RETRIED_STATUS
    if isinstance(error, httpx.UnsupportedProtocol | httpx.TooManyRedirects):
        return False
    return isinstance(error, httpx.RequestError | _BadContent)


def _download_once(
    url: str,
    target: Path,
    check: Callable[[Path], None] | None,
    sha256: str | None,
    timeout: float,
    progress: bool,
) -> None:
    # The temporary name is unique, so that several processes may fetch the same file; the last rename wins, and all
    # of them carry the same content.
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=".download-", suffix=target.name)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            digest = _stream(url, file.write, timeout, progress)
            file.flush()
            os.fsync(file.fileno())
        if sha256 is not None and digest != sha256:
            raise _BadContent(f"its sha256 is {digest}, expected {sha256}")
        if check is not None:
            try:
                check(temporary)
            except InputError:
                raise  # a verdict on what was asked for, which no second attempt changes
            except ValueError as error:
                raise _BadContent(str(error)) from None
        os.chmod(temporary, 0o644)  # mkstemp makes it private, and a cache may be shared
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def _stream(url: str, write: Callable[[bytes], int], timeout: float, progress: bool) -> str:
    """Pass the body to `write` block by block, and return its sha256."""
    digest = hashlib.sha256()
    # Some servers send a .gz file as Content-Encoding: gzip, and it arrives unpacked; the readers go by content.
    headers = {"Accept-Encoding": "identity", "User-Agent": "plmjac"}
    with httpx.stream("GET", url, headers=headers, timeout=timeout, follow_redirects=True) as response:
        response.raise_for_status()
        size = int(response.headers.get("Content-Length", 0)) or None
        # disable=None: no bar where stderr is a file or a log.
        with tqdm(
            total=size, unit="B", unit_scale=True, desc=Path(url.split("?")[0]).name, leave=False,
            disable=None if progress else True,
        ) as bar:  # fmt: skip
            for block in response.iter_bytes():
                write(block)
                digest.update(block)
                bar.update(response.num_bytes_downloaded - bar.n)
    _log.debug("downloaded %s", url)
    return digest.hexdigest()
