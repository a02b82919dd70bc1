"""The id layout, and tiktoken against Hugging Face's tokenizer: equal ids on tens of thousands of texts."""

import json
import random
from pathlib import Path

import pytest
from pyarrow import parquet
from transformers import AutoTokenizer

from common.errors import UserError
from common.files import read_jsonl
from tokenizer import mul_facts as layout
from tokenizer.gpt2_tiktoken import MERGES_PATH, GPT2TokenizerWithMulFacts, read_merges
from tokenizer.hf_gpt2_with_mul import build_hf_tokenizer, save_hf_tokenizer
from tokenizer.inject_mul import MulExpressionInjector
from tokenizer.vocabulary import Vocabulary

DATA = Path(__file__).parents[2] / "shared" / "data"
EVERY_TAG = list(layout.REASONING_TAGS)


@pytest.fixture(
    scope="module",
    params=[("baseline", "mul"), ("mul_tokens", "mul"), ("mul_tokens", "mul+add+square+div")],
    ids="-".join,
)
def pair(request, tmp_path_factory):
    """Our tokenizer and Hugging Face's as loaded from the files of a model directory, of one condition and choice."""
    directory = tmp_path_factory.mktemp("hf") / request.param[0]
    save_hf_tokenizer(directory, *request.param)
    ours = GPT2TokenizerWithMulFacts(*request.param)
    # As exported: beside a config that could make AutoTokenizer build GPT-2's stock class in place of our file.
    config = {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "vocab_size": ours.vocabulary.size}
    (directory / "config.json").write_text(json.dumps(config))
    return ours, AutoTokenizer.from_pretrained(directory)


# --- layout


def test_layout_of_ids():
    mul_facts = layout.MulFactTokens()
    assert mul_facts.ids == list(range(50304, 50349))
    assert len(set(mul_facts.tokens)) == 45
    assert mul_facts.tokens[0] == "<MUL_1_1_1>" and mul_facts.tokens[9] == "<MUL_2_2_4>"
    assert mul_facts.tokens[-1] == "<MUL_9_9_81>"
    factors = [mul_facts.fact(i)[:2] for i in mul_facts.ids]
    assert factors == sorted(factors)
    assert mul_facts.token(9, 6) == mul_facts.token(6, 9) == "<MUL_6_9_54>"
    assert mul_facts.id_of(9, 6) == mul_facts.id_of(6, 9) == 50342
    assert mul_facts.fact(50342) == (6, 9, 54)
    assert [i for i in (50303, 50304, 50348, 50349) if mul_facts.is_mul_id(i)] == [50304, 50348]
    assert sorted(layout.REASONING_TAGS.values()) == [50257, 50258, 50259, 50260]


@pytest.mark.parametrize("factors", [(0, 5), (5, 10), (-1, 2)])
def test_factors_out_of_range_are_an_error(factors):
    with pytest.raises(ValueError, match="1 to 9"):
        layout.MulFactTokens().id_of(*factors)


def test_no_fact_outside_the_mul_ids():
    with pytest.raises(ValueError, match="50304 to 50348, found 50303"):
        layout.MulFactTokens().fact(50303)


def test_suppressed_ids():
    assert Vocabulary("mul_tokens").suppressed_ids == list(range(50261, 50304))
    assert Vocabulary("baseline").suppressed_ids == list(range(50261, 50349))
    assert Vocabulary("baseline").suppressed_below(50257) == []
    assert Vocabulary("baseline").suppressed_below(50263) == [50261, 50262]


@pytest.mark.parametrize("condition", layout.CONDITIONS)
def test_ids_beyond_the_bpe_are_complete_and_distinct(condition):
    assert sorted(Vocabulary(condition).tokens_beyond_bpe().values()) == list(range(50256, 50349))


# --- tiktoken


def test_known_gpt2_ids(pair):
    ours, _ = pair
    assert ours.encode("Hello world") == [15496, 995]
    assert ours.encode("6 * 9 = 54") == [21, 1635, 860, 796, 7175]
    assert ours.encode("<|endoftext|>") == [50256]


