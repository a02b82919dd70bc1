"""scripts/compare_runs.py on stage directories made here: numbers and the report."""

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from common.errors import UserError
from common.files import read_json, write_jsonl
from eval.stats import mcnemar_exact, paired_difference, wilson_interval
from scripts import compare_runs
from tests.comparison_runs import directories, run
from tests.stage_directories import NASTY, add_hellaswag, make_stages
from tokenizer.mul_facts import CONDITIONS

pytestmark = pytest.mark.usefixtures("pictures")

# ---- numbers


def test_numbers_equal_those_worked_out_by_hand(monkeypatch, tmp_path, stages):
    assert run(monkeypatch, tmp_path, directories(stages)) == 0
    comparison = read_json(tmp_path / "out" / "comparison.json")
    gsm8k = comparison["benchmarks"]["gsm8k"]
    assert gsm8k["paired"] == {"both": 3, "only_baseline": 3, "only_mul_tokens": 3, "neither": 1}
    low, high = wilson_interval(6, 10)
    baseline = {"n": 10, "correct": 6, "accuracy": 0.6, "low": low, "high": high}
    assert {key: gsm8k["baseline"][key] for key in baseline} == baseline
    assert gsm8k["baseline"]["flexible"]["correct"] == 10
    assert gsm8k["mul_tokens"]["mul_tokens"] == {"total": 9, "responses": 6}
    assert gsm8k["baseline"]["mul_tokens"] == {"total": 0, "responses": 0}
    assert gsm8k["baseline"]["response_tokens"] == {"median": 14.5, "p95": pytest.approx(18.55), "max": 19}
    assert gsm8k["baseline"]["limit_hits"] == 1
    assert gsm8k["test"]["p"] == mcnemar_exact(3, 3)
    assert gsm8k["test"]["difference"] == 0
    categories = comparison["benchmarks"]["probes"]["categories"]
    counts = {name: [side[c]["correct"] for c in CONDITIONS] for name, side in categories.items()}
    assert counts == {"mul_table": [4, 1], "mul_multidigit": [2, 3], "addition": [0, 2]}
    seen = comparison["data"]
    assert (seen["baseline"]["text_bytes_seen"], seen["baseline"]["epochs"]) == (100_000, 2.0)
    assert (seen["mul_tokens"]["text_bytes_seen"], seen["mul_tokens"]["epochs"]) == (125_000, 2.5)
    assert comparison["training"]["sft_gsm8k"]["baseline"]["eval_loss"] == 1.6


def test_the_difference_is_mul_tokens_minus_baseline(monkeypatch, tmp_path):
    right = {"baseline": range(0, 6), "mul_tokens": range(0, 20)}
    sides = {c: list(make_stages(tmp_path, c, right, n=30).values()) for c in CONDITIONS}
    assert run(monkeypatch, tmp_path, sides) == 0
    test = read_json(tmp_path / "out" / "comparison.json")["benchmarks"]["gsm8k"]["test"]
    a, b = ([i in right[c] for i in range(30)] for c in CONDITIONS)
    expected = paired_difference(a, b)
    assert (test["low"], test["high"], test["p"]) == (expected.low, expected.high, mcnemar_exact(0, 14))
    assert test["difference"] == pytest.approx(14 / 30)
    report = (tmp_path / "out" / "report.md").read_text()
    start = "GSM8K-format accuracy: mul_tokens is better; mul_tokens 66.7%, baseline 20.0%, paired difference +46.7"
    assert start in report
    assert "exact McNemar p < 0.001 over 30 items, p < 0.001 after Holm's correction for 2 benchmarks." in report


