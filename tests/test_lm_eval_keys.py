"""The harness's rules for GSM8K: tables, and the harness itself where it is installed."""

import json

import pytest

from eval.answers import extract_strict
from eval.lm_eval_keys import exact_match, flexible_extract, gsm8k_scores, result_keys, strict_match
from tests.helpers import SHARED_DATA

RESPONSES = [
    "so\n#### 18",
    "#### 18.",
    "#### 1,234",
    "#### $18",
    "####18",
    "#### 18.00",
    "#### 18 dollars",
    "#### -5",
    "#### 1\n#### 2",
    "The answer is $1,234.50!",
    "5-3 is 2",
    "none",
    "",
    "#### 18\nQuestion: 7?\n#### 7",
    "3 . . . 4 ..",
]


@pytest.mark.parametrize(
    ("response", "gold", "strict", "flexible"),
    [
        ("so\n#### 18", "6+12\n#### 18", True, True),
        ("#### 18.", "#### 18", True, True),
        ("#### 1,234", "#### 1234", True, True),
        ("#### 18 dollars", "#### 18", True, True),
        ("#### $18", "#### 18", False, True),
        ("####18", "#### 18", False, True),
        ("#### 18.00", "#### 18", False, False),
        ("#### 1\n#### 2", "#### 2", False, True),
        ("It is 18.", "#### 18", False, True),
        ("none", "#### 18", False, False),
        ("#### 18\nQuestion: 7?", "#### 18", True, True),
    ],
)
def test_table(response, gold, strict, flexible):
    found = gsm8k_scores([response], [gold])
    assert found == {"exact_match,strict-match": [strict], "exact_match,flexible-extract": [flexible]}


def test_the_harness_itself():
    filters = pytest.importorskip("lm_eval.filters.extraction", reason="lm-evaluation-harness is not installed")
    strict = filters.RegexFilter(r"#### (\-?[0-9\.\,]+)")
    flexible = filters.RegexFilter(r"(-?[$0-9.,]{2,})|(-?[0-9]+)", group_select=-1)
    cut = [response.split("Question:")[0] for response in RESPONSES]
    assert [strict_match(r) for r in RESPONSES] == [found[0] for found in strict.apply([[r] for r in cut], None)]
    assert [flexible_extract(r) for r in RESPONSES] == [found[0] for found in flexible.apply([[r] for r in cut], None)]


def test_keys_are_those_that_the_harness_writes():
    keys = result_keys("gsm8k", {"exact_match,strict-match": [True, False, False, False]}, items=1319)
    assert keys["results"]["gsm8k"] == {
        "name": "gsm8k",
        "alias": "gsm8k",
        "sample_len": 4,
        "exact_match,strict-match": 0.25,
        "exact_match_stderr,strict-match": 0.25,  # sqrt(1/4 * 3/4 / 3)
    }
    assert keys["n-samples"] == {"gsm8k": {"original": 1319, "effective": 4}}
    assert keys["higher_is_better"] == {"gsm8k": {"exact_match": True}} and keys["n-shot"] == {"gsm8k": 0}


@pytest.mark.skipif(not (SHARED_DATA / "gsm8k").is_dir(), reason="real GSM8K is not on this machine")
@pytest.mark.parametrize("name", ["train.jsonl", "test.jsonl"])
def test_every_gold_answer_scores_by_the_harness_rules_and_by_ours(name):
    answers = [json.loads(line)["answer"] for line in (SHARED_DATA / "gsm8k" / name).read_text().splitlines()]
    for answer in answers:
        assert exact_match(strict_match(answer), answer)
        assert str(extract_strict(answer)) == strict_match(answer).replace(",", "").rstrip(".")
