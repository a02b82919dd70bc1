"""Ablations: their settings, what they take over from a finished study, and the injection that they change."""

import shutil
import subprocess
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from common.config import config_from_yaml, parse_config
from common.errors import UserError
from common.files import read_json, read_jsonl, write_json, write_jsonl
from data import prepare_text
from eval import responses, run_arithmetic_probes, run_gsm8k
from pretrain.hf_weights import save_model_dir
from pretrain.model import GPT, GPTConfig
from pretrain.settings import TrainConfig
from rl.settings import GRPOConfig
from scripts import study, take_stages
from sft import sft_drills, sft_gsm8k, sft_reasoning
from sft.embeddings import unseen_tokens
from tests.helpers import ROOT
from tokenizer.mul_facts import CONDITIONS, FIRST_MUL_ID

CONFIGS = ROOT / "scripts/configs"
ABLATIONS = sorted(CONFIGS.glob("ablation_*.yaml"))


# ---- settings


def write_config(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_flags_of_both_conditions_and_of_mul_tokens_alone(tmp_path, call, capsys):
    text = "flags: {grpo: --training.iterations 3, sft: '--output-dir \"a b\"'}\nmul_tokens_flags: {sft: --no-inject-x}"
    call(study, "--config", write_config(tmp_path / "config.yaml", text))
    lines = capsys.readouterr().out.splitlines()
    assert "flags_grpo_baseline='--training.iterations 3'" in lines
    assert "flags_grpo_mul_tokens='--training.iterations 3'" in lines
    words = subprocess.run(
        [
            "bash",
            "-c",
            'eval "$1"; eval "more=($flags_sft_mul_tokens)"; printf "%s|" "${more[@]}"',
            "",
            "\n".join(lines),
        ],
        capture_output=True,
        text=True,
    ).stdout
    assert words == "--output-dir|a b|--no-inject-x|", "spaces survive both shells"
    assert any(line.startswith("description=") and "in mul_tokens sft --no-inject-x" in line for line in lines)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mul_tokens_flags: {pretrain: --training.max-steps 5}", "--training.max-steps is no flag of injection"),
        ('flags: {sft: "--x \'open"}', "quotation"),
        ("size: 10b\nflags: {grpo: --training.iterations 3}", "10b has no flags"),
        ("size: 10b\nbuilds_on: outputs/x", "has no builds_on"),
    ],
)
def test_settings_that_cannot_be(tmp_path, call, text, message):
    with pytest.raises(UserError, match=message):
        call(study, "--config", write_config(tmp_path / "config.yaml", text))


@pytest.mark.parametrize("path", ABLATIONS, ids=lambda path: path.stem)
def test_an_ablation_is_the_main_study_but_for_what_it_changes(path):
    main, ablation = (config_from_yaml(study.StudyConfig, p) for p in (CONFIGS / "study_cpu.yaml", path))
    same = ("size", "seeds", "data_seed", "gsm8k", "text")
    assert [getattr(main, key) for key in same] == [getattr(ablation, key) for key in same]
    assert ablation.builds_on == "outputs/study_cpu"
    study.check_injection(study.split_flags(ablation.mul_tokens_flags))
    shared, changed = study.split_flags(main.flags), study.split_flags(ablation.flags)
    for stage, words in shared.items():
        assert changed[stage][: len(words)] == words, "what the main study says comes first, or nothing is taken over"
    assert changed != shared or study.split_flags(ablation.mul_tokens_flags)
    # Every argument is one that the stage knows.
    classes = {"text": prepare_text.PrepareTextConfig, "pretrain": TrainConfig, "grpo": GRPOConfig}
    classes |= {"drills": sft_drills.Config, "sft": sft_gsm8k.Config, "reasoning": sft_reasoning.Config}
    classes |= {"problems": run_gsm8k.GSM8KConfig, "probes": run_arithmetic_probes.ProbesConfig}
    for flags in (ablation.flags, ablation.mul_tokens_flags):
        for stage, words in study.split_flags(flags).items():
            before = ["--condition", "mul_tokens"]
            before += ["--model-path", "x"] if stage in ("problems", "probes") else []
            before += ["--inject-mul-tokens"] if stage in ("sft", "reasoning") else []
            config = parse_config(classes[stage], [*before, *words])
            if "--no-inject-mul-tokens" in words:
                assert not config.inject_mul_tokens


# ---- what an ablation takes over

ARGUMENTS = {"size": "demo", "data_seed": "0", "gsm8k": "''", "text": "''", "description": "'a b'"}


