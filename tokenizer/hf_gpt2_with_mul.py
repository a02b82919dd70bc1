"""The same tokenizer as Hugging Face files, which AutoTokenizer loads as they are."""

from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tokenizer.families import DEFAULT_FAMILIES
from tokenizer.gpt2_tiktoken import bpe_vocabulary, read_merges
from tokenizer.mul_facts import END_OF_TEXT, Condition
from tokenizer.vocabulary import Vocabulary


def build_hf_tokenizer(condition: Condition, families: str = DEFAULT_FAMILIES) -> PreTrainedTokenizerFast:
    """A tokenizer with the ids of `GPT2TokenizerWithMulFacts(condition, families)`; `len` is the vocabulary's size.

    `split_special_tokens=True` is that class's `allow_special=False`.
    """
    vocabulary = Vocabulary(condition, families)
    beyond_bpe = vocabulary.tokens_beyond_bpe()
    # All ids are in the BPE vocabulary, so that len() is the model's size. No merge makes those from 50256 on.
    tokenizer = Tokenizer(models.BPE(vocab=bpe_vocabulary() | beyond_bpe, merges=read_merges()))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    # Tags and facts are added tokens, but not special ones: skip_special_tokens=True must leave them in the text.
    suppressed = set(vocabulary.suppressed_ids)
    tokenizer.add_tokens(
        [
            AddedToken(token, special=False, normalized=False, lstrip=False, rstrip=False, single_word=False)
            for token, i in beyond_bpe.items()
            if i not in suppressed and token != END_OF_TEXT
        ]
    )
    tokenizer.add_special_tokens([AddedToken(END_OF_TEXT, special=True, normalized=False)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        # GPT-2 has no padding token. End-of-text serves: TRL and our code mask padding by length, never by id, and a
        # padding id of its own would be an id that no text can produce but that models are fed.
        pad_token=END_OF_TEXT,
        clean_up_tokenization_spaces=False,
    )


def save_hf_tokenizer(output_dir: Path, condition: Condition, families: str = DEFAULT_FAMILIES) -> None:
    """Write the tokenizer files of `condition` with these token families into `output_dir`."""
    build_hf_tokenizer(condition, families).save_pretrained(output_dir)
