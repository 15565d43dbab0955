"""Work on a thread of its own, by a short queue, and copies from the device that run beside the next forward.

Tasks are done one after another in the order given. The queue is bounded, so a slow disk holds the computation up and
never fills the memory; an error of a task is raised where the next one is handed over, or at the end.
"""

import queue
import threading
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

CAPACITY = 2
"""Tasks that wait; with the one being done and the one being made, four blocks of rows at most are in memory."""

Task = Callable[[], None]
HostArray = Callable[[], np.ndarray]
"""An array that is on its way to the host; calling it waits until it is there."""


class Background:
    """A thread that runs tasks in order, and none after one that raised."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._tasks: queue.Queue[Task | None] = queue.Queue(capacity)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="plmjac-writer", daemon=True)
        self._thread.start()

    def submit(self, task: Task) -> None:
        """Hand a task over; waits while the queue is full. Raises what an earlier task raised."""
        self._raise()
        self._tasks.put(task)

    def close(self) -> None:
        """Wait until everything is done and end the thread. Raises what a task raised."""
        if self._thread.is_alive():
            self._tasks.put(None)
            self._thread.join()
        self._raise()

    def give_up(self, seconds: float) -> None:
        """End the thread after at most so many seconds; raises nothing, for there is an error already."""
        deadline = time.monotonic() + seconds
        try:
            self._tasks.put(None, timeout=seconds)
        except queue.Full:
            return
        self._thread.join(max(0.0, deadline - time.monotonic()))

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            if self._error is None:
                try:
                    task()
                except BaseException as error:
                    self._error = error

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error


def to_host(tensor: Tensor) -> HostArray:
    """Begin to copy a tensor to the host; on a GPU into pinned memory, on a stream of its own, beside the next forward.

    The tensor must not be written to any more. What comes back may be called from another thread.
    """
    if tensor.device.type != "cuda":
        array = tensor.numpy()
        return lambda: array
    device = tensor.device
    stream = _copy_stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        host.copy_(tensor, non_blocking=True)
        tensor.record_stream(stream)  # its memory is not given to another tensor before the copy is done
        arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
        arrived.record(stream)

    def wait() -> np.ndarray:
        with torch.cuda.device(device):  # or every rank's writing thread would open a context on the first GPU
            arrived.synchronize()
        return host.numpy()

    return wait


_streams: dict[torch.device, torch.cuda.Stream] = {}


def _copy_stream(device: torch.device) -> torch.cuda.Stream:
    if device not in _streams:
        _streams[device] = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    return _streams[device]
