"""Between our GPT and Hugging Face model directories, both ways, exactly.

GPT-2's Conv1D stores its weights (in, out) where nn.Linear stores (out, in), so every projection is transposed on the
way. The square `attn.c_proj` too: without its transpose every shape still fits and the model is quietly ruined.

Reading does without transformers, which is imported where something is written: it takes two seconds, and most scripts
only read.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from common.errors import UserError
from common.files import atomic_directory, read_json
from pretrain.model import GPT, GPTConfig
from tokenizer.families import DEFAULT_FAMILIES, families_name
from tokenizer.mul_facts import EOT_ID, Condition
from tokenizer.vocabulary import Vocabulary

if TYPE_CHECKING:
    from transformers import GenerationConfig, GPT2Config

TRANSPOSED = ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")
MODEL_FILES = {"config.json", "generation_config.json", "model.safetensors", "run.json"}
MODEL_FILES |= {"tokenizer.json", "tokenizer_config.json"}
FAMILIES_KEY = "token_families"  # in config.json
# What a config.json may leave out, with GPT2Config's defaults: what our GPT takes, in its order, and what it is.
SHAPE = {"n_layer": 12, "n_head": 12, "n_embd": 768, "n_positions": 1024, "vocab_size": 50_257}
FIXED = {"activation_function": "gelu_new", "layer_norm_epsilon": 1e-5, "tie_word_embeddings": True}
FIXED |= {"scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False, "n_inner": None}
# Buffers that old GPT-2 checkpoints carry, and the head that is the embedding once more.
IGNORED = (".attn.bias", ".attn.masked_bias", "lm_head.weight")


def to_hf_state(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our parameters under GPT2LMHeadModel's names and layout. The tied head is left out, as transformers does."""
    return {f"transformer.{name}": _transposed(name, tensor) for name, tensor in state.items()}


def from_hf_state(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `to_hf_state`; also takes names without `transformer.`, as openai-community/gpt2 has them."""
    named = {name.removeprefix("transformer."): t for name, t in state.items() if not name.endswith(IGNORED)}
    return {name: _transposed(name, tensor) for name, tensor in named.items()}


def hf_config(config: GPTConfig, families: str = DEFAULT_FAMILIES) -> "GPT2Config":
    """The GPT2Config of the same architecture. Dropout is 0: we train without it, and so must the stages after us.

    Its key `token_families` says which ones the model has; without it they are the default.
    """
    from transformers import GPT2Config

    return GPT2Config(
        vocab_size=config.vocab_size,
        n_positions=config.block_size,
        n_embd=config.n_embd,
        n_layer=config.n_layer,
        n_head=config.n_head,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=EOT_ID,
        eos_token_id=EOT_ID,
        pad_token_id=EOT_ID,
        architectures=["GPT2LMHeadModel"],
        dtype="float32",
        **FIXED,
        **({} if families == DEFAULT_FAMILIES else {FAMILIES_KEY: families}),
    )


def families_of(model_path: Path | str) -> str:
    """The token families of a model directory, by its config.json. Raises UserError for families that are not ours."""
    config = Path(model_path) / "config.json"
    return families_name(
        read_json(config).get(FAMILIES_KEY, DEFAULT_FAMILIES) if config.is_file() else DEFAULT_FAMILIES
    )


def generation_config(vocabulary: Vocabulary) -> "GenerationConfig":
    """Greedy, ends at end-of-text, and never samples an id that no text of this condition can produce."""
    from transformers import GenerationConfig

    return GenerationConfig(
        bos_token_id=EOT_ID,
        eos_token_id=EOT_ID,
        pad_token_id=EOT_ID,
        do_sample=False,
        suppress_tokens=vocabulary.suppressed_ids,
    )


def save_model_dir(model: GPT, output_dir: Path | str, condition: Condition, families: str = DEFAULT_FAMILIES) -> None:
    """Write config.json, generation_config.json, model.safetensors and the tokenizer files to `output_dir`.

    The directory appears whole or not at all; an earlier export of this condition is replaced, and anything else
    there is a UserError. `AutoModelForCausalLM` and `AutoTokenizer` load it as it is, and `load_model_dir` gives the
    same GPT back, bit for bit.
    """
    from tokenizer.hf_gpt2_with_mul import save_hf_tokenizer

    check_replaceable(Path(output_dir), condition)
    state = {name: tensor.detach().to("cpu", torch.float32) for name, tensor in model.state_dict().items()}
    with atomic_directory(output_dir) as partial:
        hf_config(model.config, families).save_pretrained(partial)
        generation_config(Vocabulary(condition, families)).save_pretrained(partial)
        contiguous = {name: tensor.contiguous() for name, tensor in to_hf_state(state).items()}
        save_file(contiguous, partial / "model.safetensors", metadata={"format": "pt"})
        save_hf_tokenizer(partial, condition, families)


def check_replaceable(path: Path, condition: Condition) -> None:
    """Raise UserError unless `path` is absent, empty, or a model directory of this condition that we exported."""
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    if not path.is_dir() or not {file.name for file in path.iterdir()} <= MODEL_FILES:
        raise UserError(f"{path} holds other files than a model's; choose another --output-dir")
    run = read_json(path / "run.json") if (path / "run.json").exists() else {}
    if run.get("stage", "export") not in ("export", "import") or run.get("condition", condition) != condition:
        raise UserError(f"{path} holds a {run['stage']} of {run['condition']}; choose another --output-dir")


def load_model_dir(path: Path | str, device: torch.device | str = "cpu") -> GPT:
    """A GPT from a GPT-2 model directory (sharded or not). Raises UserError for anything that is not one."""
    config = read_config(path)
    weights = {}
    for file in _weight_files(Path(path)):
        try:
            weights |= load_file(file)
        except (SafetensorError, OSError) as error:
            raise UserError(f"{file} cannot be read ({error}); write the model directory again") from None
    model = GPT(config)
    state = from_hf_state(weights)
    wanted = model.state_dict()
    for name in wanted.keys() | state.keys():
        if name not in wanted or name not in state or wanted[name].shape != state[name].shape:
            found = tuple(state[name].shape) if name in state else "nothing"
            expected = tuple(wanted[name].shape) if name in wanted else "no such weight"
            raise UserError(f"{path}: weight {name}: expected {expected}, found {found}; write it again")
    model.load_state_dict(state)
    return model.to(device)


def read_config(path: Path | str) -> GPTConfig:
    """The architecture of a GPT-2 model directory. Raises UserError for one that our GPT cannot represent."""
    path = Path(path)
    if not (path / "config.json").is_file():
        raise UserError(f"{path} is not a model directory: it has no config.json; pretrain/export_hf.py writes one")
    values = read_json(path / "config.json")
    if values.get("model_type") != "gpt2":
        raise UserError(f"{path} holds a {values.get('model_type')} model; this project works on gpt2")
    for key, value in FIXED.items():
        if values.get(key, value) != value:
            raise UserError(f"{path}: {key} is {values[key]!r}; GPT-2 has {value!r}, and so has our GPT")
    return GPTConfig(*(values.get(key, default) for key, default in SHAPE.items()))


def _weight_files(path: Path) -> list[Path]:
    index = path / "model.safetensors.index.json"
    if index.is_file():
        return sorted({path / name for name in read_json(index)["weight_map"].values()})
    if not (path / "model.safetensors").is_file():
        raise UserError(f"{path} has no model.safetensors; only safetensors weights are loaded")
    return [path / "model.safetensors"]


def _transposed(name: str, tensor: Tensor) -> Tensor:
    return tensor.t() if name.endswith(TRANSPOSED) else tensor
