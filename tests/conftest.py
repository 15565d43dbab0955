"""Fixtures of many tests: a debug model, small inputs, and predict runs in this process or in one of their own."""

import atexit
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from support import composed, signals_kept

from plmjac.models import LanguageModel, load_model

torch.set_num_threads(1)

if "PLMJAC_TEST_WEIGHTS" not in os.environ:
    # A cache for each process of tests: batch sizes that one measures, or a user measured, are not another's.
    os.environ["PLMJAC_CACHE"] = tempfile.mkdtemp(prefix="plmjac-tests-")
    atexit.register(shutil.rmtree, os.environ["PLMJAC_CACHE"], ignore_errors=True)


SLOW_FOLDERS = ("evaluation", "coevolution", "models", "faults", "slurm")
SLOW_FILES = (
    "test_resume", "test_train_tiny", "test_benchmark", "test_approximation_ways", "test_report", "test_sweep",
    "test_loggers", "test_memory", "test_recovery", "test_commands", "test_readme", "test_substitutions",
    "test_interruption", "test_windows", "test_faults", "test_placement", "test_start", "test_compiling", "test_shards",
    "test_sharing", "test_at_hand", "test_part_of_protein", "test_reproduce_paper", "test_couplings_kept", "test_int8",
    "test_lock", "test_surface", "test_gpu_check", "test_notebook", "test_saved_rows", "test_chains",
)  # fmt: skip
SLOW_TESTS = (
    "test_the_installed_wheel_works", "test_help_teaches", "test_compressed_input_from_the_command_line",
    "test_help_and_mistakes_are_answered", "test_every_chain_of_real_structures", "test_a_folder_that_is_gone",
    "test_a_single_process_with_stale_variables", "test_intervals_cover_the_mean",
    "test_the_8m_architecture_equals_the_plain_loop", "test_batches_do_not_change_the_numbers",
    "test_repair_and_the_same_commands", "test_many_records_of_one_name", "test_the_seed_decides",
    "test_a_sentence_names_what_was_given", "test_without_a_home_the_cache", "test_a_reader_who_has_seen_enough",
    "test_two_chains_of_a_large_assembly", "test_4uv3", "test_debug_equals_the_plain_loop", "test_a_multirun_runs",
    "test_a_command_is_its_module", "test_threads_asked_for_on_resuming", "test_counts_of_the_paper",
    "test_the_real_set",
)  # fmt: skip
"""Left out by `make test-quick`: whole runs, processes of their own, training. Everything else is quick."""


def is_slow(path: Path) -> bool:
    """True for a file of tests that are all slow."""
    return path.parent.name in SLOW_FOLDERS or path.stem in SLOW_FILES


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Files of slow tests are not even imported by `make test-quick`: that takes seconds in each process."""
    return True if config.option.markexpr == "not slow" and is_slow(collection_path) else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as slow what is listed above."""
    for item in items:
        if is_slow(item.path) or item.name.startswith(SLOW_TESTS):
            item.add_marker(pytest.mark.slow)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Keep what a test printed sendable between processes: names of files may be no UTF-8."""
    report = yield
    report.sections = [(name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections]
    return report


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """One line on tests that were skipped because data outside the checkout are absent."""
    skipped = [str(report.longrepr) for report in terminalreporter.stats.get("skipped", [])]
    absent = sum("not here" in reason or "../shared" in reason for reason in skipped)
    if absent:
        terminalreporter.write_line(
            f"{absent} tests were skipped because they need data outside the checkout (../shared/data: structures, "
            "alignments, the authors' lists); what they test is also tested on data made in the tests"
        )


@pytest.fixture(autouse=True)
def close_figures() -> Iterator[None]:
    """Close what a test drew and did not save: matplotlib warns of more than twenty, which is an error here."""
    yield
    if (pyplot := sys.modules.get("matplotlib.pyplot")) is not None:
        pyplot.close("all")


@pytest.fixture(scope="session")
def debug_model() -> LanguageModel:
    """Two layers of random weights."""
    return load_model("debug")


@pytest.fixture
def keep_signals() -> Iterator[None]:
    """Give the signals back to pytest after a run in this process has taken them."""
    with signals_kept():
        yield


@pytest.fixture
def fasta(tmp_path: Path) -> Path:
    """Five proteins of different lengths, one of them twice."""
    path = tmp_path / "five.fasta"
    records = {
        "a first": "MKTAYIAKQRQISFVKSH",
        "b": "GSHMLEDPVDAFKLAAQWERTY",
        "c": "MKV",
        "copy_of_a": "",
        "d": "ACDEFGHIKLM",
    }
    records["copy_of_a"] = records["a first"]
    path.write_text("".join(f">{name}\n{sequence}\n" for name, sequence in records.items()))
    return path


@pytest.fixture
def predict(keep_signals: None) -> Callable[..., int]:
    """`predict(*overrides)` in this process; returns the exit code, or raises what the command line would report."""
    from plmjac.predict import predict as run

    return lambda *overrides: run(composed("predict", *overrides))
