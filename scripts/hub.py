"""Models on the Hugging Face hub: the registry, what a repository holds, and the hub's errors in one line.

Nothing here or in its users reads the token but huggingface_hub, which sends it to the hub and nowhere else.
"""

import contextlib
import difflib
import fnmatch
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from huggingface_hub import HfApi, constants
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from huggingface_hub.utils import sha as git_sha

from common.config import config_from_yaml
from common.errors import UserError, is_disk_full
from common.files import sha256_file
from data.item_files import HUB_TIMEOUT_SECONDS
from tokenizer.mul_facts import Condition

CHECKPOINTS = "checkpoint-*"  # folders that the HF Trainer leaves in a model directory, gigabytes each


@dataclass
class HubModel:
    """A model of the registry. `name` is that of its directory."""

    name: str
    repo: str
    condition: Condition
    stage: str


@dataclass
class Registry:
    """The content of a registry file."""

    models: list[HubModel]


class RemoteFile(NamedTuple):
    """A file of a repository. Large ones have the sha256 of their content, the others git's hash of it."""

    path: str
    size: int
    sha256: str | None
    git_hash: str | None


class RemoteModel(NamedTuple):
    """A repository at its newest commit."""

    commit: str
    files: list[RemoteFile]


def read_registry(path: Path) -> list[HubModel]:
    """The models of a registry file. Raises UserError for a malformed one, or a name given twice."""
    models = config_from_yaml(Registry, path).models
    names = [model.name for model in models]
    for name in names:
        if names.count(name) > 1 or not re.fullmatch(r"\w[\w.-]*", name):
            raise UserError(
                f"{path}: {name!r} is not a directory's name, or not the name of one model only; mend it there"
            )
    return models


def select_models(models: list[HubModel], wanted: list[str]) -> list[HubModel]:
    """The models that `wanted` names: by name, condition or stage. Raises UserError for what is none of these."""
    known = {value for model in models for value in (model.name, model.condition, model.stage)}
    for name in wanted:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
            raise UserError(f"--models {name} is no model and no group; the nearest is {near}, --list shows all")
    return [model for model in models if {model.name, model.condition, model.stage} & set(wanted)]


def check_repo_name(name: str) -> None:
    """Raise UserError unless `name` is owner/name in the characters that the hub takes."""
    part = r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?"
    if not re.fullmatch(f"{part}/{part}", name) or "--" in name or ".." in name or len(name) > 96:
        raise UserError(f"{name} is no repository on the hub; expected owner/name of letters, digits, '-', '_', '.'")


def is_in_checkpoint(path: Path | str) -> bool:
    """Whether a path relative to a model directory lies in a checkpoint-* folder."""
    return fnmatch.fnmatch(Path(path).parts[0], CHECKPOINTS) and len(Path(path).parts) > 1


def find_remote(repo: str) -> RemoteModel | None:
    """What `repo` holds; None when the hub shows no such repository. Without network, a UserError within seconds."""
    with hub_errors(repo):
        try:
            info = HfApi().model_info(repo, files_metadata=True, timeout=HUB_TIMEOUT_SECONDS)
        except GatedRepoError:
            raise
        except RepositoryNotFoundError:  # also when it is private and the token is not one that may see it
            return None
    files = [RemoteFile(s.rfilename, s.size, s.lfs.sha256 if s.lfs else None, s.blob_id) for s in info.siblings or []]
    return RemoteModel(info.sha, [file for file in files if not file.path.startswith(".")])


def find_differences(directory: Path, files: list[RemoteFile]) -> dict[str, str]:
    """Path to what is wrong with it, for each of `files` that `directory` lacks or has with another content."""
    return {file.path: problem for file in files if (problem := _difference(directory / file.path, file))}


def format_size(size: int) -> str:
    """Bytes as people read them: 497.8 MiB."""
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"


@contextlib.contextmanager
def hub_errors(subject: str) -> Iterator[None]:
    """Turn what the hub's client raises inside into a UserError about `subject`: one line, with what to do."""
    try:
        yield
    except OfflineModeIsEnabled:
        raise UserError(f"{subject}: HF_HUB_OFFLINE is set; unset it to use the hub") from None
    except (GatedRepoError, RepositoryNotFoundError):
        raise UserError(
            f"{subject}: no such repository on the hub, or one that your token may not see; check the name, "
            "`hf auth login`"
        ) from None
    except HfHubHTTPError as error:
        raise UserError(f"{subject}: {_refusal(error)}") from None
    except Exception as error:  # no network, a transfer that broke off, an answer that is none: many kinds
        if is_disk_full(error):
            raise
        cause = error.__cause__ or error
        reason = " ".join(str(cause).split()[:40]) or "no message"
        raise UserError(
            f"{subject}: {constants.ENDPOINT} gave no usable answer ({type(cause).__name__}: {reason}); "
            "check the network and run the same command again"
        ) from None


def _refusal(error: HfHubHTTPError) -> str:
    status = error.response.status_code
    if status == 401:
        return "the hub does not accept your token; run `hf auth login` or set HF_TOKEN to a valid one"
    if status == 403:
        return "your token may not do this; it needs the right to write to that owner's repositories"
    if status == 429:
        return "the hub asks to slow down; run the same command again in some minutes"
    reason = error.server_message or error.response.reason_phrase
    return f"the hub answered {status} ({' '.join(str(reason).split())}); run the same command again later"


def _difference(path: Path, file: RemoteFile) -> str | None:
    if not path.is_file():
        return "missing"
    if path.stat().st_size != file.size:
        return f"{path.stat().st_size:,} bytes, not {file.size:,}"
    if file.sha256 is not None:
        return None if sha256_file(path) == file.sha256 else "another sha256"
    if file.git_hash is not None and git_sha.git_hash(path.read_bytes()) != file.git_hash:
        return "another content"
    return None
