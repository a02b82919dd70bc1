"""Stage directories of both conditions as the pipeline writes them, without running it."""

import copy
from pathlib import Path

from common.files import read_json, write_json, write_jsonl
from common.record import describe_parent

# Of items 0-9, both are right on 3, only baseline on 3, only mul_tokens on 3, neither on 1.
RIGHT = {"baseline": range(0, 6), "mul_tokens": range(3, 9)}
CATEGORIES = ["mul_table"] * 4 + ["mul_multidigit"] * 3 + ["addition"] * 3
NASTY = "<script src=http://evil.example/x.js>alert(1)</script> <MUL_6_9_54> a < b & c\n```\n| x |"

PRETRAIN_CONFIG = {
    "model": {"n_layer": 2, "n_head": 2, "n_embd": 64, "block_size": 128, "vocab_size": 50349},
    "training": {
        "batch_size": 4,
        "learning_rate": 1e-3,
        "warmup_steps": 10,
        "max_steps": 400,
        "weight_decay": 0.1,
    },
    "logging": {"log_every": 10},
}
SFT_CONFIG = {"training": {"learning_rate": 3e-5, "max_steps": 50, "packing": True}}
EVAL_CONFIG = {"data_path": "data/gsm8k/test.jsonl", "max_new_tokens": 256, "max_samples": None}


