"""Does lm-evaluation-harness find the same as our evaluations? HellaSwag and GSM8K from local files, on one model.

    uv run python scripts/check_against_lm_eval.py --model-path outputs/sft_gsm8k_baseline \
        --hellaswag validation.jsonl --gsm8k data/raw/gsm8k/test.jsonl

Both get the same prompts and limits, in float32. HellaSwag: log-likelihoods of all endings within 3e-5 of their size,
and the choices of acc and acc_norm (our acc_norm_char) equal. Relative, for the rounding of a sum grows with what is
summed: a limit in nats is tight for an ending of 300 nats and loose for one of 3. GSM8K: greedy texts equal, and with
them both exact matches. The harness generates with transformers' GPT2LMHeadModel, so this checks model, export,
tokenizer, engine and scoring together. Texts may part where two tokens are equally likely up to rounding; such ties are
counted, not called a difference. Exit code 1 when something differs. The harness is not a dependency: without it the
script says so and ends with code 0. Install it beside the project's packages, best in an environment of its own: uv pip
install 'lm_eval[hf]==0.4.13'.
"""

import importlib.util
import json
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from common.config import parse_config
from common.errors import UserError, run_script
from common.files import write_jsonl, write_text
from data.gsm8k import load_gsm8k
from data.hellaswag import load_hellaswag
from eval.benchmark import load_for_evaluation
from eval.engine import generate
from eval.hellaswag import preprocess, score_items
from eval.lm_eval_keys import gsm8k_scores
from eval.responses import EvaluatedModel
from tokenizer.mul_facts import EOT_ID

VERSION = "0.4.13"
# Of an ending's log-likelihood, relative to its size (at least 1 nat): four times the float32 rounding that was seen.
TOLERANCE = 3e-5
TIE = 1e-4  # nats: two tokens that are as likely as that may change places with the order of additions

HELLASWAG_TASK = """
task: hellaswag_local
dataset_path: json
dataset_kwargs: {data_files: {validation: PATH}}
output_type: multiple_choice
validation_split: validation
doc_to_text: "{{query}}"
doc_to_target: "{{label}}"
doc_to_choice: "choices"
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
  - {metric: acc_norm, aggregation: mean, higher_is_better: true}
metadata: {version: 1.0}
"""
GSM8K_TASK = r"""
task: gsm8k_local
dataset_path: json
dataset_kwargs: {data_files: {test: PATH}}
output_type: generate_until
test_split: test
num_fewshot: 0
doc_to_text: "Question: {{question}}\nAnswer:"
doc_to_target: "{{answer}}"
generation_kwargs: {until: ["Question:", "</s>", "<|im_end|>"], do_sample: false, max_gen_toks: MAX_NEW_TOKENS}
metric_list:
  - metric: exact_match
    aggregation: mean
    higher_is_better: true
    ignore_case: true
    ignore_punctuation: false
    regexes_to_ignore: [",", "\\$", "(?s).*#### ", "\\.$"]
filter_list:
  - name: strict-match
    filter: [{function: regex, regex_pattern: "#### (\\-?[0-9\\.\\,]+)"}, {function: take_first}]
  - name: flexible-extract
    filter:
      - {function: regex, group_select: -1, regex_pattern: "(-?[$0-9.,]{2,})|(-?[0-9]+)"}
      - {function: take_first}
metadata: {version: 3.0}
"""


@dataclass
class CheckConfig:
    """Compare our HellaSwag and GSM8K with lm-evaluation-harness's on one model directory."""

    model_path: str  # GPT-2 model directory, or a hub id
    hellaswag: str | None = None  # a file of HellaSwag items
    gsm8k: str | None = None  # a file of GSM8K items
    limit: int = 20  # items of each
    max_new_tokens: int = 64  # longest response to a GSM8K problem


def main() -> None:
    config = parse_config(CheckConfig)
    if config.hellaswag is None and config.gsm8k is None:
        raise UserError("nothing to check: give --hellaswag, --gsm8k or both")
    if importlib.util.find_spec("lm_eval") is None:
        install = f"uv pip install 'lm_eval[hf]=={VERSION}'"
        print(f"skipped: lm-evaluation-harness is not installed; in another environment: {install}")
        return
    evaluated = load_for_evaluation(config.model_path, None, "cpu")
    differences = []
    if config.hellaswag is not None:
        differences += check_hellaswag(config, evaluated)
    if config.gsm8k is not None:
        differences += check_gsm8k(config, evaluated)
    for difference in differences:
        print(f"DIFFERS: {difference}")
    if differences:
        sys.exit(1)
    print("the same")


