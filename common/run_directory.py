"""The directory of a run that ends as a model directory: whose it is, and how its end takes the place of its beginning.

While a run trains, its directory holds started.json (what the run is), its logs and its checkpoints. Its end replaces
the whole directory in one rename, so a finished one, known by its run.json, is all there or not there.
"""

import os
import re
import shutil
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.files import locked_directory, read_json, write_json

STARTED = "started.json"
PARTIAL = re.compile(r"\..*\.partial")  # what a killed process was writing


def check_not_the_parent(output_dir: Path, model_path: Path) -> None:
    """Raise UserError when a run would write over the model that it starts from."""
    if output_dir.resolve() == model_path.resolve():
        raise UserError(f"--output-dir {output_dir} is the model to start from; choose another")


def open_run_directory(
    output_dir: Path, identity: dict[str, Any], *, unfinished: bool, resume: bool, force: bool
) -> None:
    """Make `output_dir` ready for a run of this `identity` (JSON values), new or resumed.

    unfinished: whether it holds a checkpoint to resume from. Raises UserError when it holds a finished run, another
    run's checkpoints, files that no run wrote, or checkpoints while `resume` is off. With `force`, a run that is
    there, finished or not, is deleted.
    """
    if output_dir.exists() and not output_dir.is_dir():
        raise UserError(f"--output-dir {output_dir} is a file; choose a directory")
    is_run = (output_dir / STARTED).exists() or (output_dir / "run.json").exists()
    if output_dir.exists() and not is_run and any(not PARTIAL.fullmatch(path.name) for path in output_dir.iterdir()):
        raise UserError(f"--output-dir {output_dir} holds files that no run wrote; choose another")
    if is_run and force:
        with locked_directory(output_dir):  # not under a run that is writing there
            aside = output_dir.with_name(f".{output_dir.name}.{os.getpid()}.old")
            os.replace(output_dir, aside)  # in one step: killed halfway, a deletion leaves what looks like no run's
            shutil.rmtree(aside)
    elif (output_dir / "run.json").exists():
        raise UserError(f"{output_dir} already holds a finished run; choose another or pass --force")
    elif unfinished:
        _check_same_run(output_dir, identity)
        if not resume:
            raise UserError(f"{output_dir} holds an unfinished run; pass --resume to go on or --force to start anew")
    output_dir.mkdir(parents=True, exist_ok=True)
    write_json(output_dir / STARTED, identity)


def _check_same_run(output_dir: Path, identity: dict[str, Any]) -> None:
    before = read_json(output_dir / STARTED)
    for key in dict.fromkeys([*before, *identity]):
        if before.get(key) != identity.get(key):
            raise UserError(
                f"{output_dir} holds an unfinished run with {key} {before.get(key)}, this one has "
                f"{identity.get(key)}; choose another directory or pass --force"
            )
