"""HellaSwag: items, both protocols, the scorer against a plain forward pass of transformers, and its script."""

import importlib.util
import json
import math
import sys
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from helpers import SHARED_DATA, random_gpt, run
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from common.distributed import World
from common.errors import UserError, run_script
from common.files import read_json, read_jsonl, write_json, write_jsonl
from data.benchmark_texts import hellaswag_texts, texts_sha256
from data.hellaswag import HellaSwagItem, load_hellaswag
from eval import run_hellaswag
from eval.continuations import continuation_logprobs
from eval.hellaswag import (
    METRICS,
    ItemScore,
    encode_texts,
    hellaswag_accuracy,
    preprocess,
    score_items,
    summarise,
)
from pretrain.hf_weights import save_model_dir
from pretrain.model import GPT, GPTConfig
from scripts import bench_hellaswag
from tokenizer.gpt2_tiktoken import GPT2TokenizerWithMulFacts

CPU = torch.device("cpu")
TOKENIZER = GPT2TokenizerWithMulFacts("baseline")

# In the original's schema. The third one's context ends where wikiHow's substeps begin.
ORIGINAL = [
    {
        "ind": 24,
        "activity_label": "Roof shingle removal",
        "ctx_a": "A man is sitting on a roof.",
        "ctx_b": "he",
        "ctx": "A man is sitting on a roof. he",
        "endings": [
            "is using wrap to wrap a pair of skis.",
            "is ripping level tiles off.",
            "is.",
            "starts pulling up.",
        ],
        "label": "3",
    },
    {
        "ind": 92,
        "activity_label": "Food and Entertaining",
        "ctx_a": "[header] How to peel a mango [title] Wash it. [step] Hold it under water.",
        "ctx_b": "",
        "ctx": "[header] How to peel a mango [title] Wash it. [step] Hold it under water.",
        "endings": ["[step] Dry it.", "Then  [substeps] cut it.", "[title] Cut. [step] Slice.", "Eat it."],
        "label": "0",
    },
    {
        "ind": 106,
        "activity_label": "Home",
        "ctx_a": "[header] How to sweep [step] Take a broom. [substeps]",
        "ctx_b": "",
        "ctx": "[header] How to sweep [step] Take a broom. [substeps]",
        "endings": ["Sweep 6*9 tiles.", "Sing.", "Take a broom to the yard, and then a brush, and a cloth.", "Sweep."],
        "label": "2",
    },
]
PLAIN = [
    {"ind": i, "ctx": f"Passage {i}: somebody begins. " + "Then she goes on. " * (i % 4) + "She", "label": i % 4}
    | {"endings": ["stops.", f"walks {i} miles to the next village.", "sings a song about it", "sings."]}
    for i in range(5)
]


def items_of(rows, tmp_path, **options) -> list[HellaSwagItem]:
    write_jsonl(tmp_path / "rows.jsonl", rows)
    return load_hellaswag(tmp_path / "rows.jsonl", **options)


@pytest.fixture(scope="module")
def model():
    return random_gpt(GPTConfig(n_layer=2, n_head=2, n_embd=16, block_size=64)).eval()


@pytest.fixture
def items(tmp_path):
    return items_of(ORIGINAL + PLAIN, tmp_path)


def score(model, items, **options):
    return score_items(model, items, "baseline", CPU, torch.float32, **options)


def assert_close(scores, others, tolerance=1e-5):
    for a, b in zip(scores, others, strict=True):
        assert (a.index, a.id, a.token_counts, a.char_counts) == (b.index, b.id, b.token_counts, b.char_counts)
        np.testing.assert_allclose(a.raw_logprobs, b.raw_logprobs, rtol=tolerance)
        np.testing.assert_allclose(a.preprocessed_logprobs, b.preprocessed_logprobs, rtol=tolerance)


# --- items


def test_a_file_parquet_and_a_folder_give_the_same_items(items, tmp_path):
    (tmp_path / "folder").mkdir()
    pq.write_table(pa.Table.from_pylist(ORIGINAL), tmp_path / "folder" / "validation.parquet")
    assert load_hellaswag(tmp_path / "folder") == items[:3]
    assert load_hellaswag(tmp_path / "rows.jsonl", 4) == items[:4]


