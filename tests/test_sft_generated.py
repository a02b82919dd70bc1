"""The stages on generated data and on reasoning rows, run at toy size: what they train on, write, refuse and resume."""

import random
import shutil
from collections import Counter

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from common.config import parse_config
from common.errors import UserError, run_script
from common.files import read_json, read_jsonl, sha256_file, write_jsonl
from data.drills.tiers import PRODUCT_TIERS, drills
from data.formats import END_OF_TEXT, chat_prompt, reasoning_completion
from data.gsm_sbs.decompositions import decompositions
from sft import sft_curriculum, sft_drills, sft_gsm_sbs, sft_reasoning
from sft.examples import chat_example, examples_sha256, reasoning_example, split_examples, tokenize_examples
from sft.packing import IGNORED
from sft.settings import check_settings
from tests.helpers import ROOT
from tests.sft_parents import write_parent
from tokenizer.mul_facts import EOT_ID, REASONING_TAGS
from tokenizer.vocabulary import Vocabulary

ITEMS = [
    {
        "question": f"Sam has {a} bags of {b} nuts. How many?",
        "answer": f"It is {a}*{b}=<<{a}*{b}={a * b}>>{a * b}.\n#### {a * b}",
    }
    for a in range(2, 6)
    for b in range(2, 6)
]
ROWS = [
    {"question": f"What is {a} times {b}?", "reasoning": f"{a} * {b} = {a * b}", "answer": str(a * b)}
    for a in range(2, 6)
    for b in range(2, 6)
]
SCRIPTS = {"gsm_sbs": sft_gsm_sbs, "drills": sft_drills, "reasoning": sft_reasoning, "curriculum": sft_curriculum}
TOY = """
training: {max_steps: 2, batch_size: 4, micro_batch_size: 4, max_length: 192, learning_rate: 1.0e-2, dtype: float32}
eval: {fraction: 0.25, interval: 2}
logging: {interval: 1}
checkpoint: {interval: 2}
"""


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toy")
    for condition in ("baseline", "mul_tokens"):
        write_parent(folder / condition, condition, n_positions=192)
    write_jsonl(folder / "gsm8k/train.jsonl", ITEMS)
    write_jsonl(folder / "reasoning/train.jsonl", ROWS)
    write_jsonl(folder / "reasoning/val.jsonl", [])  # as data/prepare_reasoning.py leaves it with --val-fraction 0
    (folder / "toy.yaml").write_text(TOY)
    return folder


def command(toy, output, condition, *extra):
    inject = ["--inject-mul-tokens"] if condition == "mul_tokens" else []
    paths = ("--model-path", toy / condition, "--output-dir", output, "--config", toy / "toy.yaml")
    return [str(part) for part in (*paths, "--condition", condition, "--device", "cpu", *inject, *extra)]


def run(monkeypatch, script, arguments):
    monkeypatch.setattr("sys.argv", ["script.py", *arguments])
    script.main()


def captured_stage(monkeypatch, script, arguments):
    """The arguments of the script's call of run_stage, which does nothing."""
    calls = []
    monkeypatch.setattr(script, "run_stage", lambda config, **rest: calls.append({"config": config} | rest))
    run(monkeypatch, script, arguments)
    return calls


def assert_error(monkeypatch, capsys, script, arguments, message):
    monkeypatch.setattr("sys.argv", ["script.py", *arguments])
    with pytest.raises(SystemExit) as stop:
        run_script(script.main)
    [line] = capsys.readouterr().err.splitlines()
    assert stop.value.code == 2 and line.startswith("error: ") and message in line


# ---- GSM-SBS and drills


