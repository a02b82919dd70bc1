"""C = E[k k^T]: what the MLPs' inner activations k look like on ordinary text, for all edited layers in one pass.

Uncentred, over real tokens only: padding never enters. Sums in float64, products in float32 but for narrow MLPs: those
of a barely trained model vary in few directions, and rounding would make C indefinite. What was computed is kept under
a key of everything that it depends on, so that no run ever takes another model's or corpus's for its own.
"""

import hashlib
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from common.errors import UserError
from common.files import atomic_path
from data.documents import read_documents
from data.sources import hub_source, parse_source
from edit.passes import attended, embed, padded
from edit.settings import CovarianceSettings
from pretrain.model import GPT
from tokenizer.gpt2_tiktoken import GPT2TokenizerWithMulFacts
from tokenizer.mul_facts import EOT_ID


def load_covariances(
    model: GPT, tokenizer: GPT2TokenizerWithMulFacts, layers: Sequence[int], settings: CovarianceSettings
) -> dict[int, Tensor]:
    """C (4C, 4C) float64 of each layer, from the cache if it is there. Raises UserError for too small a corpus."""
    device = model.wte.weight.device
    windows = read_windows(tokenizer, settings, model.config.block_size)
    if settings.cache is None:
        return second_moments(model, windows, layers, settings.batch_tokens, progress=True)
    keys = {layer: cache_key(model, windows, layer) for layer in layers}
    paths = {layer: Path(settings.cache) / f"layer_{layer:02d}_{key[:16]}.safetensors" for layer, key in keys.items()}
    missing = [layer for layer in layers if not paths[layer].exists()]
    if missing:
        computed = second_moments(model, windows, missing, settings.batch_tokens, progress=True)
        for layer, covariance in computed.items():
            with atomic_path(paths[layer]) as partial:
                save_file({"covariance": covariance.cpu()}, partial, metadata={"key": keys[layer]})
    return {layer: load_file(paths[layer])["covariance"].to(device) for layer in layers}


def read_windows(
    tokenizer: GPT2TokenizerWithMulFacts, settings: CovarianceSettings, block_size: int
) -> list[list[int]]:
    """The first `settings.tokens` tokens of the corpus: each document behind end-of-text, in windows of the context."""
    if settings.corpus is None:
        raise UserError("no text for the covariance; give --covariance.corpus a file, a folder or a hub data set")
    if settings.tokens < 1:
        raise UserError(f"--covariance.tokens {settings.tokens}: expected at least 1")
    windows, room = [], settings.tokens
    for text in _documents(settings.corpus):
        ids = [EOT_ID, *tokenizer.encode(text, allow_special=False)][:room]
        windows += [ids[start : start + block_size] for start in range(0, len(ids), block_size)]
        room -= len(ids)
        if room <= 0:
            return windows
    raise UserError(
        f"{settings.corpus} has {settings.tokens - room:,} tokens; {settings.tokens:,} were asked for "
        "(--covariance.tokens)"
    )


def _documents(corpus: str) -> Iterator[str]:
    name = parse_source(corpus)
    if name.local:
        return read_documents(corpus)
    source = hub_source(name, 1.0, "text", 0, None)
    return filter(None, chain.from_iterable(source.read(part, 0) for part in range(int(source.num_parts))))


NARROW = 512  # inner activations; up to there float64 products cost next to nothing


@torch.no_grad()
def second_moments(
    model: GPT, windows: Sequence[Sequence[int]], layers: Sequence[int], batch_tokens: int, progress: bool = False
) -> dict[int, Tensor]:
    """Mean of k k^T over all tokens of `windows` for each of `layers`: (4C, 4C) float64, on the model's device."""
    device, width = model.wte.weight.device, 4 * model.config.n_embd
    sums = {layer: torch.zeros(width, width, dtype=torch.float64, device=device) for layer in layers}
    total = sum(map(len, windows))
    with tqdm(total=total, desc="covariance", unit="token", unit_scale=True, disable=not progress) as bar:
        for batch in _batches(windows, batch_tokens):
            ids = padded(batch, device)
            real = (
                torch.arange(ids.size(1), device=device) < torch.tensor([len(w) for w in batch], device=device)[:, None]
            )
            x = embed(model, ids)
            for layer, block in enumerate(model.h[: max(layers) + 1]):
                x = attended(block, x)
                inner = block.mlp.inner(block.ln_2(x))
                if layer in sums:
                    add_products(sums[layer], inner[real].to(torch.float64 if width <= NARROW else torch.float32))
                if layer < max(layers):
                    x = x + block.mlp.c_proj(inner)
            bar.update(int(real.sum()))
    return {layer: (moment.triu() + moment.triu(1).T) / total for layer, moment in sums.items()}


def add_products(moment: Tensor, k: Tensor) -> None:
    """Add k^T k of k (R, d) to the upper triangle of `moment` (d, d) and leave what is below it unfinished.

    By blocks of columns, each down to its diagonal: with eight of them 9 of 16 products are made.
    """
    width = -(-len(moment) // 8)
    for start in range(0, len(moment), width):
        stop = min(start + width, len(moment))
        moment[:stop, start:stop] += k[:, :stop].T @ k[:, start:stop]


def cache_key(model: GPT, windows: Sequence[Sequence[int]], layer: int) -> str:
    """Hex sha256 of the weights that the layer's keys depend on, the tokens and the layer."""
    digest = hashlib.sha256(f"{model.config} layer {layer} float64 sums, float64 products to width {NARROW}\n".encode())
    for name, parameter in model.named_parameters():
        above = name.startswith("h.") and int(name.split(".")[1]) > layer
        if not above and not name.startswith(("ln_f.", f"h.{layer}.mlp.c_proj.")):
            digest.update(f"{name}\n".encode())
            digest.update(parameter.detach().float().cpu().contiguous().numpy().data)
    for window in windows:
        digest.update(f"{window}\n".encode())
    return digest.hexdigest()


def _batches(windows: Sequence[Sequence[int]], batch_tokens: int) -> Iterator[list[Sequence[int]]]:
    """Windows from short to long, at most `batch_tokens` in a batch when padded, at least one."""
    batch: list[Sequence[int]] = []
    for window in sorted(windows, key=len):
        if batch and (len(batch) + 1) * len(window) > batch_tokens:
            yield batch
            batch = []
        batch.append(window)
    yield batch
