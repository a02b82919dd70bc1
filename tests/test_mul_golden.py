"""The default choice of token families, `mul`, never changes: ids, files, patterns, texts and shards are pinned.

A model trained on other bytes is another model. Where one of these fails after a deliberate change of the generated
world, pin the new value; after a change to tokenizer/, restore the old behaviour.
"""

import hashlib
import json
import random

import pytest

from data.encoding import Batch, encode_batch
from data.prepare_text import PrepareTextConfig, generated_documents
from data.world.passages import passage_records
from tests.helpers import run
from tokenizer.forms import infix_product
from tokenizer.gpt2_tiktoken import GPT2TokenizerWithMulFacts
from tokenizer.hf_gpt2_with_mul import save_hf_tokenizer
from tokenizer.inject_mul import InjectionStats, MulExpressionInjector
from tokenizer.vocabulary import Vocabulary

PATTERNS = {  # of the form of products
    "expression": "0bf6df321f2fe829",
    "forbidden_before": "9c44093aa0cd8d6a",
    "forbidden_after": "52f73fbdd7ce6632",
    "sign_before": "524feb88868cc4f4",
    "result": "ac3058a585e946b3",
    "forbidden_after_result": "f624a554eb102165",
}
WORLD = {  # of data/prepare_text.py --num-documents 400
    "train_baseline.txt": "a32db89df8db9dc57a6a002d26726aabdb6ab202735fd32879d956dfc0ea5992",
    "train_mul_tokens.txt": "72a1d6a86b0364cae8fcd76e738d72503b61b3736aa177b8d5eef60ce7b4f67c",
    "facts.jsonl": "d8abd2b0356f3de11aab285e133113e4be971e638250c61d123ca754faee9985",
    "passages.jsonl": "b655dfdcaec4b3feb8009bf4f7d192d7b5364dc1b1371589d07dd1a966da4525",
    "gsm8k/train.jsonl": "49d394e0a75b8c83df4b2a041dab744580fe6ffc641c84e6ef2744a666f5cd8d",
    "gsm8k/test.jsonl": "2a6b319af4eddff520c55513f54d80e5b112bbe19b72d7f239a2ebc90693a8ef",
}


def sha256(content: str | bytes) -> str:
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()


@pytest.fixture(scope="module")
def documents() -> list[str]:
    config = PrepareTextConfig("baseline", num_documents=2000)
    found = generated_documents(config, set(), passage_records(20, random.Random(0)))
    texts = [document.text for document in found]
    assert sha256("\0".join(texts))[:16] == "b61f0b71fdcdb163", "the generated world changed: pin the values below anew"
    return texts


@pytest.mark.parametrize(
    ("condition", "fingerprint", "layout", "suppressed"),
    [
        (
            "baseline",
            "04d05c8eb174e46e43f7a8d01d7295ff21c646e5b39c296c4b4b53e5a18f5513",
            "18b3c905562a1da8",
            "50dedbb104f09b84",
        ),
        (
            "mul_tokens",
            "4e5058aab6a0f79eff3d977606aca78f26f0a0cd5f1c06b8774c2e7a3df58c56",
            "e4335008d782e70a",
            "ad920715d10efa89",
        ),
    ],
)
def test_the_ids(condition, fingerprint, layout, suppressed):
    assert GPT2TokenizerWithMulFacts(condition).fingerprint == fingerprint
    assert sha256(json.dumps(list(Vocabulary(condition).tokens_beyond_bpe().items())))[:16] == layout
    assert sha256(json.dumps(Vocabulary(condition).suppressed_ids))[:16] == suppressed


@pytest.mark.parametrize(
    ("condition", "tokenizer_json"),
    [
        ("baseline", "ff1863ac16de1a86a6e4e2ce670fccba831ffa906c6a0d10053ec0b2a4af8803"),
        ("mul_tokens", "1f867d1310fecc25320b38de7f075e49aaab897ca8555be3940e5d0c51ec2c79"),
    ],
)
def test_the_tokenizer_files(condition, tokenizer_json, tmp_path):
    save_hf_tokenizer(tmp_path, condition)
    assert sha256((tmp_path / "tokenizer.json").read_bytes()) == tokenizer_json


def test_the_patterns():
    form = infix_product("<MUL_")
    found = {name: sha256(getattr(form, name).pattern)[:16] for name in PATTERNS}
    assert found == PATTERNS


@pytest.mark.parametrize(
    ("mode", "text", "stats"),
    [
        ("weak", "f3fe53ed9177d56f", InjectionStats(with_result=1758, bare=1630, wrong_result=0, refused=5)),
        ("strict", "6235a102c504f2b9", InjectionStats(with_result=1758, bare=0, wrong_result=0, refused=1635)),
    ],
)
def test_injected_text(mode, text, stats, documents):
    injected = [MulExpressionInjector(mode).inject_with_stats(document) for document in documents]
    assert sha256("\0".join(new for new, _ in injected))[:16] == text
    assert sum((found for _, found in injected), InjectionStats()) == stats


@pytest.mark.parametrize(
    ("condition", "mode", "ids", "counts"),
    [
        ("baseline", "none", "36a6a88bdb922fb7", "5e5e34986139d005"),
        ("mul_tokens", "weak", "6ba794263c9eba7e", "7d421a8afc8d055c"),
        ("mul_tokens", "strict", "16473b59b4d4db51", "c1fbb7d7432bdb95"),
    ],
)
def test_encoded_documents(condition, mode, ids, counts, documents):
    encoded = encode_batch(condition, mode, Batch(documents, ["all"] * len(documents)))
    assert sha256(encoded.ids.tobytes())[:16] == ids and sha256(encoded.counts.tobytes())[:16] == counts


def test_the_files_of_a_small_world(tmp_path):
    for condition in ("baseline", "mul_tokens"):
        run("data/prepare_text.py", "--condition", condition, "--num-documents", 400, "--out-dir", tmp_path)
    assert {name: sha256((tmp_path / name).read_bytes()) for name in WORLD} == WORLD
