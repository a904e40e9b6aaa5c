"""What every long-running process without an HTTP server needs: to be asked to stop, and to stop in order."""

import ctypes
import resource
import signal
import threading


def stop_event() -> threading.Event:
    """An event that SIGTERM and SIGINT set. Call it from the main thread of a `main.py`."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop


def allow_open_files() -> None:
    """Raise the limit of open files to what the system allows: each connection is one, and many shells allow 1024."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def give_back_memory() -> None:
    """Give memory that was freed back to the system: glibc keeps some of it for every thread there ever was."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