@pytest.mark.parametrize("condition", ["baseline", "mul_tokens"])
def test_gsm_sbs_runs(toy, tmp_path, monkeypatch, condition):
    run(monkeypatch, sft_gsm_sbs, command(toy, tmp_path / "out", condition, "--num-decompositions", "16"))
    record, results = read_json(tmp_path / "out/run.json"), read_json(tmp_path / "out/sft_results.json")
    assert (record["stage"], record["data"]["source"]) == ("sft_sbs", "16 generated decompositions")
    assert (results["examples"], results["eval_examples"], results["steps"], results["dropped"]) == (12, 4, 2, {})
    assert (results["mul_tokens_seen"] > 0) == (condition == "mul_tokens")
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out").config.vocab_size == 50349


def test_gsm_sbs_trains_the_decompositions_of_its_seed(toy, tmp_path, monkeypatch):
    [call] = captured_stage(monkeypatch, sft_gsm_sbs, command(toy, tmp_path / "out", "baseline"))
    items = decompositions(640, random.Random("0/gsm_sbs"))
    assert [example.segments[1].text for example in call["examples"]] == [f" {i['answer']}{END_OF_TEXT}" for i in items]


def test_drills_alone_need_no_gsm8k(toy, tmp_path, monkeypatch):
    arguments = command(toy, tmp_path / "out", "mul_tokens", "--num-drills", "16", "--tiers", "2", "3")
    run(monkeypatch, sft_drills, arguments)
    record = read_json(tmp_path / "out/run.json")
    assert record["data"]["source"] == "8 drills of tier 2, 8 drills of tier 3"
    assert read_json(tmp_path / "out/sft_results.json")["mul_tokens_seen"] >= 8


def test_mixed_drills_are_half_of_the_examples(toy, tmp_path, monkeypatch):
    extra = ("--mix-gsm8k", "--data-path", toy / "gsm8k")
    [call] = captured_stage(monkeypatch, sft_drills, command(toy, tmp_path / "out", "baseline", *extra))
    prompts = [example.segments[0].text for example in call["examples"]]
    gsm8k = {chat_prompt(item["question"]) for item in ITEMS}
    assert (len(prompts), sum(prompt in gsm8k for prompt in prompts)) == (32, 16)


def test_a_drill_that_the_test_set_asks_is_left_out(toy, tmp_path, monkeypatch):
    by_tier = drills(16, PRODUCT_TIERS, random.Random("0/drills"))
    asked = by_tier[3][0]["question"]
    write_jsonl(tmp_path / "gsm8k/train.jsonl", ITEMS)
    write_jsonl(tmp_path / "gsm8k/test.jsonl", [{"question": asked, "answer": "#### 1"}])
    extra = ("--mix-gsm8k", "--data-path", tmp_path / "gsm8k")
    [call] = captured_stage(monkeypatch, sft_drills, command(toy, tmp_path / "out", "baseline", *extra))
    assert chat_prompt(asked) not in {example.segments[0].text for example in call["examples"]}
    assert len(call["examples"]) == 31 and call["dropped"] == {"test_question": 1}


def test_the_drills_model_is_a_first_stage_for_another(toy, tmp_path, monkeypatch):
    run(monkeypatch, sft_drills, command(toy, tmp_path / "first", "baseline", "--num-drills", "8"))
    arguments = command(toy, tmp_path / "second", "baseline", "--model-path", tmp_path / "first")
    run(monkeypatch, sft_gsm_sbs, [*arguments, "--num-decompositions", "8"])
    parent = read_json(tmp_path / "second/run.json")["parent"]
    assert parent["run"]["stage"] == "sft_drills"
    assert parent["sha256"] == sha256_file(tmp_path / "first/model.safetensors")


# ---- reasoning


@pytest.fixture(scope="module")
def reasoned(toy, tmp_path_factory):
    """A reasoning run of each condition."""
    folder = tmp_path_factory.mktemp("reasoned")
    with pytest.MonkeyPatch.context() as monkeypatch:
        for condition in ("baseline", "mul_tokens"):
            extra = ("--data-path", toy / "reasoning", "--eval.keep-best")
            run(monkeypatch, sft_reasoning, command(toy, folder / condition, condition, *extra))
    return folder


