"""What an update runs through the model: responses side by side behind the prompt that they share.

A sequence is a prompt and several of its responses; each response sees the prompt and itself, at the positions that it
had when it was sampled. A group's prompt is thus computed once for several responses: of 8 responses of 100 tokens to a
prompt of 60 that is a third less than 8 sequences. Padding stands on the right.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pretrain.model import GPT
from rl.rollouts import Row

PAD = -1  # the segment of padding: it sees the prompt and itself, and nobody sees it


@dataclass(frozen=True)
class MicroBatch:
    """Sequences padded to T. The six flat tensors hold their responses' tokens (N,), row after row."""

    idx: Tensor  # (B, T)
    segments: Tensor  # (B, T): 0 the prompt, 1 the first response, ...
    places: Tensor  # (B, T) position of each token in its own text
    rows: Tensor  # (N,) sequence of each token's prediction ...
    columns: Tensor  # (N,) ... and its place there: that of the token before
    targets: Tensor
    old_logprobs: Tensor
    advantages: Tensor
    weights: Tensor  # what the token weighs in the loss
    several: bool  # whether any sequence holds more than one response

    def predictions(self, model: GPT) -> Tensor:
        """The hidden states (N, C) that predict the targets."""
        return model.hidden(self.idx, positions=self.places, mask=self.mask())[self.rows, self.columns]

    def mask(self) -> Tensor | None:
        """Who sees whom (B, 1, T, T); None where every sequence is one text, so that all before is seen."""
        if not self.several:
            return None
        same = self.segments[:, :, None] == self.segments[:, None, :]
        return (same | (self.segments == 0)[:, None, :]).tril()[:, None]


def micro_batches(
    rows: Sequence[Row], weights: Sequence[float], most_tokens: int, width: int, device: torch.device
) -> list[MicroBatch]:
    """Sequences of similar length together, at most `most_tokens` tokens with padding; a longer one goes alone.

    A sequence of several responses has at most `width` tokens, the model's: attention looks at all pairs in it, and
    longer ones would cost more than the shared prompt saves.
    """
    sequences = shared_prompts(rows, min(width, most_tokens))
    sequences.sort(key=lambda members: -_length(rows, members))
    parts: list[list[list[int]]] = []
    for members in sequences:
        if not parts or (len(parts[-1]) + 1) * _length(rows, parts[-1][0]) > most_tokens:
            parts.append([])
        parts[-1].append(members)
    return [_micro_batch(rows, weights, part, device) for part in parts]


def shared_prompts(rows: Sequence[Row], longest: int) -> list[list[int]]:
    """Indices of `rows` with one prompt, as many together as fit into `longest` tokens."""
    by_prompt: dict[tuple[int, ...], list[int]] = {}
    for i, row in enumerate(rows):
        by_prompt.setdefault(tuple(row.prompt), []).append(i)
    sequences: list[list[int]] = []
    for members in by_prompt.values():
        sequence: list[int] = []
        for i in sorted(members, key=lambda i: -len(rows[i].ids)):
            if sequence and _length(rows, [*sequence, i]) > longest:
                sequences.append(sequence)
                sequence = []
            sequence.append(i)
        sequences.append(sequence)
    return sequences


def _length(rows: Sequence[Row], members: list[int]) -> int:
    """Tokens of the sequence of `members`: a response's last token is predicted, never fed."""
    return len(rows[members[0]].prompt) + sum(len(rows[i].ids) - 1 for i in members)


def _micro_batch(
    rows: Sequence[Row], weights: Sequence[float], sequences: list[list[int]], device: torch.device
) -> MicroBatch:
    longest = _length(rows, sequences[0])
    idx, segments, places, flat_rows, columns, order = [], [], [], [], [], []
    for b, members in enumerate(sequences):
        prompt = rows[members[0]].prompt
        ids, segment, place = list(prompt), [0] * len(prompt), list(range(len(prompt)))
        for number, i in enumerate(members, start=1):
            fed = rows[i].ids[:-1]
            flat_rows += [b] * (len(fed) + 1)
            columns += [len(prompt) - 1, *range(len(ids), len(ids) + len(fed))]
            ids += fed
            segment += [number] * len(fed)
            place += range(len(prompt), len(prompt) + len(fed))
        padding = longest - len(ids)
        idx.append(ids + [0] * padding)
        segments.append(segment + [PAD] * padding)
        places.append(place + [0] * padding)
        order += members
    of_row = torch.repeat_interleave(torch.tensor([len(rows[i].ids) for i in order]))
    tensors = dict(
        idx=torch.tensor(idx),
        segments=torch.tensor(segments),
        places=torch.tensor(places),
        rows=torch.tensor(flat_rows),
        columns=torch.tensor(columns),
        targets=torch.tensor([token for i in order for token in rows[i].ids]),
        old_logprobs=torch.tensor([p for i in order for p in rows[i].old_logprobs]),
        advantages=torch.tensor([rows[i].advantage for i in order], dtype=torch.float32)[of_row],
        weights=torch.tensor([weights[i] for i in order], dtype=torch.float32)[of_row],
    )
    several = any(len(members) > 1 for members in sequences)
    return MicroBatch(**{name: tensor.to(device) for name, tensor in tensors.items()}, several=several)