def test_each_protocol_has_its_own_text_where_the_row_has_the_fields(items):
    assert (items[0].id, items[0].label, items[3].id, items[3].label) == ("24", 3, "0", 0)
    assert items[0].context == "A man is sitting on a roof. he"
    assert items[0].labelled_context == "Roof shingle removal: A man is sitting on a roof. He"
    assert items[3].labelled_context == items[3].context == PLAIN[0]["ctx"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ctx": None}, 'item 2: expected an object with "ind" and the string "ctx"'),
        ({"endings": ["a", "b", "c"]}, 'item 2: expected 4 strings under "endings"'),
        ({"endings": ["a", "b", "c", 4]}, 'item 2: expected 4 strings under "endings"'),
        ({"label": ""}, "item 2: \"label\" is '', expected 0 to 3"),
        ({"label": 4}, 'item 2: "label" is 4, expected 0 to 3'),
    ],
)
def test_a_bad_row_is_named(tmp_path, change, message):
    with pytest.raises(UserError, match=message):
        items_of([PLAIN[0], PLAIN[1] | change], tmp_path)


def test_items_that_share_a_number_are_told_apart(tmp_path):
    found = items_of([PLAIN[0], PLAIN[1] | {"ind": 0}, PLAIN[1] | {"ind": 5}, PLAIN[1] | {"ind": 0}], tmp_path)
    assert [item.id for item in found] == ["0", "0#2", "5", "0#3"]


@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason="needs shared/data")
def test_the_real_items_load():
    items = load_hellaswag(SHARED_DATA / "hellaswag" / "val_2000.jsonl")
    assert len(items) == 2000 and items[0].id == "1" and {item.label for item in items} == {0, 1, 2, 3}


# --- texts and ids


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("  Cut it. [title] Peel it. ", "Cut it.. Peel it."),
        ("[header] How to  sweep [step] Go. [substeps]", " How to sweep Go. "),
        ("four    blanks", "four  blanks"),
    ],
)
def test_preprocessing_is_the_harness(text, expected):
    """Worked out by hand from its four steps: strip, " [title]" to ". ", brackets out, two blanks to one, once."""
    assert preprocess(text) == expected


@given(
    context=st.text(st.sampled_from("ab.,'7 \n\té×"), min_size=1).filter(str.strip),
    ending=st.text(st.sampled_from("ab.,'7 \n\té×")),
)
def test_encoding_apart_gives_the_ids_of_encoding_whole(context, ending):
    """The harness's way: blanks at the context's end move to the ending, then the whole string's ids are cut."""
    stripped = context.rstrip()
    ending = f"{context[len(stripped) :]} {ending}"
    [[(context_ids, ending_ids)]] = encode_texts([(stripped, [ending])], TOKENIZER)
    whole = TOKENIZER.encode(stripped + ending)
    assert [*context_ids, *ending_ids] == whole
    assert list(context_ids) == TOKENIZER.encode(stripped)


def test_both_conditions_see_the_same_ids(model, items):
    assert_close(score(model, items), score_items(model, items, "mul_tokens", CPU, torch.float32))


# --- log-probabilities


def test_scores_equal_a_plain_forward_pass_of_transformers(model, items, tmp_path):
    """Context and ending as one sequence, every logit, no cache, no batch; float64 sums."""
    save_model_dir(model, tmp_path / "hf", "baseline")
    hf = AutoModelForCausalLM.from_pretrained(tmp_path / "hf").eval()

    def logprob(context, ending):
        context_ids, ending_ids = TOKENIZER.encode(context), TOKENIZER.encode(ending)
        with torch.inference_mode():
            logprobs = hf(torch.tensor([context_ids + ending_ids])).logits[0].double().log_softmax(-1)
        return sum(logprobs[len(context_ids) + i - 1, token].item() for i, token in enumerate(ending_ids)), ending_ids

    for item, found in zip(items, score(model, items), strict=True):
        raw = [logprob(item.context, f" {ending}") for ending in item.endings]
        np.testing.assert_allclose(found.raw_logprobs, [value for value, _ in raw], rtol=1e-5)
        assert found.token_counts == [len(ids) for _, ids in raw]
        context = preprocess(item.labelled_context)
        blanks = context[len(context.rstrip()) :]
        endings = [preprocess(ending) for ending in item.endings]
        expected = [logprob(context.rstrip(), f"{blanks} {ending}")[0] for ending in endings]
        np.testing.assert_allclose(found.preprocessed_logprobs, expected, rtol=1e-5)
        assert found.char_counts == [len(ending) for ending in endings]


def test_a_score_does_not_depend_on_its_batch(model, items):
    together = score(model, items)
    alone = [replace(score(model, [item])[0], index=i) for i, item in enumerate(items)]
    assert_close(together, alone)
    assert_close(together, score(model, items, batch_tokens=32))
    backwards = [replace(s, index=len(items) - 1 - s.index) for s in score(model, items[::-1])]
    assert_close(together, backwards[::-1])
    assert [s.choices for s in together] == [s.choices for s in alone]


