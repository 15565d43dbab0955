"""Loggers of a run's metrics: none, a CSV file, or Weights & Biases.

A logger never fails or stalls a run: its first error is logged and ends it, and an action that takes too long is
abandoned. Nothing is only in a logger; the store and its manifest hold it all.
"""

import logging
import os
import socket
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlparse

from lightning.pytorch.loggers import CSVLogger, Logger
from lightning.pytorch.loggers import WandbLogger as LightningWandbLogger

from plmjac.inference.settings import CsvLogger, LoggerSettings, NoLogger, WandbLogger

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)

DEADLINE_SECONDS = 30.0


class SafeLogger(Logger):
    """Any logger; its errors and delays never reach the run."""

    def __init__(self, make: Callable[[], Logger], config: Mapping[str, Any]) -> None:
        super().__init__()
        self.inner: Logger | None = None
        self._try("start", lambda: self._start(make, config))

    def _start(self, make: Callable[[], Logger], config: Mapping[str, Any]) -> None:
        inner = make()
        inner.log_hyperparams(dict(config))
        self.inner = inner

    @property
    def name(self) -> str | None:
        """The inner logger's name."""
        return self.inner.name if self.inner else None

    @property
    def version(self) -> int | str | None:
        """The inner logger's version."""
        return self.inner.version if self.inner else None

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: the configuration is logged when the logger starts."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Pass numbers on to the logger, if it still works."""
        inner = self.inner
        if inner is not None:
            self._try("log to", lambda: inner.log_metrics(dict(metrics), step))

    def log_tables(self, tables: Mapping[str, "pd.DataFrame"]) -> None:
        """Send tables to W&B; other loggers have no place for them."""
        inner = self.inner
        if inner is not None and hasattr(inner, "log_table"):
            for name, table in tables.items():
                self._try("log to", lambda name=name, table=table: inner.log_table(name, dataframe=table))  # type: ignore[misc]

    def log_images(self, images: Mapping[str, Path]) -> None:
        """Send pictures to W&B; other loggers have no place for them."""
        inner = self.inner
        if inner is not None and hasattr(inner, "log_image"):
            for name, path in images.items():
                self._try("log to", lambda name=name, path=path: inner.log_image(f"figures/{name}", [str(path)]))  # type: ignore[misc]

    def finalize(self, status: str) -> None:
        """Called by Lightning at the end of its part; the run itself is closed by `close`."""
        inner = self.inner
        if inner is not None:
            self._try("finalize", lambda: inner.finalize(status))

    def close(self, exit_code: int) -> None:
        """End the run for good, so that the next job in this process gets one of its own."""
        inner = self.inner
        if inner is not None and hasattr(inner, "experiment") and hasattr(inner.experiment, "finish"):
            self._try("close", lambda: inner.experiment.finish(exit_code=exit_code))
        self.inner = None

    def _try(self, what: str, action: Callable[[], None]) -> None:
        """Run an action of the logger in a thread with a deadline; on an error or a delay go on without a logger."""
        errors: list[BaseException] = []

        def work() -> None:
            try:
                action()
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        thread.join(DEADLINE_SECONDS)
        if thread.is_alive() or errors:
            reason = repr(errors[0]) if errors else f"no answer in {DEADLINE_SECONDS:.0f} s"
            log.warning("could not %s the logger (%s); going on without it", what, reason)
            self.inner = None


def build_logger(settings: LoggerSettings, *, run_config: Mapping[str, Any], default_dir: Path) -> SafeLogger | None:
    """The logger that a `logger` config names; it starts at once, or the run goes on without, with a warning."""
    if isinstance(settings, NoLogger):
        return None
    folder = settings.dir or default_dir
    if isinstance(settings, CsvLogger):
        log.info("metrics of this process go to %s", folder)
        return SafeLogger(lambda: _csv(folder), run_config)
    return SafeLogger(lambda: _wandb(settings, folder), run_config)


def log_outcome(
    settings: LoggerSettings,
    run_config: Mapping[str, Any],
    folder: Path,
    metrics: Mapping[str, float],
    tables: Mapping[str, "pd.DataFrame"],
    images: Mapping[str, Path],
) -> None:
    """Send the results of an evaluation to the logger that is on; a logger that fails stops nothing."""
    if logger := build_logger(settings, run_config=run_config, default_dir=folder):
        logger.log_metrics(metrics)
        logger.log_tables(tables)
        logger.log_images(images)
        logger.close(0)


def _csv(folder: Path) -> Logger:
    return CSVLogger(save_dir=folder.parent, name=folder.name, flush_logs_every_n_steps=1)


def _wandb(options: WandbLogger, folder: Path) -> Logger:
    import wandb  # noqa: PLC0415 - 0.8 s, for its users alone

    folder.mkdir(parents=True, exist_ok=True)
    mode = wandb_mode(options.mode)
    sync = f"; send it later with: wandb sync {folder}/wandb/offline-run-*" if mode == "offline" else ""
    log.info("W&B is %s, in %s%s", mode, folder, sync)
    if wandb.run is not None:  # a job before this one in the same process
        wandb.finish()
    run = wandb.init(
        project=options.project,
        entity=options.entity,
        group=options.group,
        tags=list(options.tags),
        name=options.run_name,
        dir=str(folder),
        mode=mode,
        settings=wandb.Settings(init_timeout=DEADLINE_SECONDS - 5, silent=True),
    )
    return LightningWandbLogger(experiment=run)


def wandb_mode(asked: Literal["auto", "online", "offline", "disabled"]) -> Literal["online", "offline", "disabled"]:
    """The mode for `mode: auto`: online where there is a key and a network, else offline (`wandb sync` later)."""
    if asked != "auto":
        return asked
    environment = os.environ.get("WANDB_MODE")
    if environment in ("online", "offline", "disabled"):
        return environment  # type: ignore[return-value]
    import wandb  # noqa: PLC0415 - as above

    if not (os.environ.get("WANDB_API_KEY") or wandb.api.api_key):
        return "offline"
    url = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai"))
    try:
        socket.create_connection((url.hostname or "", url.port or 443), timeout=3).close()
    except OSError:
        log.warning("W&B: %s cannot be reached; logging offline", url.hostname)
        return "offline"
    return "online"
