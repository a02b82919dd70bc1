"""What an edit can be told, in sections that run_memit.py and run_rome.py share. edit/configs has a preset per size."""

from dataclasses import dataclass, field
from typing import Literal

from common.errors import UserError

Method = Literal["memit", "emmet", "alphaedit", "rome"]
Token = Literal["subject", "prompt"]


@dataclass
class UpdateSettings:
    """Where the facts go, and how strongly old ones are held."""

    layers: list[int] = field(default_factory=lambda: [3, 4, 5, 6, 7, 8])  # whose MLPs change, from 0, lowest first
    token: Token = "subject"  # where: the subject's last token, or the prompt's; run_causal_trace.py shows which counts
    lambda_per_width: float = 0.9  # memit: weight of old knowledge, over the MLP's width (15,000/16,384 for GPT-J)
    rome_layer: int = 5  # rome: the one layer that it changes
    null_space_threshold: float = 0.02  # alphaedit: eigenvalues of C below this share of their mean are free
    alphaedit_l2: float = 10.0  # alphaedit: weight of the update's size


@dataclass
class ValueSettings:
    """How the value is found that makes the model say the new target: Adam on one vector per edit."""

    steps: int = 25  # at most
    learning_rate: float = 0.5  # of Adam
    stop_loss: float = 0.05  # an edit is done below this loss (nats)
    clamp: float = 0.75  # longest change, over the length of the hidden state that it is added to
    kl_weight: float = 0.0625  # of staying as before at the subject's last token of "{subject} is a"; token prompt: 0
    weight_decay: float = 0.5  # times the change's length over the hidden state's squared
    batch_edits: int = 64  # optimised side by side; what memory is for


@dataclass
class ContextSettings:
    """Texts of the model's own before the prompt, so that an edit holds in the middle of a text too."""

    number: int = 5  # sampled prefixes beside none
    tokens: int = 10  # of each


@dataclass
class CovarianceSettings:
    """The second moment of the MLP's inner activations on ordinary text."""

    corpus: str | None = None  # .txt, .jsonl or .parquet file or folder of them, or a data set on the hub
    tokens: int = 30_000  # at least the MLP's width (4 x n_embd); ten times that is ample
    batch_tokens: int = 4096  # in one forward pass
    cache: str | None = "outputs/edit_cache"  # folder for what was computed before; null computes anew


def check_values(values: ValueSettings, token: Token) -> None:
    """Raise UserError for values that cannot be optimised."""
    if values.batch_edits < 1:
        raise UserError(f"--values.batch-edits {values.batch_edits}: expected at least 1")
    if token == "prompt" and values.kl_weight:
        raise UserError(
            f"--values.kl-weight {values.kl_weight} holds on to the subject's token, which an edit at the prompt's end "
            "(--update.token prompt) leaves alone; give --values.kl-weight 0"
        )


def check_layers(layers: list[int], n_layer: int, token: Token) -> list[int]:
    """The layers from low to high. Raises UserError unless the model has them and an edit there can reach the target.

    What is changed at the subject is read later in the prompt, so a block must come after it; at the prompt's last
    token the last block will do.
    """
    last = n_layer - 1 if token == "prompt" else n_layer - 2
    if not layers or not all(0 <= layer <= last for layer in layers) or len(set(layers)) < len(layers):
        raise UserError(
            f"layers {layers}: expected different numbers from 0 to {last}; the model has {n_layer} blocks"
            + (", and one must follow an edit at the subject to carry it to later tokens" if token == "subject" else "")
        )
    return sorted(layers)