def test_altered_merges_are_an_error(tmp_path):
    altered = tmp_path / "vocab.bpe"
    altered.write_bytes(MERGES_PATH.read_bytes() + b"a b\n")
    with pytest.raises(UserError, match=r"not GPT-2's vocab.bpe .* restore it"):
        read_merges(altered)
    with pytest.raises(UserError, match="does not exist"):
        read_merges(tmp_path / "absent.bpe")


def test_unknown_condition_is_an_error():
    with pytest.raises(UserError, match="'mul'; valid: baseline, mul_tokens"):
        GPT2TokenizerWithMulFacts("mul")


def test_mul_tokens_are_tokens_in_one_condition_only():
    text = "<MUL_6_9_54>"
    assert GPT2TokenizerWithMulFacts("mul_tokens").encode(text) == [50342]
    baseline = GPT2TokenizerWithMulFacts("baseline").encode(text)
    assert len(baseline) > 1 and max(baseline) < layout.EOT_ID


def test_tags_are_tokens_whatever_is_allowed(pair):
    ours, _ = pair
    for allow_special in (True, False):
        assert ours.encode("".join(EVERY_TAG), allow_special=allow_special) == [50257, 50258, 50259, 50260]


def test_a_document_cannot_forge_a_boundary(pair):
    ours, _ = pair
    text = "one<|endoftext|>two"
    assert ours.encode(text).count(layout.EOT_ID) == 1
    assert layout.EOT_ID not in ours.encode(text, allow_special=False)
    assert ours.decode(ours.encode(text, allow_special=False)) == text


def test_count_mul_tokens():
    ours = GPT2TokenizerWithMulFacts("mul_tokens")
    assert ours.count_mul_tokens(ours.encode("<MUL_6_9_54> and <MUL_1_1_1><MUL_9_9_81>, not <MUL_9_6_54>")) == 3


def test_fingerprints_are_stable_and_differ_by_condition():
    prints = {condition: GPT2TokenizerWithMulFacts(condition).fingerprint for condition in layout.CONDITIONS}
    assert prints["baseline"] != prints["mul_tokens"]
    assert GPT2TokenizerWithMulFacts("baseline").fingerprint == prints["baseline"]


def test_decoding_suppressed_ids_shows_them(pair):
    ours, hf = pair
    suppressed = ours.vocabulary.suppressed_ids
    shown = "".join(f"<|unused_{i}|>" for i in suppressed)
    assert ours.decode(suppressed) == hf.decode(suppressed) == shown
    assert not set(suppressed) & set(ours.encode(shown))


def test_decoding_half_a_character(pair):
    ours, hf = pair
    ids = ours.encode("🦆")[:1]
    assert ours.decode(ids) == hf.decode(ids) == "\ufffd"


def test_lone_surrogates_become_the_replacement_character(pair):
    ours, _ = pair
    assert ours.decode(ours.encode("a\ud800b")) == "a\ufffdb"


def test_batch_equals_single(pair):
    ours, _ = pair
    texts = ["", "a<|endoftext|>b", "6*9 <MUL_6_9_54>"]
    for allow_special in (True, False):
        singly = [ours.encode(text, allow_special) for text in texts]
        assert ours.encode_batch(texts, allow_special, num_threads=2) == singly


# --- Hugging Face's tokenizer


def test_reloaded_tokenizer_is_the_one_that_was_built(pair):
    ours, hf = pair
    built = build_hf_tokenizer(ours.condition, ours.vocabulary.families)
    assert hf.backend_tokenizer.to_str() == built.backend_tokenizer.to_str()
    assert len(hf) == ours.vocabulary.size
    assert hf.all_special_ids == [layout.EOT_ID]
    assert hf.bos_token_id == hf.eos_token_id == hf.pad_token_id == layout.EOT_ID


def test_skipping_special_tokens_keeps_tags_and_facts():
    hf = build_hf_tokenizer("mul_tokens")
    ids = hf("<think>6 * 9 = <MUL_6_9_54> .</think><|endoftext|>")["input_ids"]
    assert hf.decode(ids, skip_special_tokens=True) == "<think>6 * 9 = <MUL_6_9_54> .</think>"


# --- both agree


