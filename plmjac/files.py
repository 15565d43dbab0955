"""Files that are there whole or not at all, the cache they are kept in, and the words of messages about names.

The lowest layer: no array library, no framework. One atomic write, one download, one cache folder and one "did you
mean" serve all of plmjac.
"""

import difflib
import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from tqdm import tqdm

if TYPE_CHECKING:
    import httpx

log = logging.getLogger(__name__)

RETRIED_STATUS = {408, 425, 429, 500, 502, 503, 504}

TEMPORARY = ".tmp-"
"""Prefix of the names of unfinished files; the rest is the name to come."""


class UsageError(ValueError):
    """A mistake that the user can mend: exit code 2, and the message is all that is shown."""


class NotFound(UsageError):
    """The server answers, and says that there is no such file (404 or 410)."""


class BadDownload(UsageError):
    """The server answers, but not with the file: an error that lasts, or content that does not pass its check."""


class Unreachable(UsageError):
    """No connection to the server: no network, a wrong address, or a proxy that refuses."""


class _BadContent(Exception):
    """Content that failed its check; retried, because a cut transfer looks like this too."""


@contextmanager
def replacing(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """Yields a temporary file beside `path`; when the block ends without an error it takes the place of `path`.

    The bytes and the new name are forced to the disk, so that even after a power cut there is the old file or the whole
    new one; `durable=False` saves these two waits. The temporary name is unique: several processes may write the same
    file, and the last rename wins.
    """
    temporary = path.with_name(f"{TEMPORARY}{uuid4().hex[:12]}-{path.name[-80:]}")
    try:
        yield temporary
        if durable:
            sync(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    if durable:
        sync(path.parent)


def is_temporary(name: str) -> bool:
    """True for what `replacing` leaves behind when it is killed, by today's names or those of 2026-11-25 and before."""
    return name.startswith(TEMPORARY) or (name.startswith(".") and name.endswith(".tmp"))


def write_whole(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Write a file so that it is there whole or not at all, if `durable` even after a power cut."""
    with replacing(path, durable=durable) as temporary:
        temporary.write_bytes(data)


def sync(path: Path) -> None:
    """Force a file, or a folder's list of names, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object; empty where there is no such file or it holds something else."""
    try:
        known = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def cache_folder(*parts: str) -> Path:
    """$PLMJAC_CACHE, else ~/.cache/plmjac, with `parts` below it; it need not be there.

    Raises UsageError where there is no home folder and PLMJAC_CACHE is not set.
    """
    try:
        return Path(os.environ.get("PLMJAC_CACHE") or "~/.cache/plmjac").expanduser().joinpath(*parts)
    except RuntimeError:
        raise UsageError(
            "there is no home folder to keep files in; set the environment variable PLMJAC_CACHE to a folder that can "
            "be written"
        ) from None


def remembered(name: str) -> dict[str, Any]:
    """The JSON object of this name in the cache folder; empty where there is none or it cannot be read."""
    try:
        return read_object(cache_folder(name))
    except UsageError:
        return {}


def remember(name: str, known: Mapping[str, Any]) -> bool:
    """Keep a JSON object in the cache folder for later runs; False where that cannot be, with a line of the log."""
    try:
        path = cache_folder(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(known, indent=1, sort_keys=True).encode())
    except (OSError, UsageError) as error:
        log.info("%s cannot be kept (%s) and will be measured again", name, error)
        return False
    return True


def download(
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

    The file appears under its name only after its content was checked, so whatever lies in the cache is complete.
    `check` reads the temporary file and raises ValueError if it is not what it should be. `timeout` is in seconds
    without a byte, `wait` the first pause in seconds; it doubles. Raises NotFound, BadDownload or Unreachable, which
    name the address and the remedy. No partial download is resumed: the files are small, and a server may have changed.
    """
    if target.exists():
        return target
    # 0.15 s, and most runs download nothing
    import httpx  # noqa: PLC0415
    import stamina  # noqa: PLC0415
    from stamina.instrumentation import RetryDetails, set_on_retry_hooks  # noqa: PLC0415

    def say(details: RetryDetails) -> None:
        reason = str(details.caused_by) or type(details.caused_by).__name__
        log.warning("%s: %s; next try in %.1f s", url, reason, details.wait_for)

    set_on_retry_hooks([say])

    def is_worth_retrying(error: Exception) -> bool:
        if isinstance(error, httpx.HTTPStatusError):
            return error.response.status_code in RETRIED_STATUS
        if isinstance(error, httpx.UnsupportedProtocol | httpx.TooManyRedirects):
            return False
        return isinstance(error, httpx.RequestError | _BadContent)

    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        for attempt in stamina.retry_context(on=is_worth_retrying, attempts=attempts, wait_initial=wait, timeout=None):
            # Some servers send a .gz file as Content-Encoding: gzip, and it arrives unpacked; readers go by content.
            headers = {"Accept-Encoding": "identity", "User-Agent": "plmjac"}
            with (
                attempt,
                replacing(target) as temporary,
                httpx.stream("GET", url, headers=headers, timeout=timeout, follow_redirects=True) as response,
            ):
                digest = _stream(response, temporary, Path(url.split("?")[0]).name, progress)
                if sha256 is not None and digest != sha256:
                    raise _BadContent(f"its sha256 is {digest}, expected {sha256}")
                _apply(check, temporary)
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
        raise UsageError(
            f"cannot write to the cache folder {target.parent} ({error.strerror}); set dataset.cache or the "
            "environment variable PLMJAC_CACHE to a folder that can be written"
        ) from None
    log.debug("downloaded %s", url)
    return target


def _apply(check: Callable[[Path], None] | None, path: Path) -> None:
    """Run a caller's check; what it calls wrong is downloaded again, unless it is the user's to mend."""
    try:
        if check is not None:
            check(path)
    except UsageError:
        raise
    except ValueError as error:
        raise _BadContent(str(error)) from None


def _stream(response: "httpx.Response", path: Path, name: str, progress: bool) -> str:
    """Write the body of an answer to a file block by block, and return its sha256."""
    digest = hashlib.sha256()
    response.raise_for_status()
    size = int(response.headers.get("Content-Length", 0)) or None
    # disable=None: no bar where stderr is a file or a log.
    with (
        path.open("wb") as file,
        tqdm(
            total=size, unit="B", unit_scale=True, desc=name, leave=False, disable=None if progress else True,
        ) as bar,
    ):  # fmt: skip
        for block in response.iter_bytes():
            file.write(block)
            digest.update(block)
            bar.update(response.num_bytes_downloaded - bar.n)
    return digest.hexdigest()


def is_fasta(path: Path) -> bool:
    """True for a file whose name or first letter is that of FASTA; a pipe, which may wait, is not opened."""
    if path.name.lower().removesuffix(".gz").endswith((".fasta", ".fa", ".faa", ".fas")):
        return True
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return file.read(1) == b">"
    except OSError:
        return False


def nearest(word: object, known: Iterable[str], limit: int | None = None) -> str:
    """The known word most like this one, as the end of a sentence: "did you mean 'x'?"; else "there are: a, b".

    Upper and lower case count as the same. `limit` is how many are listed at most.
    """
    words = sorted(set(known))
    by_lower = {each.lower(): each for each in words}
    close = difflib.get_close_matches(str(word).lower(), by_lower, n=1, cutoff=0.5)
    if close:
        return f"did you mean {by_lower[close[0]]!r}?"
    return f"there are: {shorten(words, limit or len(words))}" if words else "there are none"


def shorten(names: Iterable[str], limit: int = 8) -> str:
    """The first names of a list for a message, with a count of the others."""
    listed = list(names)
    more = f" and {len(listed) - limit} more" if len(listed) > limit else ""
    return ", ".join(listed[:limit]) + more
