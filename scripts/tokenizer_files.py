"""The tokenizer files of a model directory: what in them differs from what this project writes, and the repair.

An earlier exporter declared the multiplication facts with `add_special_tokens`, so `skip_special_tokens=True` dropped
them from every decoded text, and others left them out. The ids were right, so new files mend such a model.
"""

import json
import os
import shutil
import tempfile
from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from common.errors import UserError
from common.files import atomic_path, read_json
from pretrain.hf_weights import families_of, read_config
from tokenizer.families import read_families
from tokenizer.hf_gpt2_with_mul import build_hf_tokenizer, save_hf_tokenizer
from tokenizer.mul_facts import Condition
from tokenizer.vocabulary import Vocabulary

WRITTEN = ("tokenizer.json", "tokenizer_config.json")
# What older versions of transformers wrote beside them. Left there, these would be read as well.
SUPERSEDED = ("added_tokens.json", "special_tokens_map.json", "vocab.json", "merges.txt")


def tokenizer_condition(path: Path, given: Condition | None) -> Condition:
    """The condition of a model directory: what its run.json says, else `given`, else what its tokenizer proves.

    Raises UserError when run.json and `given` disagree, and when nothing says it: a tokenizer without the facts may be
    one that lost them.
    """
    recorded = read_json(path / "run.json").get("condition") if (path / "run.json").is_file() else None
    if recorded is not None and given not in (None, recorded):
        raise UserError(f"--condition {given}, but {path} is a model of {recorded}; leave the flag out")
    if recorded is not None or given is not None:
        return recorded or given
    names = (path / "tokenizer.json").read_text(encoding="utf-8") if (path / "tokenizer.json").is_file() else ""
    first = next(iter(Vocabulary("mul_tokens", families_of(path)).facts.values()))
    if first.token in names:
        return "mul_tokens"
    if f"<|unused_{first.id}|>" in names:
        return "baseline"
    raise UserError(f"{path} does not say its condition; give --condition baseline or mul_tokens")


def load_tokenizer(path: Path) -> PreTrainedTokenizerBase | None:
    """The tokenizer of a model directory as transformers loads it; None where there is none that it can load."""
    if not any((path / name).is_file() for name in ("tokenizer.json", "vocab.json")):
        return None
    try:
        return AutoTokenizer.from_pretrained(path, local_files_only=True)
    except Exception:  # whatever is wrong with the files, the remedy is to write them anew
        return None


def special_facts(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """The families' facts that `tokenizer` has as special tokens, and so hides; none in a sound one."""
    facts = {fact.token for family in read_families().values() for fact in family.facts}
    return [str(t) for t in tokenizer.added_tokens_decoder.values() if t.special and str(t) in facts]


def find_changes(path: Path, condition: Condition) -> list[str]:
    """What writing the tokenizer files of `condition` anew would change in a model directory, a line each.

    Raises UserError when the model cannot be mended so: it is not of our vocabulary size, or its tokenizer gives a
    token another id than ours does, for then its embeddings were trained with that id.
    """
    vocab_size = read_config(path).vocab_size
    vocabulary = Vocabulary(condition, families_of(path))
    if vocab_size != vocabulary.size:
        raise UserError(
            f"{path} has {vocab_size:,} embedding rows, not {vocabulary.size:,}; pretrain/import_hf.py extends it"
        )
    found, wanted = load_tokenizer(path), build_hf_tokenizer(condition, vocabulary.families)
    leftovers = [f"{name} goes: tokenizer.json says it all" for name in SUPERSEDED if (path / name).is_file()]
    if found is None:
        return ["there are no tokenizer files that load: they are written", *leftovers]
    _check_ids(path, found.get_vocab(), wanted.get_vocab(), vocabulary)

    is_special = {str(t): t.special for t in found.added_tokens_decoder.values()}
    becomes_special = {str(t): t.special for t in wanted.added_tokens_decoder.values()}
    lines = [
        _line(tokens, what)
        for what, tokens in {
            "special, becomes regular": [t for t in becomes_special if is_special.get(t, False) > becomes_special[t]],
            "regular, becomes special": [t for t in becomes_special if is_special.get(t, True) < becomes_special[t]],
            "missing, is added": [t for t in becomes_special if t not in is_special],
            f"no token of {condition}, becomes text": [t for t in is_special if t not in becomes_special],
        }.items()
        if tokens
    ]
    for role in ("bos_token", "eos_token", "pad_token"):
        if getattr(found, role) != getattr(wanted, role):
            lines.append(f"{role}: {getattr(found, role)} becomes {getattr(wanted, role)}")
    before, after = (json.loads(t.backend_tokenizer.to_str()) for t in (found, wanted))
    # Which tokens there are has been said above; the other parts decide how a text becomes ids.
    parts = [part for part in after if part not in ("added_tokens", "model") and before[part] != after[part]]
    parts += ["merges"] if before["model"].get("merges") != after["model"]["merges"] else []
    if parts:
        lines.append(f"tokenizer.json: {', '.join(parts)} as this project has it")
    return lines + leftovers


def rewrite_tokenizer(path: Path, condition: Condition) -> None:
    """Write the tokenizer files of `condition` into a model directory, each beside and renamed; old ones go."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".tokenizer.") as folder:
        save_hf_tokenizer(Path(folder), condition, families_of(path))
        for name in WRITTEN:
            with atomic_path(path / name) as partial:
                shutil.copyfile(Path(folder) / name, partial)
    for name in SUPERSEDED:
        if (path / name).is_file():
            os.remove(path / name)


def _check_ids(path: Path, found: dict[str, int], wanted: dict[str, int], vocabulary: Vocabulary) -> None:
    name_of = {i: token for token, i in wanted.items()}
    nameable = set(vocabulary.suppressed_ids)  # padding by any name is padding
    for token, i in found.items():
        if token in wanted and wanted[token] != i:
            raise UserError(
                f"{path}: {token} has id {i}, here {wanted[token]}; the model was trained with other ids, so new "
                "tokenizer files would not mend it"
            )
        if token not in wanted and i not in nameable:
            raise UserError(
                f"{path}: id {i} is {token}, here {name_of.get(i, 'no id')}; the model was trained with other tokens, "
                "so new tokenizer files would not mend it"
            )


def _line(tokens: list[str], what: str) -> str:
    names = " ".join(tokens) if len(tokens) <= 4 else f"{tokens[0]} ... {tokens[-1]}"
    return f"{len(tokens)} {'token' if len(tokens) == 1 else 'tokens'} {what}: {names}"