def test_what_does_not_fit_is_cut_from_the_left():
    """Seeded random pairs around the limit of a 24-token context, among them contexts that fill it alone."""
    rng = np.random.default_rng(0)
    model = random_gpt(GPTConfig(n_layer=1, n_head=2, n_embd=16, block_size=24, vocab_size=50)).eval()
    pairs = []
    for ending_length in (1, 2, 3, 7, 20, 24):
        for context_length in {1, 2, 12, 25 - ending_length}:
            ids = rng.integers(0, 50, min(context_length, 25 - ending_length) + ending_length).tolist()
            pairs.append((tuple(ids[:-ending_length]), tuple(ids[-ending_length:])))
    found = continuation_logprobs(model, pairs, CPU, torch.float32, batch_tokens=64)
    for (context, ending), value in zip(pairs, found, strict=True):
        with torch.inference_mode():
            logits = model.logits(model.hidden(torch.tensor([[*context, *ending]])[:, :-1]))[0, -len(ending) :]
        expected = logits.double().log_softmax(-1)[range(len(ending)), list(ending)].sum().item()
        assert value == pytest.approx(expected, rel=1e-5)


def test_a_long_context_keeps_its_end(items):
    model = random_gpt(GPTConfig(n_layer=1, n_head=2, n_embd=16, block_size=20)).eval()
    long = replace(items[3], context="Something else entirely. " * 9 + items[3].context)
    [found] = score(model, [long], metrics=("acc_norm_token",))
    for ending, value in zip(long.endings, found.raw_logprobs, strict=True):
        ids, ending_ids = TOKENIZER.encode(long.context + " " + ending), TOKENIZER.encode(" " + ending)
        with torch.inference_mode():
            logits = model.logits(model.hidden(torch.tensor([ids[-21:-1]])))[0, -len(ending_ids) :]
        expected = logits.double().log_softmax(-1)[range(len(ending_ids)), ending_ids].sum().item()
        assert value == pytest.approx(expected, rel=1e-5)


def test_an_ending_longer_than_the_context_is_refused(items):
    model = GPT(GPTConfig(n_layer=1, n_head=1, n_embd=8, block_size=8))
    with pytest.raises(UserError, match="item 24: an ending has 11 tokens, the context 8"):
        score(model, items)


def test_one_protocol_alone_gives_its_own_numbers(model, items):
    both = score(model, items)
    token = [s.raw_logprobs for s in score(model, items, metrics=("acc_norm_token",))]
    char = score(model, items, metrics=("acc_norm_char",))
    np.testing.assert_allclose(token, [s.raw_logprobs for s in both], rtol=1e-5)
    assert char[0].raw_logprobs == [] and set(char[0].choices) == {"acc_norm_char", "acc"}
    assert [s.choices["acc"] for s in char] == [s.choices["acc"] for s in both]


def test_equal_texts_of_both_protocols_are_computed_once(model, items, monkeypatch):
    counted = []

    def count(model, pairs, *arguments):
        counted.append(len(pairs))
        return continuation_logprobs(model, pairs, *arguments)

    monkeypatch.setattr("eval.hellaswag.continuation_logprobs", count)
    score(model, items[3:])
    score(model, items[:1])
    assert counted == [4 * len(items[3:]), 8]


def test_the_model_and_the_random_state_are_left_as_they_were(model, items):
    model.train()
    before = torch.get_rng_state()
    score(model, items[:2])
    assert model.training and torch.equal(torch.get_rng_state(), before)
    model.eval()
    score(model, items[:2])
    assert not model.training


# --- metrics


class Constructed(torch.nn.Module):
    """A model that predicts the next token from nothing but `logprobs` (V,): the head's weights give the logits."""

    def __init__(self, logprobs: torch.Tensor):
        super().__init__()
        self.config = GPTConfig(n_layer=1, n_head=1, n_embd=1, block_size=64, vocab_size=len(logprobs))
        self.wte = torch.nn.Embedding.from_pretrained(logprobs[:, None])

    def hidden(self, idx, cache=None, lengths=None):
        return torch.ones(*idx.shape, 1)


