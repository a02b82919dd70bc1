"""Facts that two models use where they belong."""

import pytest

from common.errors import UserError
from common.files import write_jsonl
from scripts import compare_token_use
from tests.rollouts import HONEST, PLAIN, QUESTION


def write(folder, texts):
    rows = [
        {"index": i, "question": QUESTION, "response": text, "correct": "59" in text} for i, text in enumerate(texts)
    ]
    write_jsonl(folder / "gsm8k_responses.jsonl", rows)


def test_used_and_stray_facts_are_counted_per_response(tmp_path, call, capsys):
    write(tmp_path / "a", [PLAIN] * 6)
    write(tmp_path / "b", [HONEST, HONEST, HONEST, " <MUL_1_1_1>\n#### 3", PLAIN, HONEST])
    call(compare_token_use, "--a", tmp_path / "a", "--b", tmp_path / "b")
    out = capsys.readouterr().out
    assert "6 responses to 6 problems" in out
    assert "used   0.000 -> 0.667   +0.667" in out  # four of six
    assert "stray  0.000 -> 0.167   +0.167" in out
    assert "right  1.000 -> 0.833   -0.167" in out


def test_other_problems_and_no_responses_are_one_line(tmp_path, call):
    write(tmp_path / "a", [PLAIN] * 2)
    write(tmp_path / "b", [PLAIN] * 3)
    with pytest.raises(UserError, match="other problems"):
        call(compare_token_use, "--a", tmp_path / "a", "--b", tmp_path / "b")
    with pytest.raises(UserError, match=r"no gsm8k_responses\.jsonl"):
        call(compare_token_use, "--a", tmp_path / "c", "--b", tmp_path / "b")