def make_stages(root: Path, condition: str, right: dict[str, range] = RIGHT, n: int = 10) -> dict[str, Path]:
    """The four stage directories of one condition under `root`, with nested parents, as the pipeline writes them."""
    names = {"pretrain": "pretrain", "export": "hf", "sft_gsm8k": "sft_gsm8k", "eval": "eval_sft_gsm8k"}
    stages = {stage: root / f"{name}_{condition}" for stage, name in names.items()}
    # Injection makes 8,000 tokens of what are 10,000 in baseline, so that 20,000 tokens carry more text.
    split_tokens = {"baseline": 10_000, "mul_tokens": 8_000}[condition]
    data = {"documents_sha256": "d" * 64, "fingerprint": condition, "source": "synthetic: generated world"}
    data |= {"split_tokens": split_tokens, "tokens_seen": 20_000, "documents_seen": 20_000_000 // split_tokens}
    data |= {"text_bytes_seen": 1_000_000_000 // split_tokens, "mul_tokens_seen": 10_000 - split_tokens}
    counts = {"steps": 400, "tokens": 20_000, "dtype": "torch.float32"}
    write_record(stages["pretrain"], "pretrain", condition, PRETRAIN_CONFIG, data=data, **counts)
    results = {"final_train_loss": 2.5, "final_val_loss": 2.75, "val_bits_per_byte": 1.25, "steps": 400}
    write_json(stages["pretrain"] / "results.json", results)
    train = [{"step": s, "loss": 10 - s / 60, "lr": 1e-3} for s in range(10, 401, 10)]
    validation = [{"step": s, "val_loss": 10 - s / 61} for s in range(100, 401, 100)]
    write_jsonl(stages["pretrain"] / "log.jsonl", train + validation)

    write_record(stages["export"], "export", condition, {}, parent=stages["pretrain"])
    model = {"model_type": "gpt2", "vocab_size": 50349, "n_layer": 2, "n_head": 2, "n_embd": 64, "n_positions": 128}
    write_json(stages["export"] / "config.json", model | {"activation_function": "gelu_new"})

    sft_config = SFT_CONFIG | {"model_path": str(stages["export"]), "inject_mul_tokens": condition == "mul_tokens"}
    write_record(stages["sft_gsm8k"], "sft_gsm8k", condition, sft_config, parent=stages["export"], steps=50)
    write_json(stages["sft_gsm8k"] / "sft_results.json", {"train_loss": 1.5, "eval_loss": 1.6})
    log = [{"step": s, "loss": 3 - s / 50} for s in range(1, 51)] + [{"step": 50, "eval_loss": 2.1}]
    write_jsonl(stages["sft_gsm8k"] / "log.jsonl", log)

    eval_config = EVAL_CONFIG | {"model_path": str(stages["sft_gsm8k"]), "output_dir": str(stages["eval"])}
    for benchmark in ("gsm8k", "probes"):
        name = f"run_{benchmark}.json"
        parent = stages["sft_gsm8k"]
        more = {"name": name, "data": {"items": n, "sha256": "problems"}}
        write_record(stages["eval"], f"eval_{benchmark}", condition, eval_config, parent=parent, **more)
        rows = [response_row(i, i in right[condition], condition) for i in range(n)]
        if benchmark == "probes":
            rows = [{**row, "category": CATEGORIES[i % 10]} for i, row in enumerate(rows)]
        write_jsonl(stages["eval"] / f"{benchmark}_responses.jsonl", rows)
        write_json(stages["eval"] / f"{benchmark}_results.json", {"accuracy": 0.6})
    return stages


def add_hellaswag(root: Path, condition: str, right: range, n: int = 10) -> Path:
    """The evaluation of the exported model on HellaSwag; all but item 0 are right by `acc`."""
    directory = root / f"eval_hf_{condition}"
    more = {"name": "run_hellaswag.json", "data": {"items": n, "sha256": "endings"}}
    write_record(directory, "eval_hellaswag", condition, {"dtype": "auto"}, parent=root / f"hf_{condition}", **more)
    rows = []
    for i in range(n):
        correct = {"acc_norm_token": i in right, "acc_norm_char": i not in right, "acc": i > 0}
        rows.append(
            {"index": i, "id": str(1000 + i), "label": 2, "choices": dict.fromkeys(correct, 2), "correct": correct}
        )
    write_jsonl(directory / "hellaswag_responses.jsonl", rows)
    return directory


def add_post_training(root: Path, condition: str, n: int = 10) -> list[Path]:
    """A reasoning stage, GRPO from it, the answers of both to the same problems, and edits of the exported model.

    Of ten problems the reasoning model gets 0 to 2 right, and GRPO's 0 to 8.
    """
    names = ("sft_reasoning", "grpo", "eval_sft_reasoning", "eval_grpo", "memit", "eval_memit")
    reasoning, grpo, before, after, memit, effects = (root / f"{name}_{condition}" for name in names)
    write_record(reasoning, "sft_reasoning", condition, SFT_CONFIG, parent=root / f"hf_{condition}", steps=50)
    write_json(reasoning / "sft_results.json", {"train_loss": 1.5, "eval_loss": 1.6})
    write_record(grpo, "grpo", condition, {"format": "reasoning"}, parent=reasoning, steps=4)
    results = {"iterations": 4, "updates": 3, "written_iteration": 4, "eval_accuracy_first": 0.25, "kept_fraction": 0.5}
    results |= {"eval_accuracy_last": 0.75, "eval_accuracy_best": 0.75, "reward_first_fifth": 0.1}
    results |= {"reward_last_fifth": 0.6, "seconds": {"generate": 3.0, "reward": 0.1, "update": 2.0}}
    write_json(grpo / "grpo_results.json", results)
    log = [{"iteration": i, "reward_mean": i / 10} for i in range(4)]
    write_jsonl(
        grpo / "log.jsonl", [*log, {"iteration": 0, "eval_accuracy": 0.25}, {"iteration": 4, "eval_accuracy": 0.75}]
    )
    for directory, parent, right in ((before, reasoning, 3), (after, grpo, 9)):
        more = {"name": "run_gsm8k.json", "data": {"items": n, "sha256": "problems"}}
        write_record(directory, "eval_gsm8k", condition, EVAL_CONFIG, parent=parent, **more)
        write_jsonl(directory / "gsm8k_responses.jsonl", [response_row(i, i < right, condition) for i in range(n)])
    write_record(memit, "edit_memit", condition, {"method": "memit"}, parent=root / f"hf_{condition}")
    measure = {"success": 0.9, "num_correct": 9, "num_total": 10, "wilson_95": [0.6, 0.98], "probability": 0.5}
    sides = {"edits": 10, "efficacy": measure, "paraphrase": measure, "neighborhood": measure}
    unedited = sides | {"efficacy": measure | {"success": 0.1}}
    overall = {"before": unedited, "after": sides}
    write_json(memit / "memit_results.json", {"overall": overall, "groups": {"capitals": overall}, "edits": []})
    write_record(effects, "eval_edit", condition, {"probes": 0}, parent=memit, name="run_edit_eval.json")
    effect = {"perplexity": {"before": 12.0, "after": 12.25}, "generation_entropy": {"before": 4.0, "after": 3.9}}
    write_json(effects / "edit_eval_results.json", effect)
    return [reasoning, grpo, before, after, memit, effects]


def response_row(index: int, correct: bool, condition: str) -> dict:
    return {
        "index": index,
        "question": f"How much is {index} < 5 & 3?",
        "gold": str(index),
        "response": NASTY if index % 2 else f"It is {index}.",
        "prediction": str(index) if correct else None,
        "correct": correct,
        "correct_flexible": True,
        "mul_tokens": index % 3 if condition == "mul_tokens" else 0,
        "response_tokens": 10 + index,
        "finish_reason": "length" if index == 9 else "stop",
    }


def write_record(
    directory: Path,
    stage: str,
    condition: str,
    config: dict,
    parent: Path | None = None,
    name: str = "run.json",
    **more,
) -> None:
    record = {"stage": stage, "condition": condition, "seed": 0, "config": copy.deepcopy(config), "data": {}}
    record["config"] |= {"condition": condition, "seed": 0, "device": "cpu"}
    record |= {"parent": describe_parent(parent), "results": {}, "git_commit": "c" * 40, "wall_seconds": 12.5}
    record |= {"hardware": {"cpu": "some processor", "threads": 2, "accelerator": None, "accelerators": 0}}
    write_json(directory / name, record | {"started": "2026-01-01T00:00:00+0000"} | more)


def change(path: Path, keys: list, value: object) -> None:
    """Set one nested value of a JSON file."""
    content = inner = read_json(path)
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    write_json(path, content)
