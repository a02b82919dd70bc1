"""run_gsm8k.py and run_arithmetic_probes.py at toy size, and what wrong input gets."""

import shutil
import sys
import time

import pytest
import torch

from common.errors import UserError, run_script
from common.files import read_json, read_jsonl, write_json, write_jsonl
from data.benchmark_texts import gsm8k_texts, probe_texts, texts_sha256
from data.probes import CATEGORIES, arithmetic_probes
from eval import responses, run_arithmetic_probes, run_gsm8k
from pretrain.hf_weights import save_model_dir
from pretrain.model import GPT, GPTConfig
from tokenizer.mul_facts import FIRST_MUL_ID, REASONING_TAGS, VOCAB_SIZE

PROBLEMS = [
    {"question": "Tom has 6 boxes of 9 pens. How many pens?", "answer": "6*9 = <<6*9=54>>54\n#### 54"},
    {"question": "A car costs $1,000 and $234. In total?", "answer": "1000+234=1234\n#### 1,234"},
    {"question": "He owes 5. How much has he?", "answer": "#### -5"},
]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """Model directories of both conditions (random weights) and a GSM8K folder."""
    root = tmp_path_factory.mktemp("eval")
    torch.manual_seed(0)
    model = GPT(GPTConfig(n_layer=1, n_head=1, n_embd=8, block_size=64))
    for condition in ("baseline", "mul_tokens"):
        save_model_dir(model, root / condition, condition)
    write_json(root / "mul_tokens" / "run.json", {"stage": "sft_gsm8k", "condition": "mul_tokens"})
    (root / "data").mkdir()
    write_jsonl(root / "data" / "test.jsonl", PROBLEMS)
    return root


def run(script, monkeypatch, **flags):
    argv = [f"--{name.replace('_', '-')}={value}" for name, value in flags.items()]
    monkeypatch.setattr(sys, "argv", [script.__name__, *argv])
    script.main()


def test_gsm8k_writes_results_responses_and_record(workspace, tmp_path, monkeypatch, capsys):
    model_path, output_dir = workspace / "mul_tokens", tmp_path / "out"
    flags = {"model_path": model_path, "data_path": workspace / "data", "max_new_tokens": 4}
    run(run_gsm8k, monkeypatch, **flags, output_dir=output_dir)
    results, rows = read_json(output_dir / "gsm8k_results.json"), read_jsonl(output_dir / "gsm8k_responses.jsonl")
    assert [row["question"] for row in rows] == [problem["question"] for problem in PROBLEMS]
    assert [row["gold"] for row in rows] == ["54", "1234", "-5"]
    assert results["num_total"] == 3 and results["num_correct"] == sum(row["correct"] for row in rows)
    assert results["mul_tokens_total"] == sum(row["mul_tokens"] for row in rows)
    assert results["wilson_95"][0] <= results["accuracy"] <= results["wilson_95"][1]
    assert results["results"]["gsm8k"]["exact_match,strict-match"] == results["accuracy"] == 0
    assert results["n-samples"] == {"gsm8k": {"original": 3, "effective": 3}} and results["num_skipped"] == 0
    record = read_json(output_dir / "run_gsm8k.json")
    assert (record["stage"], record["condition"], record["data"]["items"]) == ("eval_gsm8k", "mul_tokens", 3)
    assert record["parent"]["run"]["stage"] == "sft_gsm8k"
    run(run_gsm8k, monkeypatch, **flags, output_dir=tmp_path / "again", batch_size=1)
    assert read_jsonl(tmp_path / "again" / "gsm8k_responses.jsonl") == rows


def test_probes_share_the_directory_and_have_categories(workspace, tmp_path, monkeypatch, capsys):
    flags = {"model_path": workspace / "baseline", "output_dir": tmp_path, "max_new_tokens": 2, "max_samples": 4}
    run(run_gsm8k, monkeypatch, **flags, data_path=workspace / "data" / "test.jsonl")
    run(run_arithmetic_probes, monkeypatch, **flags)
    assert read_json(tmp_path / "sanity_results.json")["num_total"] == 20
    assert read_json(tmp_path / "run_word_problems.json")["stage"] == "eval_word_problems"
    results, rows = read_json(tmp_path / "probes_results.json"), read_jsonl(tmp_path / "probes_responses.jsonl")
    assert list(results["categories"]) == list(CATEGORIES)
    assert [part["num_total"] for part in results["categories"].values()] == [4, 4, 4]
    assert results["num_total"] == len(rows) == 12
    assert {"category", "a", "b", "correct", "correct_strict", "prediction"} <= set(rows[0])
    assert all(row["mul_tokens"] == 0 for row in rows), "baseline must never sample a mul id"
    assert {path.name for path in tmp_path.iterdir()} == {
        f"{name}.{end}"
        for benchmark in ("gsm8k", "probes", "sanity", "word_problems")
        for name, end in (
            (f"{benchmark}_results", "json"),
            (f"{benchmark}_responses", "jsonl"),
            (f"run_{benchmark}", "json"),
        )
    }
    assert "mul_multidigit" in capsys.readouterr().out