def test_the_three_metrics_choose_as_worked_out_by_hand():
    """nats: " table" -8, " b" -4, "!" -1, "..." -1.5, whatever is before them."""
    nats = torch.full((50349,), math.nan)
    for text, value in ((" table", -8.0), (" b", -4.0), ("!", -1.0), ("...", -1.5)):
        [token] = TOKENIZER.encode(text)
        nats[token] = value
    rest = nats.isnan()
    nats[rest] = math.log((1 - nats[~rest].exp().sum().item()) / int(rest.sum()))  # so that logits are nats
    endings = ("table", "b", "b!", "table...")
    item = HellaSwagItem("x", "A", "A", endings, label=1)
    [found] = score(Constructed(nats), [item])
    np.testing.assert_allclose(found.raw_logprobs, [-8, -4, -5, -9.5], rtol=1e-5)
    assert (found.token_counts, found.char_counts) == ([1, 1, 2, 2], [5, 1, 2, 8])
    # per token -8, -4, -2.5, -4.75; per character -1.6, -4, -2.5, -1.19; sums as above
    assert found.choices == {"acc_norm_token": 2, "acc_norm_char": 3, "acc": 1}
    assert found.correct == {"acc_norm_token": False, "acc_norm_char": False, "acc": True}


@pytest.mark.parametrize(
    ("raw", "tokens", "preprocessed", "characters", "expected"),
    [
        ([-6, -8, -9, -20], [2, 4, 3, 4], [-6, -8, -9, -20], [6, 9, 18, 10], (1, 2, 0)),  # all three differ
        ([-4, -4, -4, -4], [2, 2, 2, 2], [-4, -4, -4, -4], [4, 4, 4, 4], (0, 0, 0)),  # the first of equal ones
        ([-9, -2, -4, -2], [1, 1, 2, 1], [-9, -2, -4, -2], [1, 2, 4, 2], (1, 1, 1)),
        ([-1, -1, -1, -2], [1, 1, 1, 1], [-1, -9, -9, -9], [0, 9, 9, 9], (0, 1, 0)),  # an ending left empty
    ],
)
def test_choices_from_hand_made_log_probabilities(raw, tokens, preprocessed, characters, expected):
    found = ItemScore(0, "x", 1, raw, tokens, preprocessed, characters)
    assert tuple(found.choices[metric] for metric in METRICS) == expected
    assert tuple(found.correct[metric] for metric in METRICS) == tuple(choice == 1 for choice in expected)


def test_summary():
    """3 of 4 right: stderr of the mean sqrt(.75 * .25 / 3) = .25."""
    scores = [ItemScore(i, str(i), label, [-1, -2, -3, -4], [1] * 4, [], []) for i, label in enumerate((0, 0, 0, 1))]
    summary = summarise(scores)
    assert list(summary) == ["acc_norm_token"]
    assert summary["acc_norm_token"] | {"wilson_95": None} == {
        "value": 0.75,
        "stderr": 0.25,
        "n": 4,
        "num_correct": 3,
        "wilson_95": None,
    }
    low, high = summary["acc_norm_token"]["wilson_95"]
    assert (low, high) == pytest.approx((0.3006, 0.9544), abs=1e-4)


def test_the_training_log_gets_the_accuracy_with_its_error(model, items):
    row = hellaswag_accuracy(model, items, "baseline", World(0, 1, CPU), torch.float32)
    expected = summarise(score(model, items))["acc_norm_token"]
    assert list(row.values()) == [expected["value"], expected["stderr"], expected["n"]]


# --- the script


@pytest.fixture(scope="module")
def workspace(tmp_path_factory, model):
    root = tmp_path_factory.mktemp("hellaswag")
    save_model_dir(model, root / "hf_baseline", "baseline")
    write_json(root / "hf_baseline" / "run.json", {"stage": "export", "condition": "baseline"})
    write_jsonl(root / "rows.jsonl", ORIGINAL + PLAIN)
    return root


def arguments(workspace, output, *flags) -> list[str]:
    common = ["--model-path", workspace / "hf_baseline", "--data-path", workspace / "rows.jsonl", "--device", "cpu"]
    return [str(flag) for flag in (*common, "--output-dir", output, *flags)]


def script(monkeypatch, *given):
    monkeypatch.setattr(sys, "argv", ["run_hellaswag.py", *arguments(*given)])
    run_script(run_hellaswag.main)


