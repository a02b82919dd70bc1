"""Mistakes of the user: one line that names the thing and the remedy, exit code 2."""

import sys
from collections.abc import Callable


class UserError(Exception):
    """Something the user can mend. The message is one line: what was found, what was expected, what to do."""


def run_script(main: Callable[[], None]) -> None:
    """Call `main`; print a UserError as one line on stderr and exit with 2. Other exceptions are bugs: they pass."""
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
