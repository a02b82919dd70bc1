"""Starting points for the embeddings of mul tokens and reasoning tags that no earlier stage has trained.

Pretraining in `mul_tokens` trains the mul tokens; an imported GPT-2 has seen neither them nor the tags, and no
pretraining text holds the tags. The head is tied, so a token's embedding is also what its logit is made with: two
tokens that started equal would stay equally likely until their contexts tell them apart.
"""

from pathlib import Path
from typing import Any

import torch
from transformers import GPT2LMHeadModel, PreTrainedTokenizerFast

from common.files import read_json
from common.record import chain_of
from pretrain.hf_weights import families_of
from sft.settings import EmbeddingInit
from tokenizer.mul_facts import EOT_ID, REASONING_TAGS
from tokenizer.vocabulary import Vocabulary

NOISE = 0.01  # of the embeddings' deviation, as pretrain/import_hf.py adds to new rows


def initialise_unseen_tokens(
    model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerFast, model_path: Path, how: EmbeddingInit, seed: int
) -> int:
    """Set the embeddings of the tokens that the model in `model_path` has never seen. Returns their number.

    pretrained  leaves all as they are
    mean        the mean over GPT-2's vocabulary plus noise of `seed` (Hewitt 2021, as cited in pretrain/import_hf.py)
    compose     the mean over the embeddings of the token's own text: operands and product, or a tag's pieces
    """
    if how == "pretrained":
        return 0
    unseen = unseen_tokens(model_path, tokenizer)
    weight = model.get_input_embeddings().weight
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():  # in place, so that the head, which is the same tensor, stays tied
        used = weight[: EOT_ID + 1]
        mean, deviation = used.mean(0), used.std(0)
        for token_id, text in unseen.items():
            if how == "mean":
                weight[token_id] = mean + NOISE * deviation * torch.randn(len(mean), generator=generator)
            else:
                pieces = [i for piece in text for i in tokenizer(piece).input_ids]
                weight[token_id] = used[pieces].mean(0)
    return len(unseen)


def unseen_tokens(model_path: Path, tokenizer: PreTrainedTokenizerFast) -> dict[int, tuple[str, ...]]:
    """Ids that the tokenizer yields and no stage in the model's chain of run.json has read, with the pieces of each
    token's text. A model without a run.json has read none of them."""
    chain = chain_of(read_json(model_path / "run.json")) if (model_path / "run.json").is_file() else []
    facts = Vocabulary("mul_tokens", families_of(model_path)).facts
    unseen: dict[int, tuple[str, ...]] = {}
    if not any(stage.get("reasoning_tags_seen") for stage in chain):
        for tag, token_id in REASONING_TAGS.items():
            opening = "</" if tag.startswith("</") else "<"
            unseen[token_id] = (opening, tag[len(opening) : -1], ">")
    knows_facts = all(tokenizer(fact.token).input_ids == [i] for i, fact in facts.items())
    if knows_facts and not any(_read_mul_tokens(stage) for stage in chain):
        unseen |= {i: tuple(map(str, (*fact.operands, fact.value))) for i, fact in facts.items()}
    return unseen


def _read_mul_tokens(stage: dict[str, Any]) -> bool:
    if stage.get("stage") == "pretrain" and stage.get("condition") == "mul_tokens":
        # Text that was left alone, as in scripts/configs/ablation_embedding_init.yaml, has none.
        return stage.get("data", {}).get("mul_tokens_seen") != 0
    return bool(stage.get("mul_tokens_seen"))
