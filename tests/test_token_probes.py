"""What a model knows of its facts: models in which it was put there by hand, and models that know nothing."""

import math
import sys

import numpy as np
import pytest
import torch

from common.errors import UserError
from common.files import read_json, read_jsonl
from data.formats import chat_document
from data.world.family_arithmetic import NOTES, QUESTIONS
from eval import run_token_probes, token_probes
from eval.fact_attention import attention_of_facts, attention_weights, facts_in_context
from eval.token_probes import (
    MUL,
    embedding_clusters,
    fact_choices,
    nearest_number,
    probed,
    product_choices,
    rank_summary,
)
from pretrain.hf_weights import save_model_dir
from pretrain.model import GPT, GPTConfig
from tests.helpers import random_gpt
from tokenizer.gpt2_tiktoken import GPT2TokenizerWithMulFacts
from tokenizer.inject_mul import MulExpressionInjector
from tokenizer.mul_facts import FIRST_MUL_ID, VOCAB_SIZE, MulFactTokens

TOKENIZER = GPT2TokenizerWithMulFacts("mul_tokens")
ALL = GPT2TokenizerWithMulFacts("mul_tokens", "mul+add+square+div")
FACTS = [(*fact.operands, fact.value) for fact in MUL.facts]
PRODUCTS = MUL.results
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def fewer_permutations(monkeypatch):
    monkeypatch.setattr(token_probes, "PERMUTATIONS", 500)


@pytest.fixture(scope="module")
def model():
    return random_gpt(GPTConfig(n_layer=2, n_head=2, n_embd=16, block_size=64)).eval()


def with_fact_rows(rows: np.ndarray) -> GPT:
    model = GPT(GPTConfig(n_layer=1, n_head=1, n_embd=rows.shape[1], block_size=64))
    with torch.no_grad():
        model.wte.weight[FIRST_MUL_ID:VOCAB_SIZE] = torch.tensor(rows, dtype=torch.float32)
    return model


def test_embeddings_built_from_factors_or_products_are_found_out():
    rng = np.random.default_rng(0)
    digits, products = rng.normal(size=(10, 32)), rng.normal(size=(82, 32))
    by_factor = np.array([digits[a] + digits[b] for a, b, _ in FACTS])
    by_product = np.array([products[c] for *_, c in FACTS])
    by_size = np.array([[math.cos(math.log(c)), math.sin(math.log(c)), *([0] * 6)] for *_, c in FACTS])
    nothing = rng.normal(size=(45, 32))
    found = {name: embedding_clusters(with_fact_rows(rows)) for name, rows in
             {"factor": by_factor, "product": by_product, "size": by_size, "nothing": nothing}.items()}  # fmt: skip
    for relation in ("factor", "product", "size"):
        assert found[relation][relation]["p"] < 0.01, relation
        assert found["nothing"][relation]["p"] > 0.05, relation
    assert found["factor"]["factor"]["statistic"] > 0.3


def test_a_permutation_test_is_right_about_nothing():
    """Under the null its p-value is below 0.2 in a fifth of the cases."""
    rng = np.random.default_rng(1)
    models = [with_fact_rows(rng.normal(size=(45, 8))) for _ in range(40)]
    low = sum(embedding_clusters(model)["factor"]["p"] < 0.2 for model in models)
    assert 2 <= low <= 15


def test_related_pairs_are_those_that_one_counts():
    found = embedding_clusters(with_fact_rows(np.random.default_rng(0).normal(size=(45, 8))))
    pairs = [(x, y) for i, x in enumerate(FACTS) for y in FACTS[:i]]
    assert found["factor"]["related_pairs"] == sum(bool({*x[:2]} & {*y[:2]}) for x, y in pairs)
    assert found["product"]["related_pairs"] == sum(x[2] == y[2] for x, y in pairs) == 9


def test_the_nearest_number():
    model = GPT(GPTConfig(n_layer=1, n_head=1, n_embd=64, block_size=64))
    with torch.no_grad():
        for i, (_, _, c) in zip(MulFactTokens().ids, FACTS, strict=True):
            model.wte.weight[i] = 3 * model.wte.weight[TOKENIZER.encode(f" {c}")[0]]
    found = nearest_number(model, TOKENIZER)
    assert found["is_product"]["share"] > 0.9 and found["chance_product"] == round(1 / 81, 6)


