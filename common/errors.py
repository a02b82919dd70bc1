"""Mistakes of the user: one line that names the thing and the remedy, exit code 2."""

import errno
import os
import re
import sys
from collections.abc import Callable

# What safetensors, numpy and torch say when a disk is full; none of them keeps the system's error number.
_WRITTEN_IN_PART = re.compile(
    r"No space left on device|\d+ requested and \d+ written|PytorchStreamWriter failed|unexpected pos \d+ vs \d+"
)


class UserError(Exception):
    """Something the user can mend. The message is one line: what was found, what was expected, what to do."""


def run_script(main: Callable[[], None]) -> None:
    """Call `main`; print a UserError as one line on stderr and exit with 2. Other exceptions are bugs: they pass.

    A full disk is the user's to mend too, wherever it is met: files that were being written are gone, the rest stays.
    """
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # `--help | head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the flush at exit fails once more
        sys.exit(141)
    except Exception as error:
        if not is_disk_full(error):
            raise
        where = f" at {error.filename}" if getattr(error, "filename", None) else ""
        print(f"error: no space left on the disk{where}; free some and run the same command again", file=sys.stderr)
        sys.exit(2)


def is_disk_full(error: Exception) -> bool:
    """Whether an exception says that a disk, or the user's quota of it, is full."""
    number = error.errno if isinstance(error, OSError) else None
    return number in (errno.ENOSPC, errno.EDQUOT) or (number is None and bool(_WRITTEN_IN_PART.search(str(error))))
