"""Does a model calculate where nothing is to be calculated, and what did training cost it in prose?"""

import math
import sys

import pytest
import torch
import torch.nn.functional as F

from common.errors import UserError
from common.files import read_json, read_jsonl, write_json, write_jsonl
from data.domain_prompts import DOMAINS, PROMPTS, PROSE
from eval import run_domains
from eval.domains import is_arithmetic, prose_bits, prose_change, prose_summary
from pretrain.hf_weights import save_model_dir
from pretrain.model import GPTConfig
from tests.helpers import random_gpt
from tokenizer.gpt2_tiktoken import GPT2TokenizerWithMulFacts
from tokenizer.mul_facts import EOT_ID, FIRST_MUL_ID

TOKENIZER = GPT2TokenizerWithMulFacts("baseline")


@pytest.fixture(scope="module")
def model():
    return random_gpt(GPTConfig(n_layer=1, n_head=1, n_embd=8, block_size=64)).eval()


@pytest.mark.parametrize(
    ("response", "arithmetic"),
    [
        ("The capital of France is 50000. So 50000/10000 = 5", True),
        ("7 people * 7 people/person", False),  # no number behind the sign
        ("There are 5*5=20 stars", True),
        ("so 2 + 1", True),
        ("1,000 - 500 = 500", True),
        ("1,000 - 500 is 500", True),
        ("12 / 4", True),
        ("12/4 = 3 each", True),
        ("12/4 equals 3", True),
        ("(1/2) * 40", True),
        ("half of it, 1/2 + 1/4", True),
        ("<<48*2=96>>", True),
        ("<<<MUL_6_9_54>>>", True),
        ("On 9/11 the towers fell.", False),
        ("It is open 24/7.", False),
        ("On 12/25/2020 it snowed.", False),
        ("She got 3/4 of the vote.", False),
        ("It takes 2 - 3 weeks.", False),
        ("He was king 1990 - 2000 and 2 - 3 weeks more.", False),
        ("In C++ << writes to a stream: cout << 5;", False),
        ("x = 4", True),
        ("<<5>>", True),
        ("<MUL_6_9_54> words", True),
        ("He wrote 37 plays.\n#### 37", True),
        ("Rome", False),
        ("It began in 1960, with 4 computers.", False),
        ("He lived 1564-1616.", False),
        ("and/or 3", False),
        ("", False),
    ],
)
def test_what_counts_as_arithmetic(response, arithmetic):
    assert is_arithmetic(response) is arithmetic


def test_eight_prompts_of_each_domain():
    assert [sum(p.domain == d for p in PROMPTS) for d in DOMAINS] == [8] * 5 and len({p.text for p in PROMPTS}) == 40
    assert not any(is_arithmetic(p.text) for p in PROMPTS) and not any(is_arithmetic(text) for text in PROSE)


def test_bits_of_prose_equal_a_plain_forward_pass(model):
    paragraphs = [PROSE[0], "Short.", PROSE[1]]  # the first and the last are longer than the context of 64
    bits, tokens = prose_bits(model, TOKENIZER, paragraphs, torch.device("cpu"))
    expected, count = [], 0
    for text in paragraphs:
        ids = TOKENIZER.encode(text)
        count += len(ids)
        nats = 0.0
        for start in range(0, len(ids), 64):
            window = torch.tensor([EOT_ID, *ids[start : start + 64]])
            logits = model.logits(model.hidden(window[None, :-1]))[0]
            nats += F.cross_entropy(logits, window[1:], reduction="sum").item()
        expected.append(nats / math.log(2))
    assert bits == pytest.approx(expected, rel=1e-5) and tokens == count
    summary = prose_summary(bits, tokens, paragraphs)
    per_byte = [b / len(text.encode()) for b, text in zip(bits, paragraphs, strict=True)]
    assert summary["bits_per_byte"] == pytest.approx(sum(per_byte) / 3, abs=1e-6)
    assert summary["perplexity"] == pytest.approx(2 ** (sum(bits) / tokens), rel=1e-4)