def test_choices_equal_a_plain_forward_pass(model):
    rows = fact_choices(model, TOKENIZER, CPU)
    assert len(rows) == 4 * 81
    for row in rows[::53]:
        ids = TOKENIZER.encode(row["lead_in"].format(a=row["a"], b=row["b"]) + " ")
        logprobs = model.logits(model.hidden(torch.tensor([ids])))[0, -1].log_softmax(-1)[FIRST_MUL_ID:]
        right = logprobs[MulFactTokens().id_of(row["a"], row["b"]) - FIRST_MUL_ID].item()
        assert row["logprob"] == pytest.approx(right, abs=1e-4)
        assert row["rank"] == 1 + int((logprobs > right + 1e-6).sum())
        assert row["mass"] == pytest.approx(logprobs.exp().sum().item(), rel=1e-3)


@pytest.mark.parametrize("spelled", [True, False])
def test_products_equal_a_plain_forward_pass(model, spelled):
    rows = product_choices(model, TOKENIZER, CPU, spelled)
    assert [(row["a"], row["b"]) for row in rows] == [(a, b) for a, b, _ in FACTS]
    a, b, c = FACTS[17]
    if spelled:
        context = TOKENIZER.encode("<MUL") + TOKENIZER.encode(f"_{a}_{b}_")
        assert TOKENIZER.decode(context) == f"<MUL_{a}_{b}_" and max(context) < FIRST_MUL_ID
    else:
        context = TOKENIZER.encode(f"There are <MUL_{a}_{b}_{c}> = <<<MUL_{a}_{b}_{c}>>>")
    totals = []
    for product in PRODUCTS:
        ending = TOKENIZER.encode(f"{product}>" if spelled else f"{product}")
        logits = model.logits(model.hidden(torch.tensor([context + ending])))[0].log_softmax(-1)
        totals.append(sum(logits[len(context) - 1 + i, token].item() for i, token in enumerate(ending)))
    assert rows[17]["first"] == PRODUCTS[int(np.argmax(totals))]
    assert rows[17]["rank"] == 1 + sum(total > totals[PRODUCTS.index(c)] + 1e-6 for total in totals)


def test_a_rank_summary_by_hand():
    rows = [{"a": 2, "b": 3, "rank": 1}, {"a": 3, "b": 2, "rank": 4}, {"a": 5, "b": 5, "rank": 2}]
    found = rank_summary(rows, 45)
    # By fact: 2 × 3 in both orders is one.
    assert found["share"] == (1 / 2 + 0) / 2 and found["chance"] == round(1 / 45, 6)
    assert (found["n"], found["n_facts"]) == (3, 2)
    assert found["mean_reciprocal_rank"] == round(((1 + 1 / 4) / 2 + 1 / 2) / 2, 6)


def test_rows_of_a_fact_are_no_more_facts():
    """Half of the facts are known: asked once or eight times, the share is as sure."""
    once = [{"a": a, "b": b, "rank": 1 + i % 2} for i, (a, b, _) in enumerate(FACTS)]
    found = rank_summary(once, 45)
    low, high = found["wilson_95"]
    again = rank_summary(once * 8, 45)
    assert again["share"] == found["share"] and "wilson_95" not in again
    assert again["bootstrap_95"][1] - again["bootstrap_95"][0] > 0.9 * (high - low) > 0.2


def test_attention_weights_make_the_models_own_output(model):
    """Weights times values, projected, is what the attention of the first layer adds."""
    idx = torch.tensor([TOKENIZER.encode("There are 6 boxes with 9 pens in each.")])
    weights = attention_weights(model, idx)
    assert weights.shape == (2, 1, 2, idx.size(1), idx.size(1))
    assert torch.allclose(weights.sum(-1), torch.ones(1)) and weights.triu(1).abs().max() == 0
    block = model.h[0]
    x = block.ln_1(model.wte(idx) + model.wpe(torch.arange(idx.size(1))))
    v = block.attn.c_attn(x).chunk(3, dim=2)[2].view(1, -1, 2, 8).transpose(1, 2)
    ours = block.attn.c_proj((weights[0] @ v).transpose(1, 2).reshape(1, -1, 16))
    theirs = block.attn(x, None, 0, None, None)
    assert torch.allclose(ours, theirs, atol=1e-5)


def test_contexts_say_where_facts_and_factors_stand():
    contexts = facts_in_context(TOKENIZER)
    assert len(contexts) == 81
    context = contexts[5 * 9 + 8]  # 6 × 9
    assert TOKENIZER.decode([context.ids[context.fact]]) == "<MUL_6_9_54>"
    assert [TOKENIZER.decode([context.ids[i]]) for i in context.factors] == [" 6", " 9"]
    assert TOKENIZER.decode([context.ids[context.noted]]) == "<MUL_6_9_54>"
    assert TOKENIZER.decode([context.ids[context.reader]]) == ">>" and context.reader == len(context.ids) - 1
    assert all(c.factors and max(c.factors) < c.fact < c.noted < c.reader for c in contexts)


