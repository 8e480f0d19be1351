"""The real agent with a device that nobody has: one that brings thousands of rows at once.

    python -m tests.feeding CONFIG ROWS

Everything but the source is the agent's own: its queue, its core, its commits, its uplink.
"""

import sys
import threading
from pathlib import Path

from agent.model import Note
from agent.pushing.inforce import begin
from agent.service import Service


def main() -> None:
    """Run until somebody ends it."""
    service, rows = Service(begin(Path(sys.argv[1]))), int(sys.argv[2])

    def feed() -> None:
        for number in range(rows):
            service._queue.put(Note("thread", {"name": f"row {number}", "error": "none"}))

    threading.Thread(target=feed, daemon=True).start()
    service.run()


if __name__ == "__main__":
    main()
