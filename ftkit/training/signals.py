"""Hold back a signal until a moment at which stopping is safe."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def defer_signals(*signals: signal.Signals) -> Iterator[list[int]]:
    """Note signals in a list in place of obeying them; a second one of a kind is obeyed at once.

    Python delivers signals to the main thread only; in another thread nothing is held.

    Examples
    --------
    >>> with defer_signals(signal.SIGTERM) as received:
    ...     signal.raise_signal(signal.SIGTERM)
    ...     received == [signal.SIGTERM]
    True
    """
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    before = {number: signal.getsignal(number) for number in signals}

    def note(number: int, frame: FrameType | None) -> None:
        if number in received:
            signal.signal(number, before[signal.Signals(number)])
            signal.raise_signal(number)
        received.append(number)

    for number in signals:
        signal.signal(number, note)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def defer_interrupt() -> Iterator[None]:
    """Let Ctrl-C wait until the block is done."""
    with defer_signals(signal.SIGINT) as received:
        yield
    if received:
        signal.raise_signal(signal.SIGINT)