def test_the_script_on_two_processes_equals_one(workspace, items, tmp_path, monkeypatch, capsys):
    script(monkeypatch, workspace, tmp_path / "one", "--dtype", "float32")
    printed = capsys.readouterr().out
    assert all(metric in printed for metric in METRICS)
    flags = arguments(workspace, tmp_path / "two", "--dtype", "float32")
    run("eval/run_hellaswag.py", *flags, processes=2)
    one, two = (read_jsonl(tmp_path / name / "hellaswag_responses.jsonl") for name in ("one", "two"))
    assert [row["id"] for row in one] == [row["id"] for row in two] == [item.id for item in items]
    for a, b in zip(one, two, strict=True):
        assert (a["choices"], a["correct"]) == (b["choices"], b["correct"])
        np.testing.assert_allclose(a["raw_logprobs"], b["raw_logprobs"], rtol=1e-5)
    results = read_json(tmp_path / "one" / "hellaswag_results.json")
    assert results == read_json(tmp_path / "two" / "hellaswag_results.json")
    for metric in METRICS:
        assert results[metric]["num_correct"] == sum(row["correct"][metric] for row in one)
    record = read_json(tmp_path / "one" / "run_hellaswag.json")
    assert (record["stage"], record["condition"], record["data"]["items"]) == ("eval_hellaswag", "baseline", 8)
    assert record["parent"]["run"]["stage"] == "export" and record["results"] == results


def test_the_clean_subset(workspace, items, tmp_path, monkeypatch):
    flagged = {"24": {}, "0": {}}
    part = {"items": 8, "sha256": texts_sha256(hellaswag_texts(items)), "flagged": flagged}
    write_json(tmp_path / "contamination.json", {"n": 13, "sources": [], "benchmarks": {"hellaswag": part}})
    script(monkeypatch, workspace, tmp_path / "out", "--contamination", tmp_path / "contamination.json")
    results = read_json(tmp_path / "out" / "hellaswag_results.json")
    rows = read_jsonl(tmp_path / "out" / "hellaswag_responses.jsonl")
    for metric in METRICS:
        expected = [row["correct"][metric] for row in rows if row["id"] not in flagged]
        assert (results["clean"][metric]["n"], results["clean"][metric]["num_correct"]) == (6, sum(expected))

    write_json(tmp_path / "all.json", {"benchmarks": {"hellaswag": part | {"flagged": {i.id: {} for i in items}}}})
    script(monkeypatch, workspace, tmp_path / "none_clean", "--contamination", tmp_path / "all.json")
    assert read_json(tmp_path / "none_clean" / "hellaswag_results.json")["clean"] == {}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--data-path", "absent.jsonl"], "absent.jsonl does not exist"),
        (["--max-samples", "0"], "--max-samples 0: expected at least 1"),
        (["--condition", "mul_tokens"], "is a model of baseline"),
    ],
)
def test_wrong_input_is_one_line(workspace, tmp_path, monkeypatch, capsys, flags, message):
    with pytest.raises(SystemExit) as stop:
        script(monkeypatch, workspace, tmp_path, *flags)
    stderr = capsys.readouterr().err
    assert stop.value.code == 2
    assert stderr.startswith("error: ") and message in stderr and stderr.count("\n") == 1


# --- the harness itself, where it is installed


def test_texts_are_the_harness_own(items):
    utils = pytest.importorskip("lm_eval.tasks.hellaswag.utils")
    datasets = pytest.importorskip("datasets")
    docs = utils.process_docs(datasets.Dataset.from_list(ORIGINAL))
    for doc, item in zip(docs, items, strict=False):
        assert doc["query"] == preprocess(item.labelled_context)
        assert doc["choices"] == [preprocess(ending) for ending in item.endings]


def test_choices_equal_the_harness_on_every_item(workspace, tmp_path):
    pytest.importorskip("lm_eval")
    done = run(
        "scripts/bench_hellaswag.py",
        *("--model-path", workspace / "hf_baseline", "--data-path", workspace / "rows.jsonl", "--device", "cpu"),
        *("--rounds", 1, "--batch-sizes", 4, "--output", tmp_path / "bench.json"),
    )
    figures = json.loads((tmp_path / "bench.json").read_text())
    assert figures["equal_choices"] == {"acc": 8, "acc_norm_char": 8}, done.stdout
    assert figures["ratio"] > 0 and figures["largest_difference"] < 1e-3


@pytest.mark.skipif(importlib.util.find_spec("lm_eval") is not None, reason="lm_eval is installed")
def test_without_the_harness_the_benchmark_says_how_to_get_it(workspace, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["bench_hellaswag.py", "--model-path", str(workspace / "hf_baseline")])
    with pytest.raises(UserError, match=r"uv pip install 'lm_eval\[hf\]==0\.4\.13'"):
        bench_hellaswag.main()