def check_hellaswag(config: CheckConfig, evaluated: EvaluatedModel) -> list[str]:
    """What differs between our scores and the harness's, in words."""
    items = load_hellaswag(config.hellaswag)[: config.limit]
    scores = score_items(
        evaluated.model,
        items,
        evaluated.tokenizer,
        torch.device("cpu"),
        torch.float32,
        metrics=("acc", "acc_norm_char"),
    )
    rows = [
        {
            "query": preprocess(item.labelled_context),
            "choices": [preprocess(e) for e in item.endings],
            "label": item.label,
        }
        for item in items
    ]
    samples = run_harness("hellaswag_local", HELLASWAG_TASK, rows, evaluated, config)
    differences, largest, largest_relative = [], 0.0, 0.0
    for score, sample in zip(scores, samples, strict=True):
        theirs = [float(response[0]) for [response] in sample["resps"]]
        pairs = list(zip(score.preprocessed_logprobs, theirs, strict=True))
        gap = max(abs(ours - other) for ours, other in pairs)
        relative = max(abs(ours - other) / max(abs(other), 1.0) for ours, other in pairs)
        largest, largest_relative = max(largest, gap), max(largest_relative, relative)
        if relative > TOLERANCE:
            differences.append(f"HellaSwag item {score.id}: log-likelihoods differ by {gap:.2g} nats ({relative:.2g})")
        for ours, metric in (("acc", "acc"), ("acc_norm_char", "acc_norm")):
            if score.correct[ours] != bool(sample[metric]):
                differences.append(
                    f"HellaSwag item {score.id}: {metric} is {sample[metric]}, ours {score.correct[ours]}"
                )
    print(
        f"HellaSwag: {len(items)} items, log-likelihoods at most {largest:.2g} nats and {largest_relative:.2g} of "
        "their size apart, choices compared"
    )
    return differences


def check_gsm8k(config: CheckConfig, evaluated: EvaluatedModel) -> list[str]:
    """What differs between our greedy texts and exact matches and the harness's, in words."""
    items = load_gsm8k(config.gsm8k, "test")[: config.limit]
    tokenizer = evaluated.tokenizer
    samples = run_harness("gsm8k_local", GSM8K_TASK, items, evaluated, config)
    prompts = [tokenizer.encode(f"Question: {item['question']}\nAnswer:", allow_special=False) for item in items]
    suppressed = tokenizer.vocabulary.suppressed_below(evaluated.model.config.vocab_size)
    options = {"max_new_tokens": config.max_new_tokens, "suppressed_ids": suppressed}
    completions = [completion for [completion] in generate(evaluated.model, prompts, **options)]
    texts = [tokenizer.decode([i for i in c.ids if i != EOT_ID]).split("Question:")[0] for c in completions]
    differences, ties = [], 0
    by_filter = {
        name: {s["doc_id"]: s for s in samples if s["filter"] == name} for name in ("strict-match", "flexible-extract")
    }
    ours = gsm8k_scores(texts, [item["answer"] for item in items])
    for i, text in enumerate(texts):
        theirs = by_filter["strict-match"][i]["resps"][0][0]
        if text != theirs:
            gap = gap_where_texts_part(evaluated, prompts[i], completions[i].ids, tokenizer.encode(theirs), suppressed)
            if gap <= TIE:
                ties += 1
                continue
            differences.append(f"GSM8K item {i}: {text!r} is ours, {theirs!r} the harness's ({gap:.2g} nats apart)")
        for name, rows in by_filter.items():
            if bool(rows[i]["exact_match"]) != ours[f"exact_match,{name}"][i]:
                differences.append(f"GSM8K item {i}: {name} is {rows[i]['exact_match']} in the harness")
    print(f"GSM8K: {len(items)} greedy texts compared, {ties} part at a tie; exact matches compared")
    return differences


def gap_where_texts_part(
    evaluated: EvaluatedModel, prompt: list[int], ours: list[int], theirs: list[int], suppressed: list[int]
) -> float:
    """Nats between the two tokens where two continuations part."""
    shared = next(
        (k for k, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), min(len(ours), len(theirs))
    )
    pair = [ids[shared] if shared < len(ids) else EOT_ID for ids in (ours, theirs)]
    with torch.inference_mode():
        hidden = evaluated.model.hidden(torch.tensor([prompt + ours[:shared]]))[0, -1]
        logits = evaluated.model.logits(hidden).index_fill_(-1, torch.tensor(suppressed), float("-inf"))
    return float((logits[pair[0]] - logits[pair[1]]).abs())


def run_harness(
    task: str, template: str, rows: list[dict[str, Any]], evaluated: EvaluatedModel, config: CheckConfig
) -> list[dict[str, Any]]:
    """The harness's samples in the order of documents. `rows` go to a file that the task reads."""
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    import lm_eval
    from lm_eval.tasks import TaskManager

    with tempfile.TemporaryDirectory() as folder:
        os.environ["HF_DATASETS_CACHE"] = f"{folder}/cache"
        write_jsonl(Path(folder) / "rows.jsonl", rows)
        yaml = template.replace("PATH", json.dumps(str(Path(folder) / "rows.jsonl")))
        write_text(Path(folder) / f"{task}.yaml", yaml.replace("MAX_NEW_TOKENS", str(config.max_new_tokens)))
        found = lm_eval.simple_evaluate(
            model="hf",
            model_args={"pretrained": str(evaluated.path), "dtype": "float32"},
            tasks=[task],
            task_manager=TaskManager(include_path=folder),
            device="cpu",
            batch_size=1,  # a batch of transformers' would be padded on the left, and the texts not quite the same
            log_samples=True,
            bootstrap_iters=0,
        )
    return sorted(found["samples"][task], key=lambda sample: (sample["doc_id"], sample["filter"]))


if __name__ == "__main__":
    run_script(main)