def contamination_report(path, flagged, benchmark="gsm8k", texts=None):
    """A report of data/check_contamination.py in which the items `flagged` of a benchmark are flagged."""
    texts = gsm8k_texts(PROBLEMS) if texts is None else texts
    part = {"items": len(texts), "sha256": texts_sha256(texts), "flagged": {item: {"ngrams": 1} for item in flagged}}
    write_json(path, {"n": 13, "sources": [], "benchmarks": {benchmark: part}})
    return path


def test_gsm8k_also_scores_the_clean_problems(workspace, tmp_path, monkeypatch, capsys):
    flags = {"model_path": workspace / "baseline", "data_path": workspace / "data", "max_new_tokens": 4}
    for name, flagged, expected in (("some", ["1"], ["0", "2"]), ("none", [], ["0", "1", "2"]), ("all", "012", [])):
        report = contamination_report(tmp_path / f"{name}.json", flagged)
        run(run_gsm8k, monkeypatch, **flags, output_dir=tmp_path / name, contamination=report)
        rows = read_jsonl(tmp_path / name / "gsm8k_responses.jsonl")
        results = read_json(tmp_path / name / "gsm8k_results.json")
        clean = results["clean"]
        assert [row["id"] for row in rows] == ["0", "1", "2"] and results["num_total"] == 3
        assert clean["num_total"] == len(expected)
        if expected:
            chosen = [row["correct_flexible"] for row in rows if row["id"] in expected]
            assert clean["accuracy_flexible"] == round(sum(chosen) / len(chosen), 6)
            assert clean.keys() <= results.keys()
        else:
            assert clean == {"num_total": 0} and "no item is left" in capsys.readouterr().out
    # Which items are checked does not depend on how many are asked.
    run(run_gsm8k, monkeypatch, **flags, output_dir=tmp_path / "2", contamination=tmp_path / "some.json", max_samples=2)
    assert read_json(tmp_path / "2" / "gsm8k_results.json")["clean"]["num_total"] == 1


def test_probes_also_score_the_clean_probes(workspace, tmp_path, monkeypatch, capsys):
    probes = arithmetic_probes()
    flagged = [probe.question for probe in probes[:81]] + [probes[82].question]
    report = contamination_report(tmp_path / "report.json", flagged, "probes", probe_texts(probes))
    flags = {"model_path": workspace / "baseline", "max_new_tokens": 1, "max_samples": 3, "contamination": report}
    run(run_arithmetic_probes, monkeypatch, **flags, output_dir=tmp_path / "out")
    clean = read_json(tmp_path / "out" / "probes_results.json")["clean"]
    assert {name: part["num_total"] for name, part in clean["categories"].items()} == {
        "mul_multidigit": 2,
        "addition": 3,
    }
    assert clean["num_total"] == 5 and "accuracy_strict" in clean
    with pytest.raises(UserError, match="281 other probes items"):
        run(run_arithmetic_probes, monkeypatch, **flags, output_dir=tmp_path / "other", seed=5)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"report\.json does not exist"),
        ("{", "not valid JSON"),
        ("[]", "not a report of data/check_contamination.py"),
        ('{"benchmarks": {"hellaswag": {}}}', "is about hellaswag; run data/check_contamination.py with --gsm8k"),
        (PROBLEMS[:2], "was made for 2 other gsm8k items than the 3"),
    ],
)
def test_a_report_that_does_not_fit_is_named(workspace, tmp_path, monkeypatch, content, message):
    if isinstance(content, list):
        contamination_report(tmp_path / "report.json", [], texts=gsm8k_texts(content))
    elif content is not None:
        (tmp_path / "report.json").write_text(content)
    flags = {"model_path": workspace / "baseline", "data_path": workspace / "data", "output_dir": tmp_path / "out"}
    with pytest.raises(UserError, match=message):
        run(run_gsm8k, monkeypatch, **flags, contamination=tmp_path / "report.json")
    assert not (tmp_path / "out").exists()


