"""Edits of a model in memory: keys, values, the residual spread over the layers; and back again.

The model is changed in place, and what comes back holds the weights as they were: nothing is restored behind the
caller's back, and `revert` copies the stored tensors, so that it is exact.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from common.errors import UserError
from common.files import atomic_path
from edit.closed_form import InverseCovariance, NullSpace, closed_form_update
from edit.passes import Stream
from edit.prompts import EditPrompt, context_weights, subject_prompt, target_ids
from edit.records import EditRecord
from edit.settings import Method, Token, UpdateSettings, ValueSettings
from edit.values import FoundValues, ValueRequest, find_values
from pretrain.model import GPT
from tokenizer.gpt2_tiktoken import GPT2TokenizerWithMulFacts

Originals = dict[str, Tensor]  # parameter name to its tensor before the edit
Preconditioners = dict[int, InverseCovariance | NullSpace]


@dataclass(frozen=True)
class Edited:
    """What an edit did to the model that it was given."""

    originals: Originals
    values: FoundValues  # a row for each edit
    # Share of what the values ask for that the weights, after all edits, do not do; in length over all edits. With rome
    # it counts what later edits undid of earlier ones.
    residual_left: float
    update_norms: dict[int, float]  # layer to |dW| / |W|, Frobenius


def make_requests(
    tokenizer: GPT2TokenizerWithMulFacts,
    records: Sequence[EditRecord],
    contexts: Sequence[Sequence[int]],
    token: Token = "subject",
) -> list[ValueRequest]:
    """Every record under no context and under each of `contexts`, to be edited at its subject's or its prompt's end.

    Raises UserError naming a record that cannot be.
    """
    requests = []
    for record in records:
        try:
            prompts = [subject_prompt(tokenizer, record.prompt, record.subject, prefix) for prefix in ((), *contexts)]
        except UserError as error:
            raise UserError(f"edit {record.id}: {error}") from None
        if token == "prompt":
            prompts = [replace(prompt, position=len(prompt.ids) - 1) for prompt in prompts]
        # The subject as it stands at a text's start, up to its last token; only that token's output is read.
        alone = tokenizer.encode(record.subject, allow_special=False)
        requests.append(
            ValueRequest(
                f"edit {record.id}: {record.prompt}",
                prompts,
                target_ids(tokenizer, record.target_new),
                EditPrompt(alone, len(alone) - 1),
            )
        )
    return requests


def precondition(covariances: dict[int, Tensor], method: Method, settings: UpdateSettings) -> Preconditioners:
    """C^-1 of each layer, or AlphaEdit's projector."""
    if method == "alphaedit":
        return {layer: NullSpace.of(C, settings.null_space_threshold) for layer, C in covariances.items()}
    return {layer: InverseCovariance.of(C) for layer, C in covariances.items()}


def edit_model(
    model: GPT,
    requests: Sequence[ValueRequest],
    preconditioners: Preconditioners,
    method: Method,
    update: UpdateSettings,
    values: ValueSettings,
    progress: bool = False,
) -> Edited:
    """Change `model` in place so that each request's target follows its prompt.

    The layers are those of `preconditioners`. memit, emmet and alphaedit make all edits at once; rome makes one after
    the other, each at the one layer. Raises UserError, with the model as it was, when the equations have no solution.
    """
    layers = sorted(preconditioners)
    originals = {_name(layer): model.h[layer].mlp.c_proj.weight.detach().clone() for layer in layers}
    try:
        if method == "rome":
            one_by_one = tqdm(requests, desc="edits", unit="edit", disable=not progress)
            steps = [_edit_at_once(model, [one], preconditioners, method, update, values) for one in one_by_one]
            found = FoundValues(
                *(torch.cat(column) for column in zip(*(vars(f).values() for f, _ in steps), strict=True))
            )
            wanted = torch.cat([each for _, each in steps])
        else:
            found, wanted = _edit_at_once(model, requests, preconditioners, method, update, values, progress)
    except UserError:
        revert(model, originals)
        raise
    missing = wanted - Stream.of(model, [request.prompts[0] for request in requests]).up_to(layers[-1] + 1).ends()
    left = float(missing.norm(dim=-1).sum() / found.delta.norm(dim=-1).sum().clamp(min=1e-12))
    norms = {}
    for layer in layers:
        old, new = originals[_name(layer)], model.h[layer].mlp.c_proj.weight.detach()
        norms[layer] = float((new - old).norm() / old.norm())
    return Edited(originals, found, left, norms)


def _edit_at_once(
    model: GPT,
    requests: Sequence[ValueRequest],
    preconditioners: Preconditioners,
    method: Method,
    update: UpdateSettings,
    values: ValueSettings,
    progress: bool = False,
) -> tuple[FoundValues, Tensor]:
    """MEMIT, algorithm 1: values at the last layer, then from the first layer on a share of what is still missing.

    Returns the values, and the residual stream (N, C) that they ask for after the last layer.
    """
    layers = sorted(preconditioners)
    top = layers[-1]
    prompts = Stream.of(model, [prompt for request in requests for prompt in request.prompts])
    bare = Stream.of(model, [request.prompts[0] for request in requests])
    found = find_values(model, requests, top, values, progress)
    wanted = bare.up_to(top + 1).ends() + found.delta
    for i, layer in enumerate(layers):
        prompts, bare = prompts.up_to(layer), bare.up_to(layer)  # edits here and above leave these as they are
        keys = _mean_over_contexts(prompts.keys(), len(requests))
        # Before the first edit all is missing.
        missing = wanted - bare.up_to(top + 1).ends() if i else found.delta
        residuals = missing / (len(layers) - i)
        lam = _lambda(method, update, width=keys.size(1))
        dW = closed_form_update(keys.T, residuals.T, preconditioners[layer], lam)
        weight = model.h[layer].mlp.c_proj.weight
        with torch.no_grad():
            weight.copy_(weight.double() + dW)
    return found, wanted


def _mean_over_contexts(keys: Tensor, N: int) -> Tensor:
    """(N x contexts, d) -> (N, d), weighted as the losses of the values are, so that key and value belong together."""
    per_edit = keys.view(N, -1, keys.size(1))
    return (context_weights(per_edit.size(1) - 1).to(keys.device)[None, :, None] * per_edit).sum(1)


def _lambda(method: Method, update: UpdateSettings, width: int) -> float:
    # E[k^T C^-1 k] is the width, exactly, so this makes a lambda mean the same in models of every size.
    return {"memit": update.lambda_per_width * width, "alphaedit": update.alphaedit_l2}.get(method, 0.0)


def _name(layer: int) -> str:
    return f"h.{layer}.mlp.c_proj.weight"


@torch.no_grad()
def revert(model: GPT, originals: Originals) -> None:
    """Put the stored weights back, bit for bit."""
    parameters = dict(model.named_parameters())
    for name, tensor in originals.items():
        parameters[name].copy_(tensor)


def save_originals(path: str, originals: Originals) -> None:
    """Write the weights before an edit, under our GPT's names and layout."""
    with atomic_path(path) as partial:
        save_file({name: tensor.cpu().contiguous() for name, tensor in originals.items()}, partial)


def load_originals(path: str) -> Originals:
    """Read what `save_originals` wrote."""
    return load_file(path)