def make_seed(folder: Path, flags: dict[str, str] | None = None, seed: int = 0, **changed: str) -> Path:
    """A seed's folder with nothing but the arguments that it was made with."""
    lines = [f"{name}={value}" for name, value in (ARGUMENTS | changed | (flags or {})).items()]
    folder.mkdir(parents=True)
    (folder / "arguments.txt").write_text("\n".join(lines) + f" seed={seed} configs=123\n")
    return folder


@pytest.fixture
def finished(tmp_path) -> Path:
    """A seed of which every stage is there."""
    folder = make_seed(tmp_path / "main/seed_0")
    for condition in CONDITIONS:
        for pattern in take_stages.DECIDED_BY:
            path = folder / pattern.format(condition)
            if path.suffix:
                write_json(path, {})
            elif not path.name.startswith("drills"):
                for name in ("run.json", "log.jsonl", "model.safetensors"):
                    path.mkdir(parents=True, exist_ok=True)
                    (path / name).write_text(name)
    return folder


def taken(folder: Path) -> set[str]:
    """The stage directories that are there, without those of the data."""
    return {path.name for path in folder.iterdir() if path.is_dir() and path.name not in ("raw", "processed")}


@pytest.mark.parametrize(
    ("flags", "missing"),
    [
        ({}, {"mul_tokens": set()}),
        ({"flags_grpo_mul_tokens": "x"}, {"mul_tokens": {"grpo", "eval_grpo"}}),
        ({"flags_probes_mul_tokens": "x"}, {"mul_tokens": {"eval_sft_gsm8k"}}),
        (
            {"flags_problems_mul_tokens": "x"},
            {"mul_tokens": {"eval_sft_gsm8k", "eval_sft_reasoning", "eval_grpo"}},
        ),
        (
            {"flags_drills_baseline": "x", "flags_drills_mul_tokens": "x"},
            {c: {"sft_gsm8k", "eval_sft_gsm8k"} for c in CONDITIONS},
        ),
    ],
    ids=["nothing", "grpo", "probes", "problems", "drills"],
)
def test_what_differences_do_not_reach_is_taken_over(finished, tmp_path, call, capsys, flags, missing):
    ablation = make_seed(tmp_path / "ablation/seed_0", flags, description="other")
    call(take_stages, "--study", finished, "--output-dir", ablation)
    left = {f"{name}_{condition}" for condition, names in missing.items() for name in names}
    assert taken(finished) - taken(ablation) == left
    assert (ablation / "raw/baseline_stats.json").exists() and (ablation / "processed/mul_tokens/log.jsonl").exists()


def test_other_text_leaves_nothing_of_that_condition(finished, tmp_path, call, capsys):
    ablation = make_seed(tmp_path / "ablation/seed_0", {"flags_text_mul_tokens": "x"})
    call(take_stages, "--study", finished, "--output-dir", ablation)
    assert taken(ablation) == {name for name in taken(finished) if name.endswith("baseline")}
    assert not (ablation / "raw/mul_tokens_stats.json").exists() and not (ablation / "processed/mul_tokens").exists()


def test_an_ablation_cannot_write_into_the_other_study(finished, tmp_path, call, capsys):
    ablation = make_seed(tmp_path / "ablation/seed_0")
    call(take_stages, "--study", finished, "--output-dir", ablation, "--conditions", "baseline")
    assert not any(name.endswith("mul_tokens") for name in taken(ablation))
    there, here = (folder / "pretrain_baseline" for folder in (finished, ablation))
    assert here.stat().st_ino != there.stat().st_ino and not here.is_symlink()
    assert (here / "model.safetensors").samefile(there / "model.safetensors"), "no second copy of weights"
    for name in ("log.jsonl", "run.json"):  # what a stage may append to, or a script rewrite
        (here / name).open("a").write("more")
        assert (there / name).read_text() == name
    shutil.rmtree(ablation)
    assert (there / "model.safetensors").read_text() == "model.safetensors"


def test_a_stage_that_has_not_ended_is_not_taken(finished, tmp_path, call, capsys):
    (finished / "grpo_baseline/run.json").unlink()
    ablation = make_seed(tmp_path / "ablation/seed_0")
    call(take_stages, "--study", finished, "--output-dir", ablation)
    assert taken(finished) - taken(ablation) == {"grpo_baseline"}


@pytest.mark.parametrize("changed", [{"size": "quick"}, {"data_seed": "7"}, {"seed": 1}], ids=str)
def test_a_study_of_other_data_or_seeds_cannot_be_built_on(finished, tmp_path, call, changed):
    ablation = make_seed(tmp_path / "ablation/seed_0", **changed)
    with pytest.raises(UserError, match=f"cannot build on .*: {next(iter(changed))} is"):
        call(take_stages, "--study", finished, "--output-dir", ablation)
    with pytest.raises(UserError, match=r"no arguments\.txt; run that study first"):
        call(take_stages, "--study", tmp_path / "nowhere", "--output-dir", ablation)