def test_ids_that_a_condition_never_uses_are_not_sampled(workspace, tmp_path, monkeypatch, capsys):
    """A model that wants nothing but padding and mul ids: baseline must say something else."""
    torch.manual_seed(1)
    model = GPT(GPTConfig(n_layer=1, n_head=1, n_embd=8, block_size=64))
    with torch.no_grad():
        model.ln_f.bias.fill_(1.0)
        model.wte.weight[50261:VOCAB_SIZE] = 1.0
        model.wte.weight[FIRST_MUL_ID + 5] = 2.0
    for condition, expected in (("baseline", 0), ("mul_tokens", 6)):
        save_model_dir(model, tmp_path / condition, condition)
        out = tmp_path / f"out_{condition}"
        flags = {"model_path": tmp_path / condition, "max_new_tokens": 6, "max_samples": 1, "output_dir": out}
        flags |= {"sets": "probes"}
        run(run_arithmetic_probes, monkeypatch, **flags)
        rows = read_jsonl(out / "probes_responses.jsonl")
        assert [row["mul_tokens"] for row in rows] == [expected] * 3
        assert all(row["mul_tokens_grounded"] <= row["mul_tokens_right"] == row["mul_tokens"] for row in rows)
        assert all("unused" not in row["response"] for row in rows)


def test_default_output_dir_is_named_after_the_model(workspace, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run(run_arithmetic_probes, monkeypatch, model_path=workspace / "baseline", max_new_tokens=1, max_samples=1)
    assert (tmp_path / "outputs" / "eval_baseline" / "probes_results.json").is_file()


def test_another_models_results_are_not_overwritten(workspace, tmp_path, monkeypatch, capsys):
    flags = {"output_dir": tmp_path, "max_new_tokens": 1, "max_samples": 1}
    run(run_arithmetic_probes, monkeypatch, model_path=workspace / "baseline", **flags)
    run(run_arithmetic_probes, monkeypatch, model_path=workspace / "baseline", **flags)
    with pytest.raises(UserError, match="give another --output-dir"):
        run(run_arithmetic_probes, monkeypatch, model_path=workspace / "mul_tokens", **flags)


@pytest.mark.parametrize("directory", ["mul_tokens", "baseline"])  # one has a run.json, one only tokenizer files
def test_the_condition_must_be_the_models(workspace, tmp_path, monkeypatch, directory):
    other = {"mul_tokens": "baseline", "baseline": "mul_tokens"}[directory]
    flags = {"output_dir": tmp_path, "data_path": workspace / "data"}
    with pytest.raises(UserError, match=f"is a model of {directory}"):
        run(run_gsm8k, monkeypatch, model_path=workspace / directory, condition=other, **flags)


def test_an_answer_without_its_number_is_named(workspace, tmp_path, monkeypatch):
    write_jsonl(tmp_path / "test.jsonl", [PROBLEMS[0], {"question": "a", "answer": "54"}])
    with pytest.raises(UserError, match="item 2: the answer has no number after '####'"):
        run(run_gsm8k, monkeypatch, model_path=workspace / "baseline", data_path=tmp_path, output_dir=tmp_path / "out")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--model-path", "{root}/data"], "is not a model directory"),
        (["--model-path", "{root}/nowhere"], "neither a model directory nor a hub id"),
        (["--model-path", "{root}/baseline", "--seed", "-1"], "--seed -1: expected 0 or more"),
        (["--model-path", "{root}/baseline", "--max-samples", "0"], "--max-samples 0: expected at least 1"),
        (["--model-path", "{root}/baseline", "--condition", "mul"], "--condition"),
        (["--model-path", "{root}/baseline", "--device", "gpu"], "--device"),
    ],
)
@pytest.mark.parametrize("script", [run_gsm8k, run_arithmetic_probes])
def test_wrong_input_is_one_line_and_exit_code_2(workspace, monkeypatch, capsys, script, flags, message):
    monkeypatch.setattr(sys, "argv", [script.__name__, *(flag.format(root=workspace) for flag in flags)])
    with pytest.raises(SystemExit) as stop:
        run_script(script.main)
    stderr = capsys.readouterr().err
    assert stop.value.code == 2
    assert stderr.startswith("error: ") and message in stderr and stderr.count("\n") == 1


