"""A guest's serial console: everything it wrote, kept whole, and waits that end at a deadline."""

import os
import re
import threading
import time

PANIC = "Kernel panic - not syncing"
TAIL_LINES = 30
GATHER_SECONDS = 0.005  # a guest writes byte by byte; do not look at each


class Console:
    """Reads one descriptor on a thread of its own until it ends; may be used from any thread."""

    def __init__(self, output, input):
        self._output = output
        self._input = input
        self._written = bytearray()
        self._changed = threading.Condition()
        self._ended = False
        self._reader = threading.Thread(target=self._read, name="guest console", daemon=True)

    def start(self):
        self._reader.start()

    @property
    def ended(self):
        return self._ended

    @property
    def panicked(self):
        return PANIC in self.text

    @property
    def position(self):
        """Where the next byte will be: pass it as `since` to skip all that is there now."""
        with self._changed:
            return len(self._written)

    def raw(self, since=0):
        with self._changed:
            return bytes(self._written[since:])

    @property
    def text(self):
        return self.text_since(0)

    def text_since(self, position):
        return self.raw(position).decode(errors="replace").replace("\r\n", "\n")

    def tail(self, lines=TAIL_LINES):
        return "\n".join("  | " + line.rstrip("\r") for line in self.text.splitlines()[-lines:]) or "  | (nothing)"

    def wait(self, condition, deadline):
        """Waits until condition() gives something true, and returns that.

        Returns None at the deadline (time.monotonic), or when the console has ended and nothing can change any more.
        """
        while True:
            ended, seen = self._ended, self.position  # taken before looking, so that nothing written later is missed
            found = condition()
            left = deadline - time.monotonic()
            if found or ended or left <= 0:
                return found or None
            with self._changed:
                self._changed.wait_for(lambda: self._ended or len(self._written) != seen, left)
            time.sleep(GATHER_SECONDS)

    def search(self, pattern, since=0):
        """`pattern` is plain text, or a compiled regular expression over text. Gives a match object or None."""
        if isinstance(pattern, str):
            pattern = re.compile(re.escape(pattern))
        return pattern.search(self.text_since(since))

    def send(self, data):
        """Writes to the guest's console. May raise BrokenPipeError once the guest has ended."""
        while data:
            data = data[os.write(self._input, data) :]

    def close(self):
        """After the guest has ended, and with it the other end of the pipes."""
        os.close(self._input)
        if self._reader.ident is not None:
            self._reader.join()
        os.close(self._output)

    def _read(self):
        while chunk := os.read(self._output, 65536):
            with self._changed:
                self._written += chunk
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()