def test_spelled_factors_are_found():
    context = facts_in_context(GPT2TokenizerWithMulFacts("mul_tokens", "mul+digits"))[5 * 9 + 8]
    assert [context.ids[i] for i in context.factors] == [50261 + 4 * 6, 50261 + 4 * 9]  # <DIGIT_6_0>, <DIGIT_9_0>


def test_facts_are_asked_for_as_injected_text_has_them():
    """The ids before a fact and its result are those of a problem of the generated world."""
    problem = "User: There are 6 boxes with 9 pens in each.\nAssistant: There are 6 * 9 = <<6*9=54>>54 pens."
    ids = TOKENIZER.encode(MulExpressionInjector().inject(problem))
    fact = MulFactTokens().id_of(6, 9)
    note = TOKENIZER.encode(f" There are {MUL.note(6, 9, 54)}54 pens.")
    assert ids[-len(note) :] == note and ids.count(fact) == 2
    lead = TOKENIZER.encode(" There are ")
    assert ids[ids.index(fact) - len(lead) : ids.index(fact)] == lead


@pytest.mark.parametrize("name", ["add", "square", "div"])
def test_facts_of_other_families_are_asked_for_as_their_training_text_has_them(name):
    family, injector = probed(name), MulExpressionInjector(families=name)
    assert (len(family.asked), len(family.lead_ins)) == {"add": (81, 2), "square": (20, 1), "div": (72, 2)}[name]
    questions = [question for question in QUESTIONS[name] if f"User: {question}\nAssistant:" in family.lead_ins]
    for fact, a, b in family.asked[::7]:
        numbers = {"a": a, "b": b, "c": fact.value}
        for question, lead in zip(questions, family.lead_ins, strict=True):
            document = injector.inject(chat_document(question.format(**numbers), NOTES[name].format(**numbers)))
            ids = ALL.encode(document)
            before = ALL.encode(f"{lead.format(a=a, b=b)} {family.before_fact(fact, a, b)}")
            assert ids[: ids.index(fact.id)] == before
        assert document.endswith(family.note(a, b, fact.value) + str(fact.value))
        assert family.note(a, b, fact.value).endswith(f"<<{fact.token}>>")


@pytest.fixture(scope="module")
def large():
    """A model with rows for all families."""
    return random_gpt(GPTConfig(n_layer=1, n_head=2, n_embd=16, block_size=64, vocab_size=ALL.vocabulary.size)).eval()


def test_choices_among_quotients_equal_a_plain_forward_pass(large):
    family = probed("div")
    for row in fact_choices(large, ALL, CPU, family)[::31]:
        ids = ALL.encode(row["lead_in"].format(a=row["a"], b=row["b"]) + " ")
        logprobs = large.logits(large.hidden(torch.tensor([ids])))[0, -1].log_softmax(-1)[family.ids]
        [right] = [i for i, fact in enumerate(family.facts) if fact.operands == (row["a"], row["b"])]
        assert row["logprob"] == pytest.approx(logprobs[right].item(), abs=1e-4)
        assert row["rank"] == 1 + int((logprobs > logprobs[right] + 1e-6).sum())
    spelled = product_choices(large, ALL, CPU, True, family)
    assert len(spelled) == 72 and {row["first"] for row in spelled} <= set(range(1, 10))


def test_clusters_of_other_families():
    rng, family = np.random.default_rng(0), probed("div")
    by_result = rng.normal(size=(10, 32))
    model = GPT(GPTConfig(n_layer=1, n_head=1, n_embd=32, block_size=64, vocab_size=ALL.vocabulary.size))
    with torch.no_grad():
        rows = np.array([by_result[fact.value] + 0.1 * rng.normal(size=32) for fact in family.facts])
        model.wte.weight[family.ids] = torch.tensor(rows, dtype=torch.float32)
    found = embedding_clusters(model, 0, family)
    assert found["result"]["p"] < 0.01 and found["result"]["related_pairs"] == 9 * math.comb(8, 2)
    assert set(found) == {"operand", "result", "size"}
    assert set(embedding_clusters(model, 0, probed("square"))) == {"size"}, "no two squares share a number"


def test_equal_attention_is_called_equal():
    """A model whose queries and keys are all zero looks at everything alike."""
    model = random_gpt(GPTConfig(n_layer=1, n_head=2, n_embd=16, block_size=64))
    with torch.no_grad():
        model.h[0].attn.c_attn.weight.zero_()
        model.h[0].attn.c_attn.bias.zero_()
    found = attention_of_facts(model, facts_in_context(TOKENIZER)[:20], CPU)
    for name in ("choice_to_factors", "fact_to_factors", "result_to_fact"):
        assert found[name][0] == pytest.approx([found[f"{name}_uniform"]] * 2, abs=1e-5)
    assert found["choice_to_factors_uniform"] > found["fact_to_factors_uniform"] > found["result_to_fact_uniform"]


