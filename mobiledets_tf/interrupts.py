"""Defers Ctrl-C and SIGTERM until the current step has finished."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class StopRequest:
    """A context manager in which the first SIGINT or SIGTERM only sets `requested`.

    A second signal raises KeyboardInterrupt at once. The loop inside the block is expected to check
    `requested` after each step and, if it is set, to save its state and raise KeyboardInterrupt. Python
    handles signals in the main thread only; in any other thread this class has no effect.

    Attributes:
      requested: whether a stop was requested.
    """

    def __init__(self) -> None:
        self.requested = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                # None stands for a handler of a native library, which Python could not put back.
                if signal.getsignal(number) is not None:
                    self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
