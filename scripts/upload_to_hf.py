"""Send model directories to the Hugging Face hub, each to a repository, with a model card made from its records.

    uv run python scripts/upload_to_hf.py --model-path outputs/sft_tulu_baseline \
        --repo-name OWNER/domain-token-gpt2-sft-tulu-baseline --dry-run
    uv run python scripts/upload_to_hf.py --model-path outputs/hf_baseline_10b outputs/hf_mul_tokens_10b \
        --repo-name OWNER/domain-token-gpt2-baseline-10b OWNER/domain-token-gpt2-mul-tokens-10b

--dry-run shows the files and the card and sends nothing. A repository that is not there is made. Each upload is one
commit: the repository has the old model or the new one. checkpoint-* folders stay here unless --include-checkpoints.
The token is that of `hf auth login` or HF_TOKEN. scripts/configs/models.yaml lists what load_from_hf.py can fetch.
"""

from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants, get_token

from common.config import parse_config
from common.errors import UserError, run_script
from pretrain.hf_weights import load_model_dir
from scripts.hub import (
    RemoteModel,
    check_repo_name,
    find_differences,
    find_remote,
    format_size,
    hub_errors,
    is_in_checkpoint,
)
from scripts.model_card import GENERATED, model_card
from scripts.tokenizer_files import load_tokenizer, special_facts

CARD = "README.md"
# Files that decide how a model loads. Left in the repository by an earlier upload, they would spoil this one.
DECISIVE = ("*.safetensors", "*.bin", "*.index.json", "tokenizer*.json", "added_tokens.json", "special_tokens_map.json")
DECISIVE += ("vocab.json", "merges.txt", "generation_config.json", "chat_template*")


@dataclass
class UploadConfig:
    """Send model directories to the Hugging Face hub."""

    model_path: list[Path]  # model directories, one or more
    repo_name: list[str]  # as many repositories, owner/name, in the same order
    dry_run: bool = False  # show what would be sent and send nothing
    include_checkpoints: bool = False  # send the checkpoint-* folders too
    private: bool = False  # make new repositories private
    data_description: str = ""  # for the card, such as "synthetic: generated world, seed 0"


@dataclass
class Upload:
    """One model directory on its way: relative paths of its files, and the text of its card."""

    path: Path
    repo: str
    files: list[Path]
    left_out: list[Path]
    card: str | None  # None: the directory has a README.md that a person wrote, among `files`

    @property
    def url(self) -> str:
        """Where the model will be."""
        return f"{constants.ENDPOINT}/{self.repo}"


def main() -> None:
    config = parse_config(UploadConfig)
    check_command(config)
    uploads = [prepare(path, repo, config) for path, repo in zip(config.model_path, config.repo_name, strict=True)]
    if config.dry_run:
        for upload in uploads:
            print_files(upload)
            print("\n" + upload.card if upload.card else f"\n{upload.path / CARD} goes up as it is")
        print("dry run: nothing was sent")
        return
    if get_token() is None:
        raise UserError("no token for the hub; run `hf auth login` or set HF_TOKEN")
    remotes = [find_remote(upload.repo) for upload in uploads]  # without network, that is said before anything is sent
    for upload, remote in zip(uploads, remotes, strict=True):
        print_files(upload)
        print(f"{upload.url}: commit {send(upload, remote, config.private)[:12]}, compared with {upload.path}: equal")


def check_command(config: UploadConfig) -> None:
    """Raise UserError for a mistake in the command itself."""
    if len(config.model_path) != len(config.repo_name) or not config.model_path:
        raise UserError(
            f"--model-path names {len(config.model_path)} and --repo-name {len(config.repo_name)}; "
            "give as many of one as of the other, in the same order"
        )
    for repo in config.repo_name:
        check_repo_name(repo)
        if config.repo_name.count(repo) > 1:
            raise UserError(f"--repo-name has {repo} twice; each model needs a repository of its own")


def prepare(path: Path, repo: str, config: UploadConfig) -> Upload:
    """What to send of a model directory. Raises UserError unless it loads and its tokenizer shows the facts."""
    model = load_model_dir(path)
    tokenizer = load_tokenizer(path)
    if tokenizer is None or special_facts(tokenizer):
        problem = "has no tokenizer that loads" if tokenizer is None else "has mul tokens marked special"
        raise UserError(f"{path} {problem}; repair it with scripts/fix_tokenizers.py --model-path {path}")
    found = sorted(file.relative_to(path) for file in path.rglob("*") if file.is_file())
    found = [file for file in found if not any(part.startswith(".") for part in file.parts)]
    files = [file for file in found if config.include_checkpoints or not is_in_checkpoint(file)]
    left_out = [file for file in found if file not in files]
    card_path = path / CARD
    if card_path.is_file() and GENERATED not in card_path.read_text(encoding="utf-8"):
        return Upload(path, repo, files, left_out, card=None)
    card = model_card(path, repo, model.num_parameters(), config.data_description)
    return Upload(path, repo, [file for file in files if file != Path(CARD)], left_out, card)


def print_files(upload: Upload) -> None:
    """The files that go up, with their sizes, and what stays."""
    sizes = {str(file): (upload.path / file).stat().st_size for file in upload.files}
    print(f"{upload.path} -> {upload.url}")
    if upload.card is not None:
        sizes[CARD] = len(upload.card.encode())
    for name, size in sizes.items():
        print(f"  {format_size(size):>10}  {name}{' (generated)' if name == CARD and upload.card else ''}")
    print(f"  {format_size(sum(sizes.values())):>10}  in {len(sizes)} files")
    if upload.left_out:
        size = sum((upload.path / file).stat().st_size for file in upload.left_out)
        folders = ", ".join(dict.fromkeys(file.parts[0] for file in upload.left_out))
        print(f"  {format_size(size):>10}  stays here: {folders} (--include-checkpoints sends it)")


def send(upload: Upload, remote: RemoteModel | None, private: bool) -> str:
    """Make the repository if need be, send everything as one commit, check what arrived. Returns the commit."""
    names = {str(file) for file in upload.files}
    stale = [f.path for f in remote.files if f.path not in names and is_decisive(f.path)] if remote else []
    operations = [CommitOperationAdd(str(file), upload.path / file) for file in upload.files]
    if upload.card is not None:
        operations.append(CommitOperationAdd(CARD, upload.card.encode()))
    operations += [CommitOperationDelete(name) for name in stale]
    for name in stale:
        print(f"  {'':>10}  {name} goes from the repository: this model has no such file")
    with hub_errors(f"{upload.path} -> {upload.repo}"):
        api = HfApi()
        if remote is None:
            api.create_repo(upload.repo, private=private or None, exist_ok=True)
        message = f"Upload {upload.path.resolve().name}"
        commit = api.create_commit(upload.repo, operations, commit_message=message).oid
    sent = find_remote(upload.repo)
    wrong = find_differences(upload.path, [f for f in sent.files if f.path in names])
    wrong |= {name: "missing on the hub" for name in names - {f.path for f in sent.files}}
    if wrong:
        name, problem = next(iter(wrong.items()))
        raise UserError(f"{upload.repo}: {name} is not what was sent ({problem}); run the same command again")
    return commit


def is_decisive(name: str) -> bool:
    """Whether a file in a repository decides how its model loads."""
    return "/" not in name and any(Path(name).match(pattern) for pattern in DECISIVE)


if __name__ == "__main__":
    run_script(main)