SAMPLING = {"num_samples": 4, "temperature": 1.0, "top_k": 50, "max_new_tokens": 3}


def test_samples_give_pass_at_k_and_majority(workspace, tmp_path, monkeypatch, capsys):
    flags = {"model_path": workspace / "baseline", "data_path": workspace / "data", **SAMPLING}
    run(run_gsm8k, monkeypatch, **flags, output_dir=tmp_path / "out")
    results, rows = read_json(tmp_path / "out/gsm8k_results.json"), read_jsonl(tmp_path / "out/gsm8k_responses.jsonl")
    assert [(row["index"], row["sample"]) for row in rows] == [(i, s) for i in range(3) for s in range(4)]
    assert len({row["response"] for row in rows}) > 6
    assert results["num_samples"] == 4 and results["num_items"] == 3 and results["num_total"] == 12
    assert list(results["pass_at_k"]) == list(results["majority_at_k"]) == ["1", "2", "4"]
    assert results["pass_at_k"]["4"]["high"] > 0.2 and "bootstrap_95" in results and "wilson_95" not in results
    assert "pass@4" in capsys.readouterr().out
    run(run_gsm8k, monkeypatch, **flags, output_dir=tmp_path / "again", batch_size=5)
    assert read_jsonl(tmp_path / "again/gsm8k_responses.jsonl") == rows
    run(run_gsm8k, monkeypatch, **flags, output_dir=tmp_path / "other", seed=1)
    assert read_jsonl(tmp_path / "other/gsm8k_responses.jsonl") != rows


def test_samples_do_not_take_the_place_of_the_greedy_results(workspace, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    flags = {"model_path": workspace / "baseline", "data_path": workspace / "data"}
    run(run_gsm8k, monkeypatch, **flags, **SAMPLING)
    assert [path.name for path in (tmp_path / "outputs").iterdir()] == ["eval_baseline_samples"]


class Killed(Exception):
    """Stands for a kill: nothing of ours catches it."""


def test_an_interrupted_evaluation_goes_on_where_it_was(workspace, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(responses, "CHUNK_SEQUENCES", {"cpu": 4})  # a problem's four samples
    flags = {"model_path": workspace / "baseline", "data_path": workspace / "data", **SAMPLING}
    run(run_gsm8k, monkeypatch, **flags, output_dir=tmp_path / "whole")
    generate, asked = responses.generate, []

    def dies_at_the_third(model, prompts, **options):
        if len(asked) == 2:
            raise Killed
        asked.append(options["streams"])
        return generate(model, prompts, **options)

    monkeypatch.setattr(responses, "generate", dies_at_the_third)
    with pytest.raises(Killed):
        run(run_gsm8k, monkeypatch, **flags, output_dir=tmp_path / "out")
    [partial] = (tmp_path / "out").iterdir()
    assert partial.name.startswith("gsm8k_partial_")
    partial.write_text(partial.read_text()[:-20])  # the kill came while the second chunk was written
    asked.clear()
    run(run_gsm8k, monkeypatch, **flags, output_dir=tmp_path / "out")
    assert asked == [[1], [2]], "the first chunk was there and is not asked again"
    for name in ("gsm8k_responses.jsonl",):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert not list((tmp_path / "out").glob("*partial*"))


def test_what_another_evaluation_left_is_not_taken_up(workspace, tmp_path, monkeypatch, capsys):
    flags = {"model_path": workspace / "baseline", "data_path": workspace / "data", **SAMPLING}
    generate, asked = responses.generate, []

    def dies(model, prompts, **options):
        asked.extend(options["streams"])
        generate(model, prompts, **options)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(responses, "CHUNK_SEQUENCES", {"cpu": 4})
        patch.setattr(responses.PartialResponses, "append", _append_and_die)
        with pytest.raises(Killed):
            run(run_gsm8k, patch, **flags, output_dir=tmp_path)
    monkeypatch.setattr(responses, "generate", dies)
    with pytest.raises(Killed):
        run(run_gsm8k, monkeypatch, **flags | {"temperature": 0.5}, output_dir=tmp_path)
    assert asked == [0, 1, 2]


def _append_and_die(partial, rank, chunk, completions, append=responses.PartialResponses.append):
    append(partial, rank, chunk, completions)
    raise Killed


def test_a_prompt_longer_than_the_context_is_counted_not_cut(workspace, tmp_path, monkeypatch, capsys):
    long = {"question": "How many? " * 40, "answer": "#### 1"}
    write_jsonl(tmp_path / "test.jsonl", [PROBLEMS[0], long])
    flags = {"model_path": workspace / "baseline", "data_path": tmp_path, "max_new_tokens": 3}
    run(run_gsm8k, monkeypatch, **flags, output_dir=tmp_path / "out")
    results, rows = read_json(tmp_path / "out/gsm8k_results.json"), read_jsonl(tmp_path / "out/gsm8k_responses.jsonl")
    assert [row["finish_reason"] for row in rows] == ["length", "skipped"] and rows[1]["response"] == ""
    assert (results["num_skipped"], results["num_total"], rows[1]["correct"]) == (1, 2, False)
    assert results["mean_response_tokens"] == 3 and "longer than the model's context" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"num_samples": 4}, "--num-samples needs --temperature above 0"),
        ({"temperature": -1}, "--temperature -1.0: expected 0"),
        ({"top_p": 1.5}, "--top-p 1.5: expected more than 0"),
        ({"top_k": 0}, "--top-k 0: expected at least 1"),
    ],
)
def test_sampling_flags_that_make_no_sense(workspace, tmp_path, monkeypatch, flags, message):
    with pytest.raises(UserError, match=message):
        run(run_gsm8k, monkeypatch, model_path=workspace / "baseline", output_dir=tmp_path, **flags)


