"""sft/sft_transition.py and sft/sft_tinygsm.py: from conversations to TinyGSM's worked answers, at toy size."""

import sys

import pytest

from common.errors import UserError, run_script
from common.files import read_json, write_jsonl
from data.tinygsm import prepare_tinygsm
from sft import sft_tinygsm, sft_transition
from sft.sft_transition import Mixture, shares_to_counts
from sft.training import quiet_libraries
from tests.helpers import ROOT
from tests.sft_parents import TOY, write_parent
from tests.tinygsm_rows import synthetic_rows

CONDITIONS = ("baseline", "mul_tokens")
TEST_QUESTION = "What is 3*4?"
CONVERSATIONS = [
    {
        "messages": [
            {"role": "user", "content": f"What is {a}*{b}?"},
            {"role": "assistant", "content": f"It is {a}*{b} = {a * b}."},
            {"role": "user", "content": "Thanks!"},
            {"role": "assistant", "content": "You are welcome."},
        ]
    }
    for a in range(2, 6)
    for b in range(2, 6)
]
ITEMS = [{"question": f"Say {a}*7.", "answer": f"{a}*7 = {a * 7}\n#### {a * 7}"} for a in range(2, 10)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A working directory with sft_tulu.py's models and local data, and both stages run in it in both conditions."""
    folder = tmp_path_factory.mktemp("work")
    quiet_libraries()
    for condition in CONDITIONS:
        write_parent(folder / f"outputs/sft_tulu_{condition}", condition)
    (folder / "sft").symlink_to(ROOT / "sft")
    (folder / "toy.yaml").write_text(TOY)
    write_jsonl(folder / "tulu.jsonl", CONVERSATIONS)
    write_jsonl(folder / "gsm8k/train.jsonl", ITEMS)
    write_jsonl(folder / "gsm8k/test.jsonl", [{"question": TEST_QUESTION, "answer": "#### 12"}])
    write_jsonl(folder / "rows.jsonl", synthetic_rows(20, seed=3))
    with pytest.MonkeyPatch.context() as patch:
        run(patch, folder, prepare_tinygsm, "--data-path=rows.jsonl", "--gsm8k=gsm8k")
        for condition in CONDITIONS:
            transition(patch, folder, condition)
            run(patch, folder, sft_tinygsm, *common(condition))
    return folder


def run(patch, folder, script, *arguments):
    patch.chdir(folder)
    patch.setattr(sys, "argv", [script.__name__, *arguments])
    run_script(script.main)


def common(condition):
    inject = ["--inject-mul-tokens"] if condition == "mul_tokens" else []
    return ["--config=toy.yaml", f"--condition={condition}", "--device=cpu", "--training.epochs=1", *inject]


def transition(patch, folder, condition, *extra):
    data = ("--instruction-path=tulu.jsonl", "--gsm8k-path=gsm8k", "--num-examples=30")
    run(patch, folder, sft_transition, *common(condition), *data, *extra)


def test_both_stages_see_the_same_documents_in_both_conditions(folder):
    for stage, results_name in (("transition", "transition_sft_results.json"), ("tinygsm", "tinygsm_sft_results.json")):
        directories = [folder / f"outputs/sft_{stage}_{condition}" for condition in CONDITIONS]
        results = [read_json(directory / results_name) for directory in directories]
        records = [read_json(directory / "run.json") for directory in directories]
        assert records[0]["data"]["documents_sha256"] == records[1]["data"]["documents_sha256"]
        assert records[0]["steps"] == records[1]["steps"] > 0
        assert results[0]["mul_tokens_seen"] == 0 < results[1]["mul_tokens_seen"]
        assert results[0]["tokens"] > results[1]["tokens"]  # a token stands where a product with its result stood


def test_the_stages_follow_each_other(folder):
    record = read_json(folder / "outputs/sft_tinygsm_mul_tokens/run.json")
    assert record["parent"]["run"]["stage"] == "sft_transition"
    assert record["data"]["examples"] == 15  # of 20 rows, and a quarter held out


def test_the_mixture_has_its_shares_and_no_test_question(folder):
    record = read_json(folder / "outputs/sft_transition_baseline/run.json")
    assert record["data"]["source"] == "10 of instruction, 6 of gsm8k, 12 of tinygsm"
    assert record["data"]["dropped"] == {"test_question": 2}  # "What is 4*3?" asks the same


def test_rows_from_elsewhere_are_searched_for_test_questions(folder, monkeypatch):
    asked = {"question": "Add to this: what is  3 * 4 ?", "answer": "3*4 = 12\n#### 12"}
    write_jsonl(folder / "elsewhere.jsonl", [*ITEMS, asked])
    for extra, dropped in (([], {}), (["--test-path=gsm8k"], {"test_question": 1})):
        flags = ("--data-path=elsewhere.jsonl", "--output-dir=outputs/elsewhere", "--force", *extra)
        run(monkeypatch, folder, sft_tinygsm, *common("baseline"), *flags)
        results = read_json(folder / "outputs/elsewhere/tinygsm_sft_results.json")
        assert results["dropped"] == dropped
        assert results["examples"] + results["eval_examples"] == 9 - len(dropped)


def test_the_mixture_takes_another_test_set(folder, monkeypatch):
    write_jsonl(folder / "other.jsonl", [{"question": "Say 2*7.", "answer": "#### 14"}])
    transition(monkeypatch, folder, "baseline", "--test-path=other.jsonl", "--output-dir=outputs/other_test")
    record = read_json(folder / "outputs/other_test/run.json")
    assert record["data"]["source"] == "12 of instruction, 5 of gsm8k, 12 of tinygsm"
    assert record["data"]["dropped"] == {"test_question": 1}


def test_shares_become_counts():
    assert shares_to_counts(Mixture(), 50) == {"instruction": 20, "gsm8k": 10, "tinygsm": 20}
    for shares in ((0.5, 0.4, 0.4), (1.5, -0.5, 0), (0, 0, 0)):
        with pytest.raises(UserError, match="expected shares of at least 0 that add up to 1, found instruction"):
            shares_to_counts(Mixture(*shares), 50)


def test_a_share_of_nothing_needs_no_file(folder, monkeypatch):
    shares = ("--mixture.instruction=0.8", "--mixture.gsm8k=0.2", "--mixture.tinygsm=0", "--num-examples=10")
    extra = (*shares, "--tinygsm-path=none.jsonl", "--output-dir=outputs/without")
    transition(monkeypatch, folder, "baseline", *extra)
    assert "tinygsm" not in read_json(folder / "outputs/without/run.json")["data"]["source"]


@pytest.mark.parametrize(
    ("script", "extra", "message"),
    [
        ("transition", ["--mixture.gsm8k=0.9"], "expected shares"),
        ("transition", ["--num-examples=0"], "--num-examples 0"),
        ("transition", ["--num-examples=100"], "mixture.instruction: 40 examples wanted, 16 there"),
        ("transition", ["--tinygsm-path=none.jsonl"], "none.jsonl does not exist; write it with"),
        ("tinygsm", ["--data-path=none.jsonl"], "none.jsonl does not exist; write it with"),
        ("tinygsm", ["--data-path=tulu.jsonl"], "16 of 16 rows cannot be used (16 missing_keys)"),
        ("tinygsm", ["--model-path=none"], "none"),
    ],
)
def test_a_mistake_is_one_line(folder, monkeypatch, capsys, script, extra, message):
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        if script == "transition":
            transition(monkeypatch, folder, "baseline", "--output-dir=outputs/other", *extra)
        else:
            run(monkeypatch, folder, sft_tinygsm, *common("baseline"), "--output-dir=outputs/other", *extra)
    (line,) = capsys.readouterr().err.splitlines()
    assert stop.value.code == 2 and line.startswith("error: ") and message in line
    assert not (folder / "outputs/other").exists()


@pytest.mark.parametrize("name", ["transition", "tinygsm"])
def test_the_config_files_are_read(folder, monkeypatch, capsys, name):
    """Their lengths are the real model's, which the toy model is too short for: the error that names it is the last."""
    with pytest.raises(SystemExit):
        script = {"transition": sft_transition, "tinygsm": sft_tinygsm}[name]
        parent = "--model-path=outputs/sft_tulu_baseline"
        run(monkeypatch, folder, script, f"--config=sft/configs/{name}.yaml", parent)
    assert "max_length" in capsys.readouterr().err