def test_a_change_is_after_minus_before():
    found = prose_change([8.0, 16.0], [16.0, 40.0], ["12345678", "12345678"])
    assert found["bits_per_byte"] == 2.0 and found["bits_per_byte_95"][0] > 0


def test_responses_to_one_prompt_are_no_more_prompts():
    """Ten prompts, half of them answered with a calculation: eight samples of each are as sure as one."""
    row = {"numeric": False, "domain": "facts", "format_ok": True, "prediction": None, "finish_reason": "stop"}
    once, often = (
        run_domains.summarise([row | {"index": i, "arithmetic": i < 5} for i in range(10) for _ in range(samples)])
        for samples in (1, 8)
    )
    assert once["forced_arithmetic"] == often["forced_arithmetic"] == 0.5
    widths = [found["forced_arithmetic_95"][1] - found["forced_arithmetic_95"][0] for found in (once, often)]
    assert widths[1] > 0.9 * widths[0] > 0.4
    assert run_domains.summarise([row | {"numeric": True, "index": 0}])["forced_arithmetic_95"] == [0.0, 1.0]


def run(monkeypatch, **flags):
    argv = [f"--{name.replace('_', '-')}={value}" for name, value in flags.items()]
    monkeypatch.setattr(sys, "argv", ["run_domains.py", *argv])
    run_domains.main()


def test_a_model_of_nothing_but_facts_has_collapsed(tmp_path, monkeypatch, capsys, model):
    save_model_dir(model, tmp_path / "before", "mul_tokens")
    collapsed = random_gpt(model.config)
    with torch.no_grad():
        collapsed.ln_f.bias.fill_(1.0)
        collapsed.wte.weight[FIRST_MUL_ID + 5] = 5.0
    save_model_dir(collapsed, tmp_path / "after", "mul_tokens")
    run_json = {"stage": "sft", "condition": "mul_tokens", "parent": {"path": str(tmp_path / "before"), "run": None}}
    write_json(tmp_path / "after/run.json", run_json)
    flags = {"max_new_tokens": 4, "max_samples": 2, "output_dir": tmp_path / "out"}
    run(monkeypatch, model_path=tmp_path / "after", **flags)
    results, rows = (
        read_json(tmp_path / "out/domains_results.json"),
        read_jsonl(tmp_path / "out/domains_responses.jsonl"),
    )
    assert len(rows) == 10 and list(results["domains"]) == list(DOMAINS)
    assert results["overall"]["forced_arithmetic"] == 1 and results["overall"]["num_free"] == 10
    assert results["overall"]["numeric_answer"] == results["overall"]["format_compliance"] == 0
    assert results["domains"]["continuation"]["format_compliance"] is None
    assert [row["question"] for row in rows][-1] == PROMPTS[33].text
    prose = results["prose"]
    difference = prose["after"]["bits_per_byte"] - prose["before"]["bits_per_byte"]
    assert prose["change"]["bits_per_byte"] == pytest.approx(difference, abs=2e-6) and difference > 0.5
    assert "prose before" in capsys.readouterr().out
    assert read_json(tmp_path / "out/run_domains.json")["stage"] == "eval_domains"


def test_prose_of_ones_own_and_no_model_before(tmp_path, monkeypatch, capsys, model):
    save_model_dir(model, tmp_path / "model", "baseline")
    write_jsonl(tmp_path / "prose.jsonl", [{"text": "A first text."}, {"text": " "}, {"text": "A second one."}] * 2)
    flags = {"model_path": tmp_path / "model", "max_new_tokens": 2, "max_samples": 1, "output_dir": tmp_path / "out"}
    run(monkeypatch, **flags, prose_path=tmp_path / "prose.jsonl", max_documents=3)
    prose = read_json(tmp_path / "out/domains_results.json")["prose"]
    assert prose["after"]["paragraphs"] == 3 and set(prose) == {"after"}
    write_jsonl(tmp_path / "prose.jsonl", [{"text": " "}])
    with pytest.raises(UserError, match="holds no text"):
        run(monkeypatch, **flags, prose_path=tmp_path / "prose.jsonl")