def test_a_corrupt_model_or_a_bad_line_is_one_line(workspace, tmp_path, monkeypatch):
    flags = {"data_path": workspace / "data", "output_dir": tmp_path / "out"}
    for name in ("model.safetensors", "config.json"):
        broken = tmp_path / name.partition(".")[0]
        shutil.copytree(workspace / "baseline", broken)
        (broken / name).write_bytes((broken / name).read_bytes()[:100])
        with pytest.raises(UserError, match=f"{name}.* (cannot be read|is not valid JSON)"):
            run(run_gsm8k, monkeypatch, model_path=broken, **flags)
    (tmp_path / "test.jsonl").write_text('{"question": "a", "answer": "#### 1"}\n{"question": \n')
    with pytest.raises(UserError, match=r"test\.jsonl, line 2 is not valid JSON"):
        run(run_gsm8k, monkeypatch, model_path=workspace / "baseline", **flags | {"data_path": tmp_path})


@pytest.mark.parametrize("script", [run_gsm8k, run_arithmetic_probes])
def test_a_hub_id_that_cannot_be_had_is_one_line_within_seconds(tmp_path, monkeypatch, script):
    started = time.monotonic()
    with pytest.raises(
        UserError, match="domain-token-nobody/nothing: not a local directory, and the hub gave no model"
    ):
        run(script, monkeypatch, model_path="domain-token-nobody/nothing", output_dir=tmp_path)
    assert time.monotonic() - started < 30


def test_a_stock_gpt2_is_baseline(workspace, tmp_path, monkeypatch, capsys):
    torch.manual_seed(0)
    model = GPT(GPTConfig(n_layer=1, n_head=1, n_embd=8, block_size=64, vocab_size=50257))
    save_model_dir(model, tmp_path / "gpt2", "baseline")
    for path in (tmp_path / "gpt2").glob("tokenizer*"):
        path.unlink()
    flags = {"model_path": tmp_path / "gpt2", "max_new_tokens": 2, "max_samples": 1, "output_dir": tmp_path / "out"}
    run(run_arithmetic_probes, monkeypatch, **flags)
    assert read_json(tmp_path / "out/probes_results.json")["condition"] == "baseline"


def test_the_reasoning_format_stops_at_its_last_tag(workspace, tmp_path, monkeypatch, capsys):
    """A model that can say nothing but </answer>."""
    model = GPT(GPTConfig(n_layer=1, n_head=1, n_embd=8, block_size=64))
    with torch.no_grad():
        model.ln_f.bias.fill_(1.0)
        model.wte.weight[REASONING_TAGS["</answer>"]] = 2.0
    save_model_dir(model, tmp_path / "model", "baseline")
    for name, expected in (("reasoning", ["stop", 1]), ("chat", ["length", 4])):
        out = tmp_path / name
        flags = {"model_path": tmp_path / "model", "data_path": workspace / "data", "max_new_tokens": 4}
        run(run_gsm8k, monkeypatch, **flags, format=name, output_dir=out)
        row = read_jsonl(out / "gsm8k_responses.jsonl")[0]
        assert [row["finish_reason"], row["response_tokens"]] == expected and not row["format_ok"]
