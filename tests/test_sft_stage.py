"""sft/stage.py: what a stage leaves out, and which weights it writes."""

import pytest

from common.files import read_json, read_jsonl
from sft.examples import CUT, chat_example
from sft.settings import CheckpointSettings, EvalSettings, LoggingSettings, TrainingSettings
from sft.stage import StageConfig, run_stage
from tests.sft_parents import write_parent

EXAMPLES = [
    chat_example(f"What is {a}*{b}?", f"{a}*{b} = {a * b}" + ", as it has always been" * (a % 3))
    for a in range(2, 10)
    for b in (3, 7)
]


@pytest.fixture(scope="module")
def parents(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parents")
    return {condition: write_parent(folder / condition, condition) for condition in ("baseline", "mul_tokens")}


def train(parents, output_dir, condition="baseline", parent=None, keep_best=False, **training):
    """Run a stage of 12 examples and 4 held out; returns its results."""
    config = StageConfig(
        training=TrainingSettings(batch_size=4, micro_batch_size=4, dtype="float32", **({"max_length": 96} | training)),
        eval=EvalSettings(fraction=0.25, interval=2, keep_best=keep_best),
        logging=LoggingSettings(interval=1),
        checkpoint=CheckpointSettings(interval=2),
        condition=condition,
        model_path=parent or parents[condition],
        output_dir=output_dir,
        inject_mul_tokens=condition == "mul_tokens",
        device="cpu",
    )
    given = {"examples": EXAMPLES, "source": "synthetic", "dropped": {"empty_answer": 2}}
    results = run_stage(config, stage="sft_x", results_name="sft_results.json", **given)
    assert results == read_json(output_dir / "sft_results.json")
    return results


def test_too_long_examples_are_dropped_alike_and_counted(parents, tmp_path):
    found = [train(parents, tmp_path / c, c, epochs=1, max_length=24) for c in ("baseline", "mul_tokens")]
    assert found[0]["dropped"] == found[1]["dropped"] == {"empty_answer": 2, CUT: found[0]["dropped"][CUT]}
    for results in found:
        assert results["examples"] + results["eval_examples"] + results["dropped"][CUT] == len(EXAMPLES)
    assert found[0]["examples"] == found[1]["examples"] < 12
    assert (found[0]["mul_tokens_seen"], found[1]["mul_tokens_seen"]) == (0, found[1]["examples"])


def test_the_best_weights_are_kept_and_max_steps_ends_the_run(parents, tmp_path):
    """At a rate that soon ruins the model, its best eval loss is an early one."""
    results = train(parents, tmp_path / "out", keep_best=True, max_steps=5, learning_rate=1.0)
    losses = {row["step"]: row["eval_loss"] for row in read_jsonl(tmp_path / "out/log.jsonl") if "eval_loss" in row}
    assert list(losses) == [2, 4, 5] and results["steps"] == 5 and results["epochs"] == pytest.approx(5 / 3, abs=1e-3)
    assert losses[results["kept_step"]] == results["eval_loss"] == min(losses.values()) < losses[5]
    written = train(parents, tmp_path / "again", parent=tmp_path / "out", max_steps=1, learning_rate=0.0)
    assert written["eval_loss"] == pytest.approx(results["eval_loss"], abs=1e-4)
