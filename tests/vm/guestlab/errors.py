"""What can go wrong, by who has to act on it."""


class SetUpError(Exception):
    """This machine lacks something that guests need. The text says what, and what to do about it, in one line."""


class GuestError(Exception):
    """A guest did not do what the test expected. With has_console, the text ends with its console's last lines."""

    has_console = False


class GuestTimeout(GuestError):
    """Something awaited did not happen before its deadline."""


class GuestEnded(GuestError):
    """QEMU ended while the test still wanted something of the guest."""


class GuestPanicked(GuestError):
    """The guest's kernel panicked."""


class CommandFailed(GuestError):
    """A command in the guest ended with another status than 0. Has `result`."""

    def __init__(self, message, result):
        super().__init__(message)
        self.result = result