@pytest.mark.parametrize("condition", ["mul_tokens", "baseline"])
def test_the_script(tmp_path, monkeypatch, capsys, model, condition):
    for name in ("mul_tokens", "baseline"):
        save_model_dir(model, tmp_path / name, name)
    flags = [f"--model-path={tmp_path / condition}", f"--output-dir={tmp_path / 'out'}"]
    flags += [f"--null-path={tmp_path / 'baseline'}"] if condition == "mul_tokens" else []
    monkeypatch.setattr(sys, "argv", ["run_token_probes.py", *flags])
    run_token_probes.main()
    results = read_json(tmp_path / "out/token_probes_results.json")
    kinds = {row["kind"] for row in read_jsonl(tmp_path / "out/token_probes_choices.jsonl")}
    plots = {path.name for path in (tmp_path / "out").glob("*.png")}
    if condition == "mul_tokens":
        assert list(results["embedding_clusters"]) == ["model", "null (baseline)"]
        assert kinds == {"spelled_prefix", "product_behind_fact", "fact"}
        assert plots == {"token_embeddings.png", "token_choices.png", "token_attention.png"}
        assert len(results["fact_choices"]) == 5 and results["attention"]["result_to_fact"]
    else:
        assert kinds == {"spelled_prefix"} and plots == {"token_embeddings.png"} and "attention" not in results
    assert "product behind a spelled <MUL_a_b_: first choice" in capsys.readouterr().out
    assert read_json(tmp_path / "out/run_token_probes.json")["stage"] == "eval_token_probes"


def test_the_script_asks_every_family_of_the_model(tmp_path, monkeypatch, capsys, large):
    save_model_dir(large, tmp_path / "all", "mul_tokens", families="mul+add+square+div+digits")
    save_model_dir(GPT(GPTConfig(n_layer=1, n_head=1, n_embd=8, block_size=64)), tmp_path / "other", "baseline")
    flags = [f"--model-path={tmp_path / 'all'}", f"--output-dir={tmp_path / 'out'}"]
    monkeypatch.setattr(sys, "argv", ["run_token_probes.py", *flags])
    run_token_probes.main()
    results = read_json(tmp_path / "out/token_probes_results.json")
    assert list(results["families"]) == ["add", "square", "div"] and results["fact_choices"]
    assert results["attention"]["fact_to_factors_uniform"] > 0 and results["nearest_number"] == {}
    for name, found in results["families"].items():
        assert set(found) == {"embedding_clusters", "fact_choices", "spelled_prefix", "product_behind_fact"}
        assert found["fact_choices"]["overall"]["n_facts"] == len(probed(name).facts)
    rows = read_jsonl(tmp_path / "out/token_probes_choices.jsonl")
    assert {row.get("family") for row in rows} == {None, "add", "square", "div"}
    out = capsys.readouterr().out
    for spelled in ("product behind a spelled <MUL_a_b_", "result behind a spelled <ADD_a_b_", "spelled <SQUARE_a_"):
        assert f"{spelled}: first choice" in out
    monkeypatch.setattr(sys, "argv", ["run_token_probes.py", *flags, f"--null-path={tmp_path / 'other'}"])
    with pytest.raises(UserError, match="has other token families than mul"):
        run_token_probes.main()


def test_a_stock_gpt2_has_no_facts(tmp_path, monkeypatch):
    stock = GPT(GPTConfig(n_layer=1, n_head=1, n_embd=8, block_size=64, vocab_size=50257))
    save_model_dir(stock, tmp_path / "gpt2", "baseline")
    monkeypatch.setattr(sys, "argv", ["x", f"--model-path={tmp_path / 'gpt2'}", f"--output-dir={tmp_path}"])
    with pytest.raises(UserError, match="none for the facts"):
        run_token_probes.main()


def test_digits_alone_are_no_facts_to_ask_for(tmp_path, monkeypatch):
    digits = GPT(GPTConfig(n_layer=1, n_head=1, n_embd=8, block_size=64))
    save_model_dir(digits, tmp_path / "digits", "mul_tokens", families="digits")
    monkeypatch.setattr(sys, "argv", ["x", f"--model-path={tmp_path / 'digits'}", f"--output-dir={tmp_path}"])
    with pytest.raises(UserError, match="token families digits, none of facts"):
        run_token_probes.main()
