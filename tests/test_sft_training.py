"""sft/training.py and sft/packing.py: labels and loss are TRL's, and packing and the short head change nothing."""

import pytest
import torch
from datasets import Dataset
from trl import SFTTrainer

from common.errors import UserError
from data.formats import chat_completion, chat_prompt
from sft.examples import TokenizedExamples, chat_example, tokenize_examples
from sft.packing import IGNORED, PackedRows
from sft.settings import SFTSettings
from sft.training import LabelledRowsTrainer, build_trainer, load_parent, mean_over_steps, quiet_libraries
from tests.sft_parents import EXAMPLES, write_parent
from tokenizer.mul_facts import EOT_ID

PAIRS = [(chat_prompt(e["question"]), chat_completion(e["answer"])) for e in EXAMPLES]
CHATS = [chat_example(**e) for e in EXAMPLES]


@pytest.fixture(scope="module")
def parent(tmp_path_factory):
    """The model, with weights large enough for documents to matter to each other, and its tokenizer."""
    quiet_libraries()
    model, tokenizer = load_parent(write_parent(tmp_path_factory.mktemp("toy"), "mul_tokens"), "mul_tokens")
    torch.manual_seed(1)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return model, tokenizer


@pytest.fixture(scope="module")
def tokenizer(parent):
    return parent[1]


@pytest.fixture(scope="module")
def trainer(parent, tmp_path_factory):
    model, tokenizer = parent
    values = SFTSettings()
    values.training.max_length = 96
    train, output_dir = tokenize_examples(tokenizer, CHATS, max_length=96), tmp_path_factory.mktemp("out")
    return build_trainer(model, tokenizer, train, TokenizedExamples([]), values, output_dir, seed=0, device_name="cpu")


# ---- labels (tests/test_sft_examples.py has what is trained in each format)


def test_labels_equal_those_of_trl(trainer, tokenizer, monkeypatch):
    """TRL tokenizes prompt and completion together and masks what they share with the prompt alone."""
    monkeypatch.setattr(trainer, "completion_only_loss", True)
    pairs = Dataset.from_list([{"prompt": prompt, "completion": completion} for prompt, completion in PAIRS])
    theirs = trainer._prepare_dataset(pairs, tokenizer, trainer.args, False, None, "train")
    ours = tokenize_examples(tokenizer, CHATS, max_length=96).rows
    assert theirs["labels"][:] == [row["labels"].tolist() for row in ours]
    assert theirs["input_ids"][:] == [row["input_ids"].tolist() for row in ours]


# ---- packing


def test_packed_rows_hold_every_token_once_with_its_label_and_position(trainer):
    rows = list(trainer.train_dataset)
    batch = PackedRows(96, EOT_ID)(rows)
    starts = {(b, t) for b, t in (batch["position_ids"] == 0).nonzero().tolist()}
    found = []
    for b, t in starts:
        length = 1
        while t + length < batch["input_ids"].size(1) and batch["position_ids"][b, t + length] == length:
            length += 1
        span = (b, slice(t, t + length))
        found.append((batch["input_ids"][span].tolist(), batch["labels"][span].tolist()))
    documents = [document for document in found if document != ([EOT_ID], [IGNORED])]  # that is padding
    assert sorted(documents) == sorted((row["input_ids"], row["labels"]) for row in rows)


def test_packed_loss_is_the_token_weighted_loss_of_the_documents_alone(trainer):
    rows = list(trainer.train_dataset)
    with torch.no_grad():
        packed, labelled = trainer.labelled_loss(trainer.model, PackedRows(96, EOT_ID)(rows))
        total = 0.0
        for row in rows:
            ids, labels = torch.tensor([row["input_ids"]]), torch.tensor([row["labels"]])
            count = sum(label != IGNORED for label in row["labels"])
            total += trainer.model(input_ids=ids, labels=labels).loss.item() * count
    assert labelled == sum(label != IGNORED for row in rows for label in row["labels"])
    assert packed.item() == pytest.approx(total / labelled, abs=1e-5)


def test_a_document_does_not_see_the_one_before_it(trainer):
    collate = PackedRows(200, EOT_ID)
    batch = collate([dict(row) for row in list(trainer.train_dataset)[:4]])
    second = (batch["position_ids"][0] == 0).nonzero().flatten()[1].item()
    changed = batch["input_ids"].clone()
    changed[0, :second] = 11
    with torch.no_grad():
        before, after = (
            trainer.model.transformer(input_ids=ids, position_ids=batch["position_ids"]).last_hidden_state
            for ids in (batch["input_ids"], changed)
        )
    assert (before[0, :second] - after[0, :second]).abs().max() > 0.1
    assert (before[0, second:] - after[0, second:]).abs().max() == 0


# ---- loss


def test_loss_and_gradients_equal_trl(trainer):
    """Two micro-batches of unequal length, with the token count of both, as in gradient accumulation."""
    rows = list(trainer.train_dataset)
    batches = [PackedRows(96, EOT_ID)(part) for part in (rows[:3], rows[3:])]
    tokens = sum((batch["labels"][:, 1:] != IGNORED).sum() for batch in batches)
    found = []
    for compute_loss in (LabelledRowsTrainer.compute_loss, SFTTrainer.compute_loss):
        trainer.model.zero_grad()
        loss = sum(compute_loss(trainer, trainer.model, dict(batch), num_items_in_batch=tokens) for batch in batches)
        loss.backward()
        found.append((loss.item(), {name: p.grad.clone() for name, p in trainer.model.named_parameters()}))
    (ours, our_grads), (theirs, their_grads) = found
    assert ours == pytest.approx(theirs, abs=1e-5)
    for name, grad in our_grads.items():
        torch.testing.assert_close(grad, their_grads[name], atol=1e-5, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}")


def test_a_loss_that_is_not_finite_stops_the_run(trainer):
    with pytest.raises(UserError, match="the loss is nan"):
        trainer.log({"loss": float("nan"), "learning_rate": 1e-3})


def test_train_loss_weighs_rows_by_the_steps_they_cover():
    assert mean_over_steps([{"step": 2, "loss": 1.0}, {"step": 3, "loss": 4.0}]) == 2.0
