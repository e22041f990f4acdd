"""Many runs in one go: which they are and what they take (``grid``, ``pace``), several
at a time (``pool``), and what became of them (``report``).
"""

import os
import signal
import threading
import time

PARENT = "FGBOOK_PARENT"
"""Variable by which a process is told the number of the one that it shall end with."""


def end_with(parent: int, request: signal.Signals = signal.SIGTERM) -> None:
    """Send this process the request to end once the process `parent`, which started
    it, is no more, however that ended.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os.kill(os.getpid(), request)

    threading.Thread(target=watch, daemon=True).start()
