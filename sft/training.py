"""What the supervised stages share: the parent model, and TRL's SFTTrainer with a head that reads less.

At vocabulary 50,349 a small model spends nearly all its time in the LM head. Away from GPUs TRL's trainer scores
every position, prompts too, and finds entropy and accuracy on the way; this one scores the labelled positions only.
"""

import math
import time
import warnings
from pathlib import Path
from typing import Any

import datasets
import torch
import transformers
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2LMHeadModel, PreTrainedTokenizerFast
from transformers.trainer_callback import PrinterCallback, TrainerCallback, TrainerControl, TrainerState
from trl import SFTConfig, SFTTrainer

from common.device import pick_device, pick_dtype
from common.errors import UserError
from common.files import write_jsonl
from pretrain.hf_weights import families_of
from pretrain.loss import chunked_cross_entropy
from sft.examples import TokenizedExamples
from sft.order import TrainingOrder, filler
from sft.packing import IGNORED, PackedRows
from sft.settings import SFTSettings
from tokenizer.mul_facts import Condition
from tokenizer.vocabulary import Vocabulary


def quiet_libraries() -> None:
    """Leave on the screen what a reader of the run needs: our own lines."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity_error()
    warnings.filterwarnings("ignore", module="transformers|trl|accelerate|torch")


def load_parent(model_path: Path, condition: Condition) -> tuple[GPT2LMHeadModel, PreTrainedTokenizerFast]:
    """Model (float32) and tokenizer of a model directory.

    Raises UserError when the tokenizer is the other condition's.
    """
    tokenizer = AutoTokenizer.from_pretrained(model_path)
    first, fact = next(iter(Vocabulary("mul_tokens", families_of(model_path)).facts.items()))
    knows_facts = tokenizer(fact.token).input_ids == [first]
    if knows_facts != (condition == "mul_tokens"):
        raise UserError(
            f"--condition {condition}, but the tokenizer in {model_path} {'has' if knows_facts else 'lacks'} the "
            f"mul tokens; give the {condition} model"
        )
    model = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32, attn_implementation="sdpa")
    return model, tokenizer


class LabelledRowsTrainer(SFTTrainer):
    """SFTTrainer that computes labelled rows only, weighs tokens equally in eval too, and keeps its own log."""

    log_path: Path  # log.jsonl
    order: TrainingOrder
    train_started: float  # time.time()

    def _get_train_sampler(self, *_: Any) -> TrainingOrder:
        return self.order

    def compute_loss(
        self, model: torch.nn.Module, inputs: dict, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Tensor:
        """This micro-batch's share of the mean over all `num_items_in_batch` labelled tokens of the step."""
        loss, labelled = self.labelled_loss(model, inputs)
        if num_items_in_batch is None:
            return loss
        # DDP averages gradients over processes, but num_items_in_batch counts the tokens of all of them.
        return loss * (labelled / num_items_in_batch * self.accelerator.num_processes)

    def labelled_loss(self, model: torch.nn.Module, inputs: dict[str, Tensor]) -> tuple[Tensor, int]:
        """Mean cross-entropy over the labelled positions of (B, T) `inputs`, and their number."""
        outputs = model(
            input_ids=inputs["input_ids"],
            position_ids=inputs["position_ids"],
            logits_to_keep=inputs["input_ids"].new_empty(0),  # project no position: no logits
            output_hidden_states=True,  # the last of them is ln_f's output
            use_cache=False,
        )
        targets = inputs["labels"][:, 1:]
        labelled = targets != IGNORED
        hidden = outputs.hidden_states[-1][:, :-1][labelled]
        if not len(hidden):  # a process's share of the last batch may be fillers alone
            return hidden.sum(), 0  # 0, with gradients for the other processes to wait for
        with self.accelerator.autocast():
            loss = chunked_cross_entropy(hidden, self.model.lm_head.weight, targets[labelled])
        return loss, len(hidden)

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Loss per labelled token of the eval set. (Trainer's own is a mean over batches, whatever their size.)"""
        self.model.eval()
        total, count = 0.0, 0
        # Every process reads all of it: shared out, the last batch would be filled up with repeated examples.
        for batch in DataLoader(self.eval_dataset, self.args.eval_batch_size, collate_fn=self.data_collator):
            with torch.no_grad():
                loss, labelled = self.labelled_loss(self.model, self._prepare_inputs(batch))
            total, count = total + loss.item() * labelled, count + labelled
        metrics = {"eval_loss": total / count}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add `logs` to the trainer's state, which checkpoints keep; write log.jsonl from it; print a line."""
        if not logs.keys() & {"loss", "eval_loss"}:
            return  # the summary at the end
        step, steps = self.state.global_step, self.state.max_steps
        if not math.isfinite(logs.get("loss", 0.0)):
            raise UserError(f"the loss is {logs['loss']} at step {step}; lower training.learning_rate")
        super().log(logs, start_time)
        if not self.is_world_process_zero():
            return
        write_jsonl(self.log_path, self.log_rows())
        if "eval_loss" in logs:
            text = f"eval loss {logs['eval_loss']:.4f}"
        else:
            seconds = time.time() - self.train_started
            text = f"loss {logs['loss']:.4f}  lr {logs['learning_rate']:.2e}  {seconds:.0f} s"
        print(f"step {step:{len(str(steps))}d}/{steps}  {text}", flush=True)

    def log_rows(self) -> list[dict[str, float]]:
        """The rows of log.jsonl: {"step", "loss", "lr"} (loss: mean since the row before) or {"step", "eval_loss"}."""
        return [
            {"step": entry["step"], "loss": entry["loss"], "lr": entry["learning_rate"]}
            if "loss" in entry
            else {"step": entry["step"], "eval_loss": entry["eval_loss"]}
            for entry in self.state.log_history
        ]

    def _send_telemetry(self) -> None:
        """TRL would report the run to its makers."""

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """run.json describes the run; TRL's generated README would not."""


class LogLastStep(TrainerCallback):
    """The trainer logs at multiples of an interval; without this the last losses would be in no row."""

    def on_step_end(self, args: SFTConfig, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        control.should_log |= state.global_step >= state.max_steps


def build_trainer(
    model: GPT2LMHeadModel,
    tokenizer: PreTrainedTokenizerFast,
    train: TokenizedExamples,
    held_out: TokenizedExamples,
    settings: SFTSettings,
    output_dir: Path,
    seed: int,
    device_name: str,
) -> LabelledRowsTrainer:
    """A trainer whose steps read `training.batch_size` examples each, in an order of `seed` and their number alone.

    The last step of a pass reads what is left, however many processes there are.

    Raises UserError when the device is not there or the batch cannot be shared among the processes.
    """
    t = settings.training
    arguments = trainer_arguments(settings, bool(held_out.rows), output_dir, seed, pick_device(device_name))
    per_forward = t.micro_batch_size * arguments.world_size
    if t.batch_size % per_forward:
        raise UserError(
            f"training.batch_size {t.batch_size} must be a multiple of training.micro_batch_size "
            f"{t.micro_batch_size} times {arguments.world_size} processes"
        )
    arguments.gradient_accumulation_steps = t.batch_size // per_forward
    fillers = -len(train.rows) % per_forward if arguments.world_size > 1 else 0
    trainer = LabelledRowsTrainer(
        model,
        arguments,
        data_collator=PackedRows(t.max_length, tokenizer.pad_token_id),
        train_dataset=datasets.Dataset.from_list(train.rows + [filler(tokenizer.pad_token_id)] * fillers),
        eval_dataset=datasets.Dataset.from_list(held_out.rows) if held_out.rows else None,
        processing_class=tokenizer,
    )
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(LogLastStep)
    trainer.log_path = output_dir / "log.jsonl"
    trainer.order = TrainingOrder(len(train.rows), fillers, seed)
    trainer.add_callback(trainer.order)
    return trainer


def trainer_arguments(
    settings: SFTSettings, has_eval: bool, output_dir: Path, seed: int, device: torch.device
) -> SFTConfig:
    """The settings in the trainer's words, with all that it would otherwise do by itself."""
    t = settings.training
    arguments = SFTConfig(
        output_dir=str(output_dir),
        use_cpu=device.type == "cpu",
        seed=seed,
        num_train_epochs=t.epochs,
        max_steps=t.max_steps or -1,
        per_device_train_batch_size=t.micro_batch_size,
        per_device_eval_batch_size=t.micro_batch_size,
        learning_rate=t.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=t.warmup_ratio,  # below 1 it is a share of the steps
        weight_decay=t.weight_decay,
        max_grad_norm=t.grad_clip,
        optim="adamw_torch_fused",
        bf16=pick_dtype(t.dtype, device) == torch.bfloat16,
        gradient_checkpointing=False,
        max_length=None,  # no example is longer
        completion_only_loss=False,  # and have labels
        remove_unused_columns=False,
        eval_strategy="steps" if has_eval else "no",
        eval_steps=settings.eval.interval,
        logging_steps=settings.logging.interval,
        logging_nan_inf_filter=False,  # a NaN must show
        include_num_input_tokens_seen="all",  # padding too: for the packing efficiency
        save_steps=settings.checkpoint.interval,
        save_total_limit=1,  # and the best, where that is another one
        load_best_model_at_end=settings.eval.keep_best and has_eval,
        metric_for_best_model="eval_loss",
        greater_is_better=False,
        ddp_find_unused_parameters=False,
        log_level_replica="error",
        disable_tqdm=True,
        report_to="none",
    )
    arguments._n_gpu = min(arguments.n_gpu, 1)  # several GPUs are torchrun's business, not DataParallel's
    return arguments


def train_model(
    trainer: LabelledRowsTrainer, train: TokenizedExamples, held_out: TokenizedExamples, checkpoints: list[Path]
) -> dict[str, Any]:
    """Train to the end, from the last of `checkpoints` if there are any. Returns the content of sft_results.json."""
    trainer.train_started = time.time()
    steps_before = int(checkpoints[-1].name.removeprefix("checkpoint-")) if checkpoints else 0
    trainer.train(resume_from_checkpoint=str(checkpoints[-1]) if checkpoints else None)
    rows, steps = trainer.log_rows(), trainer.state.global_step
    eval_losses = {row["step"]: row["eval_loss"] for row in rows if "eval_loss" in row}
    kept = trainer.state.best_global_step if trainer.args.load_best_model_at_end else steps
    seconds = time.time() - trainer.train_started
    epochs = trainer.state.epoch  # may end inside one, with max_steps: then what follows is right up to a batch
    tokens = round(train.tokens * epochs)
    return {
        "train_loss": mean_over_steps([row for row in rows if "loss" in row]),
        "eval_loss": eval_losses.get(kept),
        "kept_step": kept,
        "examples": len(train.rows),
        "eval_examples": len(held_out.rows),
        "epochs": round(epochs, 4),
        "steps": steps,
        "tokens": tokens,
        "labelled_tokens": round(train.labelled_tokens * epochs),
        "mul_tokens_seen": round(train.mul_tokens * epochs),
        "reasoning_tags_seen": round(train.reasoning_tags * epochs),
        "packing_efficiency": round(tokens / trainer.state.num_input_tokens_seen, 4),
        "seconds": round(seconds, 2),  # of this call, when resumed; evaluation included
        "tokens_per_second": round(tokens * (steps - steps_before) / steps / seconds, 1),
    }


def mean_over_steps(rows: list[dict[str, float]]) -> float:
    """Mean loss of all steps, from rows that each hold the mean since the row before."""
    steps = [row["step"] for row in rows]
    spans = [step - before for step, before in zip(steps, [0, *steps], strict=False)]
    return sum(row["loss"] * span for row, span in zip(rows, spans, strict=True)) / steps[-1]
