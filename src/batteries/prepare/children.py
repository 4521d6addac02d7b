"""Children: processes that end with the main process, and leave its signals to it.

In:    nothing.
Out:   `obey_main`, called at the beginning of a process.
Next:  the decoding of images and the workers of loaders begin with it.
"""

from __future__ import annotations

import os
import signal
import threading
from multiprocessing.process import parent_process


def obey_main() -> None:
    """Leave Ctrl-C and SIGTERM to the main process, and end when it does, however it ended."""
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, signal.SIG_IGN)
    threading.Thread(target=_end_with_main, daemon=True).start()


def _end_with_main() -> None:
    # PyTorch's own watch sees nothing in a sample that hangs, nor if the main process is killed before it begins
    main = parent_process()
    assert main is not None
    main.join()
    os._exit(1)