def test_hellaswag_is_compared_by_acc_norm_token(monkeypatch, tmp_path, stages):
    sides = directories(stages)
    right = {"baseline": range(0, 6), "mul_tokens": range(3, 9)}
    for condition in CONDITIONS:
        sides[condition].append(add_hellaswag(tmp_path, condition, right[condition]))
    assert run(monkeypatch, tmp_path, sides) == 0
    hellaswag = read_json(tmp_path / "out" / "comparison.json")["benchmarks"]["hellaswag"]
    assert hellaswag["paired"] == {"both": 3, "only_baseline": 3, "only_mul_tokens": 3, "neither": 1}
    assert hellaswag["test"]["p"] == mcnemar_exact(3, 3)
    assert [hellaswag["baseline"][key]["correct"] for key in ("acc_norm_char", "acc")] == [4, 9]
    report = (tmp_path / "out" / "report.md").read_text()
    assert "HellaSwag accuracy (acc_norm_token): no difference shown" in report
    assert "| baseline, acc_norm_char | 40.0%" in report


def test_other_hellaswag_items_forbid_the_verdict(monkeypatch, tmp_path, stages, capsys):
    sides = {condition: [add_hellaswag(tmp_path, condition, range(5))] for condition in CONDITIONS}
    path = sides["baseline"][0] / "hellaswag_responses.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    write_jsonl(path, [*rows[:-1], rows[-1] | {"id": "7"}])
    assert run(monkeypatch, tmp_path, sides) == compare_runs.NOT_COMPARABLE
    assert "questions in order (sha256)" in capsys.readouterr().out


def test_without_significance_the_verdict_says_what_could_have_been_found(monkeypatch, tmp_path):
    right = {"baseline": range(0, 40), "mul_tokens": range(4, 40)}
    sides = {c: list(make_stages(tmp_path, c, right, n=100).values()) for c in CONDITIONS}
    assert run(monkeypatch, tmp_path, sides) == 0
    sentence = (tmp_path / "out" / "report.md").read_text().split("> **GSM8K-format")[1].split("\n")[0]
    assert "paired difference −4.0 points" in sentence
    assert "no difference shown" in sentence


def test_a_difference_must_stand_holms_correction(monkeypatch, tmp_path):
    """Two benchmarks with p = 0.031 each, 6 against 0 discordant items: significant alone, not both together."""
    right = {"baseline": range(0, 20), "mul_tokens": range(0, 26)}
    sides = {c: list(make_stages(tmp_path, c, right, n=30).values()) for c in CONDITIONS}
    assert run(monkeypatch, tmp_path, sides) == 0
    tests = [result["test"] for result in read_json(tmp_path / "out" / "comparison.json")["benchmarks"].values()]
    assert [test["p"] for test in tests] == [mcnemar_exact(0, 6)] * 2
    assert [test["p_holm"] for test in tests] == [2 * mcnemar_exact(0, 6)] * 2
    assert not any(test["significant"] for test in tests)
    assert "is better;" not in (tmp_path / "out" / "report.md").read_text()
    for condition in CONDITIONS:
        (tmp_path / f"eval_sft_gsm8k_{condition}" / "probes_responses.jsonl").unlink()
    assert run(monkeypatch, tmp_path, sides) == 0
    [gsm8k] = read_json(tmp_path / "out" / "comparison.json")["benchmarks"].values()
    assert gsm8k["test"]["significant"] and gsm8k["test"]["p_holm"] == gsm8k["test"]["p"]


def test_several_samples_are_compared_by_item(monkeypatch, tmp_path, stages):
    for condition in CONDITIONS:
        path = stages[condition]["eval"] / "gsm8k_responses.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        # Three samples: the first as it was, the second always right, the third never.
        samples = [row | {"sample": s, "correct": (row["correct"], True, False)[s]} for row in rows for s in range(3)]
        write_jsonl(path, samples)
    assert run(monkeypatch, tmp_path, directories(stages, "eval")) == 0
    gsm8k = read_json(tmp_path / "out" / "comparison.json")["benchmarks"]["gsm8k"]
    assert (gsm8k["baseline"]["n"], gsm8k["baseline"]["items"], gsm8k["baseline"]["correct"]) == (30, 10, 16)
    assert "paired" not in gsm8k and gsm8k["test"]["n"] == 10
    assert gsm8k["test"]["difference"] == pytest.approx(0, abs=1e-12) and gsm8k["test"]["p"] == 1
    assert gsm8k["baseline"]["low"] < 16 / 30 < gsm8k["baseline"]["high"]
    report = (tmp_path / "out" / "report.md").read_text()
    assert "permutation test of the items' shares" in report and "bootstrap over items" in report