def test_reasoning_trains_thoughts_answer_and_one_end_of_text(toy, tmp_path, monkeypatch):
    arguments = command(toy, tmp_path / "out", "baseline", "--data-path", toy / "reasoning")
    [call] = captured_stage(monkeypatch, sft_reasoning, arguments)
    tokenizer = AutoTokenizer.from_pretrained(toy / "baseline")
    tokenized = tokenize_examples(tokenizer, call["examples"], max_length=192)
    for row, source in zip(tokenized.rows, ROWS, strict=True):
        trained = [i for i in row["labels"].tolist() if i != IGNORED]
        assert tokenizer.decode(trained) == reasoning_completion(source["reasoning"], source["answer"])
        assert trained.count(EOT_ID) == 1 and trained[-2:] == [REASONING_TAGS["</answer>"], EOT_ID]
        prompt = [i for i, label in zip(row["input_ids"], row["labels"], strict=True) if label == IGNORED]
        assert tokenizer.decode(prompt) == source["question"]
    assert len(tokenized.rows) == len(ROWS)


@pytest.mark.parametrize("extra", [[], ["--eval.fraction", "0"]])
def test_rows_kept_apart_are_what_the_eval_loss_is_taken_of(toy, tmp_path, monkeypatch, extra):
    apart = {"question": "What is 7 times 8?", "reasoning": "7 * 8 = 56", "answer": "56"}
    write_jsonl(tmp_path / "rows/train.jsonl", [*ROWS, {"question": "no answer"}])
    write_jsonl(tmp_path / "rows/val.jsonl", [apart] * 3 + [{"question": "no answer"}])
    data = ("--data-path", tmp_path / "rows", "--allow-bad-rows", *extra)
    run(monkeypatch, sft_reasoning, command(toy, tmp_path / "out", "baseline", *data))
    results, record = read_json(tmp_path / "out/sft_results.json"), read_json(tmp_path / "out/run.json")
    assert (results["examples"], results["eval_examples"]) == (16, 0 if extra else 3)
    assert results["dropped"] == {"missing_keys": 2} and (results["eval_loss"] is None) == bool(extra)
    expected = [] if extra else [reasoning_example(**apart)] * 3
    assert record["data"]["held_out"] == {"examples": len(expected), "sha256": examples_sha256(expected)}


@pytest.mark.parametrize("condition", ["baseline", "mul_tokens"])
def test_a_reasoning_model_stops_at_its_answers_end(reasoned, condition):
    generation = GenerationConfig.from_pretrained(reasoned / condition)
    assert generation.eos_token_id == [EOT_ID, REASONING_TAGS["</answer>"]]
    assert generation.suppress_tokens == Vocabulary(condition).suppressed_ids
    results = read_json(reasoned / condition / "sft_results.json")
    assert results["reasoning_tags_seen"] == 4 * 8  # 2 steps of 4 examples
    assert (results["mul_tokens_seen"] > 0) == (condition == "mul_tokens")


def test_generate_ends_at_the_closing_tag_and_not_without_the_setting(reasoned):
    model = AutoModelForCausalLM.from_pretrained(reasoned / "baseline")
    close = REASONING_TAGS["</answer>"]
    with torch.no_grad():  # a model that says </answer> whatever it is asked
        model.transformer.ln_f.weight.zero_()
        model.transformer.wte.weight[close] *= 100
        model.transformer.ln_f.bias.copy_(model.transformer.wte.weight[close])
    prompt = torch.tensor([[11, 12]])
    assert model.generate(prompt, max_new_tokens=5, do_sample=False)[0, 2:].tolist() == [close]
    model.generation_config.eos_token_id = EOT_ID  # the control: what stops it is the generation config
    assert model.generate(prompt, max_new_tokens=5, do_sample=False)[0, 2:].tolist() == [close] * 5


