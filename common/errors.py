"""Mistakes of the user: one line that names the thing and the remedy, exit code 2."""

import errno
import sys
from collections.abc import Callable


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
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        where = f" at {error.filename}" if error.filename else ""
        print(f"error: no space left on the disk{where}; free some and run the same command again", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