def test_word_problems_and_domains_are_benchmarks_too(monkeypatch, tmp_path, stages):
    for condition in CONDITIONS:
        directory = stages[condition]["eval"]
        rows = [json.loads(line) for line in (directory / "gsm8k_responses.jsonl").read_text().splitlines()]
        more = {"format_ok": True, "repeated_share": 0.5, "thinking_tokens": 4}
        more |= {"mul_tokens_right": 1, "mul_tokens_placed": 2, "mul_tokens_grounded": 3}
        more |= {"add_tokens": 4, "add_tokens_right": 3, "add_tokens_placed": 2, "add_tokens_grounded": 1}
        write_jsonl(directory / "word_problems_responses.jsonl", [row | more for row in rows])
        prompts = [{"arithmetic": i % 2 == 0, "domain": "logic", "numeric": i > 7} for i in range(10)]
        write_jsonl(
            directory / "domains_responses.jsonl",
            [
                {key: value for key, value in (row | prompt).items() if key not in ("gold", "correct")}
                for row, prompt in zip(rows, prompts, strict=True)
            ],
        )
    assert run(monkeypatch, tmp_path, directories(stages, "eval")) == 0
    benchmarks = read_json(tmp_path / "out" / "comparison.json")["benchmarks"]
    assert list(benchmarks) == ["gsm8k", "probes", "word_problems", "domains"]
    assert benchmarks["domains"]["baseline"]["n"] == 8 and benchmarks["domains"]["baseline"]["correct"] == 4
    found = benchmarks["word_problems"]["baseline"]
    assert (found["in_format"], found["repetitive"], found["skipped"], found["mean_thinking_tokens"]) == (10, 10, 0, 4)
    assert found["mul_tokens"]["grounded"] == 30
    assert found["token_families"] == {"add": {"total": 40, "responses": 10, "right": 30, "placed": 20, "grounded": 10}}
    assert "token_families" not in benchmarks["gsm8k"]["baseline"]
    report = (tmp_path / "out" / "report.md").read_text()
    assert "Non-math prompts answered without a calculation: no difference shown" in report
    assert "| mul tokens whose operands were there | 30 | 30 |" in report and "| repetitive | 10 | 10 |" in report
    assert "| add tokens generated | 40 | 40 |" in report and "| add tokens with a right result | 30 | 30 |" in report


# ---- what is given


@pytest.mark.parametrize("names", [("pretrain",), ("eval",), ("sft_gsm8k", "pretrain"), ("export",)], ids="-".join)
def test_any_subset_of_stages(monkeypatch, tmp_path, stages, names):
    assert run(monkeypatch, tmp_path, directories(stages, *names)) == 0
    comparison = read_json(tmp_path / "out" / "comparison.json")
    assert set(comparison["benchmarks"]) == ({"gsm8k", "probes"} if "eval" in names else set())


def test_a_stage_of_one_condition_only_is_named_and_left_out(monkeypatch, tmp_path, stages):
    sides = directories(stages)
    sides["mul_tokens"] = sides["mul_tokens"][1:]
    assert run(monkeypatch, tmp_path, sides) == 0
    comparison = read_json(tmp_path / "out" / "comparison.json")
    assert comparison["only_in_one"] == {"baseline": ["pretrain"], "mul_tokens": []}
    assert "pretrain" not in comparison["training"]
    assert "Only given for baseline, so not compared: pretrain." in (tmp_path / "out" / "report.md").read_text()