def test_both_conditions_read_the_same_rows(reasoned):
    records = [read_json(reasoned / condition / "run.json") for condition in ("baseline", "mul_tokens")]
    assert records[0]["data"]["documents_sha256"] == records[1]["data"]["documents_sha256"]
    assert records[0]["steps"] == records[1]["steps"]


def test_the_weights_of_the_lowest_eval_loss_are_kept(toy, tmp_path, monkeypatch):
    # So large a rate ruins the model in its later steps.
    extra = ("--eval.keep-best", "--eval.interval", "1", "--checkpoint.interval", "1", "--training.max-steps", "4")
    arguments = command(toy, tmp_path / "out", "baseline", "--data-path", toy / "reasoning", *extra)
    run(monkeypatch, sft_reasoning, [*arguments, "--training.learning-rate", "5"])
    results = read_json(tmp_path / "out/sft_results.json")
    losses = {r["step"]: r["eval_loss"] for r in read_jsonl(tmp_path / "out/log.jsonl") if "eval_loss" in r}
    assert results["eval_loss"] == min(losses.values()) == losses[results["kept_step"]]
    assert results["kept_step"] < 4
    model, tokenizer = (kind.from_pretrained(tmp_path / "out") for kind in (AutoModelForCausalLM, AutoTokenizer))
    arguments = command(toy, tmp_path / "other", "baseline", "--data-path", toy / "reasoning")
    [call] = captured_stage(monkeypatch, sft_reasoning, arguments)
    _, held_out = split_examples(call["examples"], None, 0.25, 0)
    total = count = 0
    for row in tokenize_examples(tokenizer, held_out, 192).rows:
        labels = torch.tensor(row["labels"]).long()[None]
        number = int((labels != IGNORED).sum())
        with torch.no_grad():
            loss = model(input_ids=torch.tensor(row["input_ids"]).long()[None], labels=labels).loss
        total, count = total + loss.item() * number, count + number
    assert total / count == pytest.approx(results["eval_loss"], abs=1e-4)


# ---- curriculum

SMALL = ("--drills-per-tier", "8", "--num-problems", "8", "--num-decompositions", "4")
NAMES = ["1_tier_1", "2_tier_2", "3_tier_3", "4_tier_4", "5_tier_5", "6_one_step", "7_two_steps"]


def curriculum(toy, output, *extra, condition="mul_tokens"):
    return command(toy, output, condition, "--data-path", toy / "gsm8k", *SMALL, *extra)


@pytest.fixture(scope="module")
def taught(toy, tmp_path_factory):
    folder = tmp_path_factory.mktemp("taught")
    with pytest.MonkeyPatch.context() as monkeypatch:
        run(monkeypatch, sft_curriculum, curriculum(toy, folder / "out"))
    return folder


def test_every_lesson_starts_from_the_one_before(taught, toy):
    directories = [*(taught / "out_stages" / name for name in NAMES), taught / "out"]
    assert sorted(path.name for path in (taught / "out_stages").iterdir()) == NAMES
    parents = [toy / "mul_tokens", *directories[:-1]]
    for parent, directory in zip(parents, directories, strict=True):
        record = read_json(directory / "run.json")
        assert record["parent"]["sha256"] == sha256_file(parent / "model.safetensors")
        assert record["steps"] == 2
    assert read_json(taught / "out/run.json")["stage"] == "sft_curriculum"
    assert len({sha256_file(directory / "model.safetensors") for directory in directories}) == 8


def test_the_last_lesson_repeats_gsm_sbs_among_gsm8k(toy, tmp_path, monkeypatch):
    calls = captured_stage(monkeypatch, sft_curriculum, curriculum(toy, tmp_path / "out", "--sbs-repeats", "5"))
    assert [call["stage"].removeprefix("sft_curriculum") for call in calls] == [*("_" + n[2:] for n in NAMES), ""]
    trained, held_out = calls[-1]["examples"], calls[-1]["held_out"]
    assert len(held_out) == 5 and not set(trained) & set(held_out)
    assert len({*trained, *held_out}) == len(ITEMS) + 4
    gsm8k = {chat_example(**item) for item in ITEMS}
    assert Counter(trained) == {example: 1 if example in gsm8k else 5 for example in trained}
    assert not gsm8k.issuperset(trained) and not gsm8k.issuperset(held_out)  # of both kinds on both sides
    assert [len(call["examples"]) for call in calls[:-1]] == [8] * 7


