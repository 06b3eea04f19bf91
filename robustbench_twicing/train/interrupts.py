"""Ctrl-C between two updates: never in the middle of one, when half of the weights are new."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

Asked = Callable[[], bool]
"""Whether Ctrl-C was pressed."""


@contextmanager
def asked_to_stop() -> Iterator[Asked]:
    """Within, the first Ctrl-C is noted, for the next moment between two updates; a second one interrupts at once.

    Python lets the main thread alone set handlers; in another thread nothing is set, and nothing is noted.
    """
    pressed = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield pressed.is_set
        return
    before = signal.getsignal(signal.SIGINT)

    def note(number: int, frame: FrameType | None) -> None:
        if pressed.is_set():
            raise KeyboardInterrupt
        pressed.set()

    signal.signal(signal.SIGINT, note)
    try:
        yield pressed.is_set
    finally:
        signal.signal(signal.SIGINT, before if before is not None else signal.default_int_handler)