def test_one_run_json_for_both_evaluations(monkeypatch, tmp_path, stages):
    for condition in CONDITIONS:
        directory = stages[condition]["eval"]
        (directory / "run_gsm8k.json").rename(directory / "run.json")
        (directory / "run_probes.json").unlink()
    assert run(monkeypatch, tmp_path, directories(stages, "eval")) == 0
    assert set(read_json(tmp_path / "out" / "comparison.json")["benchmarks"]) == {"gsm8k", "probes"}


def test_no_common_stage_is_an_error(monkeypatch, tmp_path, stages):
    sides = {"baseline": [stages["baseline"]["pretrain"]], "mul_tokens": [stages["mul_tokens"]["eval"]]}
    with pytest.raises(UserError, match="no stage in common"):
        run(monkeypatch, tmp_path, sides)


def test_a_condition_under_the_wrong_flag_is_an_error(monkeypatch, tmp_path, stages):
    sides = {"baseline": [stages["mul_tokens"]["pretrain"]], "mul_tokens": [stages["baseline"]["pretrain"]]}
    with pytest.raises(UserError, match=r"pretrain_mul_tokens is a run of condition mul_tokens.*--baseline"):
        run(monkeypatch, tmp_path, sides)


def test_a_stage_given_twice_is_an_error(monkeypatch, tmp_path, stages):
    sides = directories(stages, "pretrain", "pretrain")
    with pytest.raises(UserError, match="both hold stage pretrain"):
        run(monkeypatch, tmp_path, sides)


def test_a_directory_without_a_record_is_an_error(monkeypatch, tmp_path, stages):
    (stages["baseline"]["pretrain"] / "run.json").unlink()
    with pytest.raises(UserError, match=r"has no run\.json"):
        run(monkeypatch, tmp_path, directories(stages, "pretrain"))


def test_missing_directory_exits_with_2_and_one_line(tmp_path, stages):
    script = Path(__file__).parents[1] / "scripts" / "compare_runs.py"
    arguments = ["--baseline", str(tmp_path / "nowhere"), "--mul-tokens", str(stages["mul_tokens"]["eval"])]
    command = [sys.executable, str(script), *arguments, "--output-dir", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


# ---- the report


class Page(HTMLParser):
    """Tags, attributes and the text of `pre` elements; checks that tags are balanced."""

    VOID = ("meta", "img", "source")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags, self.attributes, self.open, self.pre = [], [], [], []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "pre":
            self.pre.append(data)


def test_html_is_one_self_contained_file_that_escapes_responses(monkeypatch, tmp_path, stages, drawn):
    assert run(monkeypatch, tmp_path, directories(stages), "--data-description", "synthetic: world <0>") == 0
    html = (tmp_path / "out" / "report.html").read_text()
    page = Page(html)
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    references = [value for name, value in page.attributes if name in ("src", "srcset", "href", "data", "action")]
    assert references and all(value.startswith("data:image/png;base64,") for value in references)
    assert not re.search(r"url\(|@import", html)
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert NASTY in page.pre
    assert "synthetic: world &lt;0&gt;" in html
    assert page.tags.count("img") == 4  # two losses, accuracies and those by category


def test_sections_come_in_the_promised_order(monkeypatch, tmp_path, stages):
    assert run(monkeypatch, tmp_path, directories(stages)) == 0
    headings = re.findall(r"^## (.*)$", (tmp_path / "out" / "report.md").read_text(), re.MULTILINE)
    assert headings == [
        "Benchmarks",
        "Losses",
        "Mul tokens and response lengths",
        "Plots",
        "Responses side by side",
        "Compute match",
        "Text seen in pretraining",
        "Wall time and hardware",
        "How it was made",
    ]


def test_synthetic_data_names_itself_without_the_flag(monkeypatch, tmp_path, stages):
    assert run(monkeypatch, tmp_path, directories(stages)) == 0
    for name in ("report.md", "report.html"):
        assert "Data: synthetic: generated world" in (tmp_path / "out" / name).read_text()