# ---- ablations of the injection


def test_a_share_of_the_documents_is_injected_and_a_lower_one_is_part_of_it(tmp_path, call, capsys):
    shares = {rate: {i for i in range(4000) if prepare_text.is_injected(i, rate)} for rate in (0, 0.25, 0.5, 1)}
    assert not shares[0] and len(shares[1]) == 4000 and shares[0.25] < shares[0.5]
    assert len(shares[0.25]) / 4000 == pytest.approx(0.25, abs=0.03)  # four standard deviations

    texts, statistics = {}, {}
    for rate in (0, 0.5, 1):
        out = tmp_path / str(rate)
        call(
            prepare_text, "--condition=mul_tokens", "--num-documents=300", f"--injection-rate={rate}", "--out-dir", out
        )
        texts[rate] = (out / "train_mul_tokens.txt").read_text().split("<|endoftext|>\n")
        statistics[rate] = read_json(out / "mul_tokens_stats.json")
    assert not any("<MUL_" in text for text in texts[0]) and statistics[0]["injection"]["rate"] == 0
    for i, (none, some, every) in enumerate(zip(texts[0], texts[0.5], texts[1], strict=True)):
        assert some == (every if prepare_text.is_injected(i, 0.5) else none)
    assert len({s["documents_sha256"] for s in statistics.values()}) == 1, "the same documents, for the audit"
    assert 0 < statistics[0.5]["products"] < statistics[1]["products"]
    with pytest.raises(UserError, match="share from 0 to 1"):
        call(prepare_text, "--condition=mul_tokens", "--injection-rate=1.5")


@pytest.mark.parametrize(("seen", "unseen"), [(0, True), (5, False)])
def test_mul_tokens_that_pretraining_never_read_are_initialised(tmp_path, seen, unseen):
    model = GPT(GPTConfig(n_layer=1, n_head=1, n_embd=8, block_size=16))
    save_model_dir(model, tmp_path, "mul_tokens")
    write_json(
        tmp_path / "run.json",
        {"stage": "pretrain", "condition": "mul_tokens", "data": {"mul_tokens_seen": seen}},
    )
    found = unseen_tokens(tmp_path, AutoTokenizer.from_pretrained(tmp_path))
    assert (FIRST_MUL_ID in found) == unseen


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("models")
    for condition in CONDITIONS:
        save_model_dir(GPT(GPTConfig(n_layer=1, n_head=1, n_embd=8, block_size=64)), root / condition, condition)
    write_jsonl(
        root / "test.jsonl",
        [{"question": "What is 6*9?", "answer": "#### 54"}, {"question": "Why?", "answer": "#### 1"}],
    )
    return root


@pytest.mark.parametrize("script", [run_gsm8k, run_arithmetic_probes])
def test_prompts_are_injected_and_items_keep_their_questions(models, tmp_path, call, capsys, monkeypatch, script):
    asked = []

    def respond(evaluated, prompts, *arguments):
        asked.append(list(prompts))
        return responses.respond(evaluated, prompts, *arguments)

    monkeypatch.setattr(script, "respond", respond)
    name = "gsm8k" if script is run_gsm8k else "probes"  # in words, "6 times 9"
    flags = ["--max-new-tokens=1", *(["--data-path", models] if name == "gsm8k" else ["--sets=probes"])]
    rows, records = {}, {}
    for how in ("plain", "injected"):
        out = tmp_path / how
        inject = ["--inject-prompts"] if how == "injected" else []
        call(script, "--model-path", models / "mul_tokens", "--output-dir", out, *flags, *inject)
        rows[how], records[how] = read_jsonl(out / f"{name}_responses.jsonl"), read_json(out / f"run_{name}.json")
    plain, injected = asked
    changed = [(a, b) for a, b in zip(plain, injected, strict=True) if a != b]
    assert changed and all("<MUL_" in b and "<MUL_" not in a for a, b in changed) and len(changed) < len(plain)
    assert [row["question"] for row in rows["plain"]] == [row["question"] for row in rows["injected"]]
    assert records["injected"]["config"]["inject_prompts"] and not records["plain"]["config"]["inject_prompts"]
    assert records["injected"]["data"]["prompts_injected"] == len(changed)
    with pytest.raises(UserError, match="--inject-prompts belongs to models of mul_tokens"):
        call(script, "--model-path", models / "baseline", "--output-dir", tmp_path / "b", *flags, "--inject-prompts")
