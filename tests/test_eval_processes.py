"""Two processes answer as one does."""

import sys

from common.files import read_json, write_jsonl
from eval import run_gsm8k
from pretrain.hf_weights import save_model_dir
from pretrain.model import GPTConfig
from tests.helpers import random_gpt
from tests.helpers import run as run_process


def test_two_processes_give_the_files_of_one(tmp_path, monkeypatch, capsys):
    """80 problems of 4 samples are two chunks, one for each process."""
    save_model_dir(
        random_gpt(GPTConfig(n_layer=1, n_head=1, n_embd=8, block_size=64)), tmp_path / "model", "mul_tokens"
    )
    problems = [{"question": f"{i}: Tom has 6 boxes of 9 pens. How many?", "answer": "#### 54"} for i in range(80)]
    write_jsonl(tmp_path / "test.jsonl", problems)
    flags = [f"--model-path={tmp_path / 'model'}", f"--data-path={tmp_path}", "--device=cpu"]
    flags += ["--num-samples=4", "--temperature=1.0", "--top-k=50", "--max-new-tokens=3"]
    monkeypatch.setattr(sys, "argv", ["run_gsm8k.py", *flags, f"--output-dir={tmp_path / '1'}"])
    run_gsm8k.main()
    run_process("eval/run_gsm8k.py", *flags, f"--output-dir={tmp_path / '2'}", processes=2)
    one, two = (tmp_path / name / "gsm8k_responses.jsonl" for name in "12")
    assert one.read_bytes() == two.read_bytes()
    assert read_json(tmp_path / "2/run_gsm8k.json")["processes"] == 2
    assert not list((tmp_path / "2").glob("*partial*"))
