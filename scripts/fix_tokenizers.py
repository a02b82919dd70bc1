"""Repair the tokenizer files of model directories whose mul tokens were marked special, or are missing.

    uv run python scripts/fix_tokenizers.py --model-path outputs/hf_mul_tokens_10b outputs/sft_gsm8k_mul_tokens
    uv run python scripts/fix_tokenizers.py --model-path outputs/hf_mul_tokens_10b outputs/sft_gsm8k_mul_tokens --apply

The first command says what would change and writes nothing; the second changes it. Weights stay as they are. A model
whose tokenizer gives tokens other ids than ours is refused: it was trained with those.
"""

from dataclasses import dataclass
from pathlib import Path

from common.config import parse_config
from common.errors import UserError, run_script
from scripts.tokenizer_files import find_changes, load_tokenizer, rewrite_tokenizer, tokenizer_condition
from tokenizer.mul_facts import Condition, MulFactTokens


@dataclass
class FixConfig:
    """Repair the tokenizer files of model directories."""

    model_path: list[Path]  # model directories, one or more
    condition: Condition | None = None  # of those whose run.json does not say it
    apply: bool = False  # write; without it, only say what would change


def main() -> None:
    config = parse_config(FixConfig)
    if not config.model_path:
        raise UserError("--model-path names no directory; give one or more")
    conditions = {path: tokenizer_condition(path, config.condition) for path in config.model_path}
    changes = {path: find_changes(path, condition) for path, condition in conditions.items()}  # all, before any write
    for path, condition in conditions.items():
        print(f"{path} ({condition}): {'' if changes[path] else 'nothing to repair'}")
        for line in changes[path]:
            print(f"  {line}")
        if not changes[path]:
            continue
        print_decoded("before", path)
        if config.apply:
            rewrite_tokenizer(path, condition)
            print_decoded("now", path)
    broken = sum(bool(lines) for lines in changes.values())
    if broken and not config.apply:
        print(f"nothing was written; the same command with --apply repairs {broken} of {len(changes)}")
    elif broken:
        print(f"repaired {broken} of {len(changes)}; scripts/upload_to_hf.py sends them to the hub again")


def print_decoded(when: str, path: Path) -> None:
    """Show what becomes of a fact on its way through the tokenizer when special tokens are skipped."""
    tokenizer = load_tokenizer(path)
    if tokenizer is not None:
        text = f"So it is {MulFactTokens().token(6, 9)}."
        decoded = tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True)
        print(f"  {when}: {text!r} decodes to {decoded!r}")


if __name__ == "__main__":
    run_script(main)
