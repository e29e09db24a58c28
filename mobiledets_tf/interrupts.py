"""Ctrl-C and SIGTERM that wait for the end of a step."""

import signal
import threading
from types import TracebackType


class StopRequest:
    """Inside a `with`, the first SIGINT or SIGTERM only sets `requested`; the second one interrupts.

    The loop looks at `requested` after each step, saves and raises KeyboardInterrupt. Outside the
    main thread signals cannot be caught; then nothing changes.
    """

    def __init__(self):
        self.requested = False
        self._before: dict[int, object] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
