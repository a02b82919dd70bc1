"""Fetch models from the Hugging Face hub into outputs/, each checked against the hub's hashes before it appears.

    uv run python scripts/load_from_hf.py --list
    uv run python scripts/load_from_hf.py --all
    uv run python scripts/load_from_hf.py --models hf_baseline_10b sft_tulu_baseline
    uv run python scripts/load_from_hf.py --models mul_tokens --include-checkpoints

--models takes names of scripts/configs/models.yaml and groups: a condition (baseline, mul_tokens) or a stage
(pretrained). A model is downloaded beside its directory, compared file by file, loaded, and renamed; a killed download
leaves no model, and the same command goes on with the files that are whole. checkpoint-* folders are left out unless
--include-checkpoints. A directory that differs from the hub is only replaced with --force.
"""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import hf_hub_download

from common.config import parse_config
from common.errors import UserError, run_script
from common.files import atomic_directory, locked_directory
from pretrain.hf_weights import load_model_dir
from scripts.hub import (
    HubModel,
    RemoteFile,
    RemoteModel,
    find_differences,
    find_remote,
    format_size,
    hub_errors,
    is_in_checkpoint,
    read_registry,
    select_models,
)
from scripts.tokenizer_files import load_tokenizer, special_facts


@dataclass
class LoadConfig:
    """Fetch models from the Hugging Face hub."""

    list: bool = False  # show the models, and what of them is here and on the hub
    all: bool = False  # fetch every model of the registry that is on the hub
    models: tuple[str, ...] = ()  # names and groups (pretrained, baseline, mul_tokens) to fetch
    include_checkpoints: bool = False  # fetch the checkpoint-* folders too
    force: bool = False  # replace directories that differ from the hub
    output_dir: Path = Path("outputs")  # where the directories go
    registry: Path = Path("scripts/configs/models.yaml")  # which models there are


def main() -> None:
    config = parse_config(LoadConfig)
    models = read_registry(config.registry)
    if sum((config.list, config.all, bool(config.models))) != 1:
        raise UserError("give one of --list, --all and --models NAME ...; --list shows the names")
    if config.list:
        print_models(models, config.output_dir)
        return
    chosen = models if config.all else select_models(models, list(config.models))
    absent = []
    for model in chosen:
        remote = find_remote(model.repo)
        if remote is None:
            print(f"{model.name}: {model.repo} is not on the hub, or private and your token may not see it")
            absent.append(model.repo)
        else:
            print(f"{model.name}: {fetch(model, remote, config)}", flush=True)
    if absent and not (config.all and len(absent) < len(chosen)):
        raise UserError(f"not found on the hub: {', '.join(absent)}; check the names in {config.registry}")


def print_models(models: list[HubModel], output_dir: Path) -> None:
    """One line per model: where it is. The hub is asked until it does not answer."""
    reachable = True
    for model in models:
        on_hub = "hub not reachable"
        if reachable:
            try:
                remote = find_remote(model.repo)
            except UserError as error:
                print(f"note: {error}")
                reachable = False
            else:
                size = sum(f.size for f in remote.files if not is_in_checkpoint(f.path)) if remote else 0
                on_hub = format_size(size) if remote else "not on the hub"
        here = output_dir / model.name
        local = str(here) if (here / "config.json").is_file() else "not here"
        print(f"{model.name:<22} {model.condition:<11} {model.stage:<11} {on_hub:<18} {local:<34} {model.repo}")


def fetch(model: HubModel, remote: RemoteModel, config: LoadConfig) -> str:
    """Bring `output_dir`/name to what the hub has, and say what was done. On a UserError it is as it was."""
    path = config.output_dir / model.name
    files = [file for file in remote.files if config.include_checkpoints or not is_in_checkpoint(file.path)]
    here = path.is_dir() and any(path.iterdir())
    differences = find_differences(path, files) if here else {}
    if here and not differences:
        return f"{path} is what the hub has (commit {remote.commit[:12]})"
    # A model that only lacks checkpoints gets those; its own files stay untouched.
    only_missing = here and all(p == "missing" and is_in_checkpoint(name) for name, p in differences.items())
    if here and not only_missing and not config.force:
        name, problem = next(iter(differences.items()))
        raise UserError(
            f"{path} is not what the hub has ({name}: {problem}); --force replaces the whole directory, "
            "or give another --output-dir"
        )
    wanted = [file for file in files if file.path in differences] if only_missing else files
    partial = path.with_name(f".{path.name}.download")
    partial.mkdir(parents=True, exist_ok=True)
    with locked_directory(partial):
        download(model.repo, remote.commit, wanted, partial)
        if only_missing:
            for folder in dict.fromkeys(Path(file.path).parts[0] for file in wanted):
                add_folder(partial / folder, path / folder)
        else:
            load_model_dir(partial)
            with atomic_directory(path) as fresh:
                for file in wanted:
                    (fresh / file.path).parent.mkdir(parents=True, exist_ok=True)
                    os.replace(partial / file.path, fresh / file.path)
        shutil.rmtree(partial)
    done = f"{path}: {len(wanted)} files, {format_size(sum(file.size for file in wanted))}, hashes equal the hub's"
    return f"{done} (commit {remote.commit[:12]}){tokenizer_note(path)}"


def download(repo: str, commit: str, files: list[RemoteFile], partial: Path) -> None:
    """Download `files` into `partial`, or keep those that an earlier try left whole. UserError if one is wrong."""
    for file in files:
        if not find_differences(partial, [file]):
            continue
        (partial / file.path).unlink(missing_ok=True)
        with hub_errors(f"{repo}: {file.path}"):
            hf_hub_download(repo, file.path, revision=commit, local_dir=partial)
        shutil.rmtree(partial / ".cache", ignore_errors=True)  # the client's notes, and what a killed one left
        problem = find_differences(partial, [file])
        if problem:
            (partial / file.path).unlink()
            raise UserError(f"{repo}: {file.path} came with {problem[file.path]}; run the same command again")


def add_folder(source: Path, target: Path) -> None:
    """Move what `source` has into `target`, by one rename where there is nothing yet."""
    if not target.exists():
        os.replace(source, target)
        return
    for file in sorted(file for file in source.rglob("*") if file.is_file()):
        (target / file.relative_to(source)).parent.mkdir(parents=True, exist_ok=True)
        os.replace(file, target / file.relative_to(source))


def tokenizer_note(path: Path) -> str:
    """What is wrong with the tokenizer of a model that came from the hub, as a line to print; "" if nothing is."""
    tokenizer = load_tokenizer(path)
    if tokenizer is not None and not special_facts(tokenizer):
        return ""
    problem = "it has no tokenizer that loads" if tokenizer is None else "its mul tokens are marked special"
    return f"\nnote: {problem}; scripts/fix_tokenizers.py --model-path {path} repairs that"


if __name__ == "__main__":
    run_script(main)
