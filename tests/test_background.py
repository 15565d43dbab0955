"""The thread that writes, and the search for a batch size, without a model or a disk that could hide their faults."""

import json
import threading
import time
from pathlib import Path

import pytest
import torch

from plmjac.inference import batch_size
from plmjac.inference.background import Background, to_host
from plmjac.models import load_model, size_of


def test_tasks_are_done_in_order_and_all_of_them() -> None:
    done: list[int] = []
    background = Background(capacity=1)
    for number in range(50):
        background.submit(lambda number=number: done.append(number))  # type: ignore[misc]
    background.close()
    assert done == list(range(50))
    background.close()  # twice does no harm


def test_a_slow_disk_holds_the_computation_up() -> None:
    gate, handed_over = threading.Event(), []
    background = Background(capacity=2)

    def hand_over() -> None:
        for number in range(6):
            background.submit(gate.wait)
            handed_over.append(number)

    thread = threading.Thread(target=hand_over, daemon=True)
    thread.start()
    time.sleep(0.3)
    assert len(handed_over) <= 3  # one being done, two waiting
    gate.set()
    thread.join(5)
    background.close()
    assert len(handed_over) == 6


def test_an_error_of_a_task_is_raised_and_nothing_is_done_after_it() -> None:
    done: list[str] = []

    def full() -> None:
        raise OSError(28, "No space left on device")

    background = Background()
    background.submit(full)
    with pytest.raises(OSError, match="No space left"):
        for _ in range(100):
            background.submit(lambda: done.append("after"))
            time.sleep(0.01)
    with pytest.raises(OSError, match="No space left"):
        background.close()
    assert not done
    background.give_up(1.0)  # raises nothing


def test_giving_up_finishes_what_time_allows() -> None:
    done: list[int] = []
    quick = Background()
    for number in range(2):
        quick.submit(lambda number=number: done.append(number))  # type: ignore[misc]
    quick.give_up(5.0)
    assert done == [0, 1]
    stuck, gate = Background(capacity=1), threading.Event()
    stuck.submit(lambda: gate.wait() and None)
    began = time.monotonic()
    stuck.give_up(0.2)
    assert time.monotonic() - began < 2.0
    gate.set()


def test_a_copy_to_the_host_is_the_tensor() -> None:
    values = torch.arange(12, dtype=torch.float32).view(3, 4)
    assert torch.equal(torch.from_numpy(to_host(values)()), values)


def test_the_smallest_of_the_fastest_sizes_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds_per_forward = {2: 1.0, 4: 1.5, 8: 3.0, 16: 5.9, 32: 13.0}  # by sequences: best from 16, 4 and 8 near it

    def timed(forward: object) -> float:
        return seconds_per_forward[forward()]  # type: ignore[operator]

    monkeypatch.setattr(batch_size, "_seconds", timed)
    sizes = (512, 1024, 2048, 4096, 8192)
    assert batch_size.fastest(len, sizes, 1000.0) == 1024  # type: ignore[arg-type]
    monkeypatch.setattr(batch_size, "TOLERANCE", 0.005)
    assert batch_size.fastest(len, sizes, 1000.0) == 4096  # type: ignore[arg-type]
    assert batch_size.fastest(len, sizes, 0.0) == 512  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "gigabytes", "tokens"),
    [("esm2_650m", 80, 131072), ("esm2_650m", 6, 65536), ("esm2_3b", 16, 65536), ("esm2_15b", 24, 4096)],
)
def test_on_a_gpu_the_largest_forward_that_fits_is_taken(name: str, gigabytes: int, tokens: int) -> None:
    size = size_of(name, kind="cuda", precision="fp16")
    assert batch_size.largest_that_fits(size, gigabytes * 10**9) == tokens
    if tokens > 4096:
        assert size.weights + size.of_logits(tokens // 256, 254) < 0.7e9 * gigabytes


def test_a_batch_size_is_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLMJAC_CACHE", str(tmp_path / "cache"))
    model, measured = load_model("tiny"), []
    monkeypatch.setattr(batch_size, "fastest", lambda *_: measured.append(1) or 1234)
    assert [batch_size.max_tokens_for(model, "fast", "cpu", 1) for _ in range(2)] == [1234, 1234] and len(measured) == 1
    assert batch_size.max_tokens_for(model, "plain", "cpu", 1) == 1234 and len(measured) == 2
    assert batch_size.max_tokens_for(load_model("debug"), "fast", "cpu", 1) == 4096 and len(measured) == 2
    path = tmp_path / "cache/max_tokens.json"
    assert set(json.loads(path.read_text()).values()) == {1234}
    path.write_text("{not json")
    assert batch_size.max_tokens_for(model, "fast", "cpu", 1) == 1234 and len(measured) == 3
    path.write_text('["a list"]')
    assert batch_size.max_tokens_for(model, "fast", "cpu", 1) == 1234 and len(measured) == 4