def test_a_stopped_curriculum_goes_on_behind_its_finished_lessons(taught, toy, tmp_path, monkeypatch, capsys):
    for name in NAMES[:6]:  # the seventh lesson and the last were never reached
        shutil.copytree(taught / "out_stages" / name, tmp_path / "out_stages" / name)
    before = {name: (tmp_path / "out_stages" / name / "model.safetensors").stat().st_mtime_ns for name in NAMES[:6]}
    assert_error(monkeypatch, capsys, sft_curriculum, curriculum(toy, tmp_path / "out"), "pass --resume to go on")
    changed = curriculum(toy, tmp_path / "out", "--resume", "--seed", "1")
    assert_error(monkeypatch, capsys, sft_curriculum, changed, "trained with another seed")
    run(monkeypatch, sft_curriculum, curriculum(toy, tmp_path / "out", "--resume"))
    for name, written in before.items():
        assert (tmp_path / "out_stages" / name / "model.safetensors").stat().st_mtime_ns == written
    assert (tmp_path / "out/model.safetensors").read_bytes() == (taught / "out/model.safetensors").read_bytes()


def test_a_finished_curriculum_is_left_alone(taught, toy, monkeypatch, capsys):
    before = (taught / "out/model.safetensors").stat().st_mtime_ns
    run(monkeypatch, sft_curriculum, curriculum(toy, taught / "out", "--resume"))
    assert capsys.readouterr().out.count("is finished") == 8
    assert (taught / "out/model.safetensors").stat().st_mtime_ns == before


# ---- mistakes and configs


@pytest.mark.parametrize(
    ("name", "extra", "message"),
    [
        ("gsm_sbs", ["--num-decompositions", "1000000"], "1000000 decompositions are asked for"),
        ("drills", ["--num-drills", "730", "--tiers", "2"], "have only 729"),
        ("drills", ["--tiers", "6"], "--tiers"),
        ("drills", ["--mix-gsm8k", "--data-path", "no/such/folder"], "no/such/folder does not exist"),
        ("reasoning", [], "data/prepare_reasoning.py writes such rows"),
        ("curriculum", ["--data-path", "no/such/folder"], "no/such/folder does not exist"),
    ],
)
def test_a_mistake_is_one_line(toy, tmp_path, monkeypatch, capsys, name, extra, message):
    if name == "reasoning":
        extra = ["--data-path", str(tmp_path / "none")]
    assert_error(monkeypatch, capsys, SCRIPTS[name], command(toy, tmp_path / "out", "baseline", *extra), message)


def test_gsm8k_items_are_not_reasoning_rows(toy, tmp_path, monkeypatch):
    arguments = command(toy, tmp_path / "out", "baseline", "--data-path", toy / "gsm8k")
    with pytest.raises(UserError, match="16 of 16 rows cannot be used"):
        run(monkeypatch, sft_reasoning, arguments)


@pytest.mark.parametrize("name", [*SCRIPTS, "demo_reasoning", "demo_real_reasoning", "quick_reasoning"])
def test_the_shipped_configs_parse(name):
    path = ROOT / "sft/configs" / f"{name}.yaml"
    config = parse_config(SCRIPTS.get(name, sft_reasoning).Config, ["--config", str(path)])
    check_settings(config)
    assert config.training.batch_size == (16 if name == "demo_reasoning" else 32)
    if name == "reasoning":
        assert (config.training.max_steps, config.training.learning_rate, config.eval.keep_best) == (2000, 3e-4, True)