def _word_soup(rng):
    """Words, numbers, tokens whole and broken, tags, line ends and odd spaces in any order."""
    parts = ["the", "of", "I'm", "they'll", "we've", "John's", "naïve", "Straße", "Привет", "漢字", "नमस्ते", "e\u0301"]
    parts += ["🦆", "👩‍👩‍👧", "مرحبا", "١٢٣", *layout.MulFactTokens().tokens[::4]]
    parts += ["<ADD_6_9_15>", "<SQUARE_7_49>", "<DIV_54_6_9>", "<DIV_7_3_2>", "<ADD_9_6_15>"]
    parts += ["<MUL_6_9_5", "MUL_6_9_54>", "<MUL_9_6_54>", "<MUL_6_9_54", "<MUL_", "<mul_6_9_54>"]
    parts += [*EVERY_TAG, "<think", "</answer", "<|endoftext|>", "<|endoftext|", "<|unused_50261|>"]
    parts += ["6*9", "6 × 9 = 54", "3.14", "1,000", "<<6*9=54>>", "$", "...", "--", "_", '"', "'", "(", ")", "#### 54"]
    parts += [" ", "  ", "\t", "\n", "\r\n", "\n\n", "\u00a0", "\u200b", "\ufeff", "\x00", "\x85", "\u2028", " \n "]
    return "".join(part + rng.choice(["", " ", " "]) for part in rng.choices(parts, k=rng.randint(1, 12)))


def _unicode_noise(rng):
    """Code points of every plane, surrogates excepted, evenly over their number of bits."""
    points = (rng.randrange(1 << rng.randint(1, 20)) for _ in range(rng.randint(1, 16)))
    return "".join(chr(point) for point in points if not 0xD800 <= point <= 0xDFFF)


def _texts(count, seed):
    rng = random.Random(seed)
    texts = [make(rng) for _ in range(count // 2) for make in (_word_soup, _unicode_noise)]
    return ["", " ", "\n", "\r\n", "a" * 3000, " " * 3000, "<|endoftext|>" * 3, *texts]


def _assert_equal_ids(ours, hf, texts, allow_special=True):
    expected = hf(texts, split_special_tokens=not allow_special)["input_ids"]
    found = ours.encode_batch(texts, allow_special)
    unequal = [text for text, a, b in zip(texts, found, expected, strict=True) if a != b]
    assert not unequal, f"{len(unequal)} texts, the first: {unequal[0]!r}"
    unfaithful = [text for text, ids in zip(texts, found, strict=True) if ours.decode(ids) != text]
    assert not unfaithful, f"{len(unfaithful)} texts, the first: {unfaithful[0]!r}"


@pytest.mark.parametrize("allow_special", [True, False])
def test_equal_ids_on_generated_texts(pair, allow_special):
    _assert_equal_ids(*pair, _texts(count=6000, seed=1), allow_special)


def test_equal_ids_on_characters_of_every_plane():
    """Unicode's characters between a letter, a digit and a space: the two regex engines class them alike."""
    # The whole of the first plane, which has nearly all scripts and signs, and a sample of the others.
    points = [*range(0xD800), *range(0xE000, 0x10000), *range(0x10000, 0x20000, 7), *range(0x20000, 0x110000, 97)]
    pieces = [f"a{chr(point)}1{chr(point)} {chr(point)}" for point in points]
    texts = ["".join(pieces[start : start + 32]) for start in range(0, len(pieces), 32)]
    _assert_equal_ids(GPT2TokenizerWithMulFacts("baseline"), build_hf_tokenizer("baseline"), texts)


@pytest.mark.skipif(not (DATA / "gsm8k").exists(), reason="needs shared/data/gsm8k")
def test_equal_ids_on_gsm8k(pair):
    rows = read_jsonl(DATA / "gsm8k" / "test.jsonl")
    inject = MulExpressionInjector().inject
    _assert_equal_ids(*pair, [text for row in rows for text in (row["question"], inject(row["answer"]))])


@pytest.mark.skipif(not (DATA / "web_text").exists(), reason="needs shared/data/web_text")
def test_equal_ids_on_prose(pair):
    documents = parquet.read_table(DATA / "web_text" / "part_000.parquet", columns=["text"])["text"].to_pylist()
    _assert_equal_ids(*pair, [document[:1000] for document in documents[:500]])
