"""Look into a model: what has it learnt about its facts?

    uv run python eval/run_token_probes.py --model-path outputs/hf_mul_tokens --null-path outputs/hf_baseline
    uv run python eval/run_token_probes.py --model-path outputs/hf_baseline

Embeddings: do facts that share a factor or a product lie close to each other, beyond chance (permutation test) and
beyond the same rows of a baseline (--null-path), which no text trained? Prediction: does the model choose the right one
of the 45 facts where injected text has it, and the right product behind it? Spelled prefixes `<MUL_6_9_` are asked of
both conditions. Attention: do facts look at their factors, and what follows at the fact? eval/token_probes.py says
exactly what is measured. In baseline, which has no facts, only embeddings (the null) and spelled prefixes are left.
The facts of a model's other token families are asked alike, without attention and plots: `families` in the results.
Writes token_probes_results.json, token_probes_choices.jsonl, run_token_probes.json and PNG plots.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from common.config import parse_config
from common.device import pick_device
from common.errors import UserError, run_script
from common.files import atomic_path, write_json, write_jsonl
from common.record import RunRecord
from eval.benchmark import load_for_evaluation, prepare_output_dir
from eval.fact_attention import attention_of_facts, facts_in_context
from eval.responses import EvaluatedModel
from eval.token_probe_plots import attention_map, embedding_map, rank_map
from eval.token_probes import (
    MUL,
    Probed,
    embedding_clusters,
    fact_choices,
    fact_cosines,
    nearest_number,
    probed,
    product_choices,
    rank_summary,
)
from tokenizer.families import fact_families
from tokenizer.mul_facts import Condition

Rows = list[dict[str, Any]]


@dataclass
class TokenProbesConfig:
    """Look into a model: embeddings, predictions and attention of its facts."""

    model_path: str  # GPT-2 model directory to look into, or a hub id
    null_path: str | None = None  # a model of baseline, whose unused rows are the embeddings' null
    output_dir: Path | None = None  # default: outputs/eval_{name of the model}
    condition: Condition | None = None  # default: what the model directory says
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"  # auto: CUDA, then MPS, then the CPU
    seed: int = 0  # of the permutation tests


def main() -> None:
    config = parse_config(TokenProbesConfig)
    output_dir = prepare_output_dir(config, "token_probes")
    evaluated = load_with_facts(config.model_path, config)
    null = load_with_facts(config.null_path, config, "baseline") if config.null_path else None
    condition, choice = evaluated.tokenizer.condition, evaluated.tokenizer.vocabulary.families
    if null and null.tokenizer.vocabulary.families != choice:
        raise UserError(f"--null-path {config.null_path} has other token families than {choice}; give their baseline")
    families = [probed(family.name) for family in fact_families(choice)]
    if not families:
        raise UserError(
            f"{config.model_path} has the token families {choice}, none of facts; give a model that has some"
        )
    record = RunRecord(
        stage="eval_token_probes",
        config=config,
        condition=condition,
        seed=config.seed,
        parent=evaluated.path,
        data={"source": f"facts of {choice}", "items": sum(len(family.facts) for family in families)},
    )

    models = {condition if null is None else "model": evaluated} | ({"null (baseline)": null} if null else {})
    results: dict[str, Any] = {}
    choices: Rows = []
    plots: dict[str, bytes] = {}
    for family in families:
        found, rows = probe_family(family, evaluated, models, config.seed)
        if family is MUL:
            plots = more_of_products(evaluated, models, found, rows)
            results |= found
        else:
            results.setdefault("families", {})[family.name] = found
            rows = [{"family": family.name} | row for row in rows]
        choices += rows

    results |= {"condition": condition, "model_path": config.model_path, "null_path": config.null_path}
    write_jsonl(output_dir / "token_probes_choices.jsonl", choices)
    for name, picture in plots.items():
        with atomic_path(output_dir / name) as partial:
            partial.write_bytes(picture)
    write_json(output_dir / "token_probes_results.json", results)
    record.save(output_dir, results, name="run_token_probes.json")
    print_results(results, output_dir)


def probe_family(
    family: Probed, evaluated: EvaluatedModel, models: dict[str, EvaluatedModel], seed: int
) -> tuple[dict[str, Any], Rows]:
    """The results of what is asked of every family, and the rows of all choices."""
    model, tokenizer, device = evaluated.model, evaluated.tokenizer, evaluated.device
    clusters = {name: embedding_clusters(one.model, seed, family) for name, one in models.items()}
    results: dict[str, Any] = {"embedding_clusters": clusters}
    choices = {"spelled_prefix": product_choices(model, tokenizer, device, True, family)}
    if tokenizer.vocabulary.has_facts:
        choices["product_behind_fact"] = product_choices(model, tokenizer, device, False, family)
        facts = choices["fact"] = fact_choices(model, tokenizer, device, family)
        results["fact_choices"] = {"overall": rank_summary(facts, len(family.facts))}
        for lead in family.lead_ins:
            rows = [row for row in facts if row["lead_in"] == lead]
            results["fact_choices"][lead] = rank_summary(rows, len(family.facts))
    for name in ("spelled_prefix", "product_behind_fact"):
        if name in choices:
            results[name] = rank_summary(choices[name], len(family.results))
    return results, [{"kind": kind} | row for kind, rows in choices.items() for row in rows]


def more_of_products(
    evaluated: EvaluatedModel, models: dict[str, EvaluatedModel], results: dict[str, Any], rows: Rows
) -> dict[str, bytes]:
    """Nearest numbers and attention into the `results` of mul, and the plots by name."""
    results["nearest_number"] = {
        name: nearest_number(one.model, one.tokenizer)
        for name, one in models.items()
        if not one.tokenizer.vocabulary.has_digits  # then only digits have embeddings
    }
    embeddings = results["embedding_clusters"]
    cosines = {name: fact_cosines(one.model) for name, one in models.items()}
    caption = "Facts in the order of their ids. " + " ".join(map(_embedding_line, embeddings, embeddings.values()))
    plots = {"token_embeddings.png": embedding_map(cosines, caption)}
    if evaluated.tokenizer.vocabulary.has_facts:
        share = results["fact_choices"]["overall"]["share"]
        facts = [row for row in rows if row["kind"] == "fact"]
        plots["token_choices.png"] = rank_map(facts, f"1 is best. First choice right: {share:.1%}; chance 2.2%.")
        attention = attention_of_facts(evaluated.model, facts_in_context(evaluated.tokenizer), evaluated.device)
        results["attention"] = attention
        plots["token_attention.png"] = attention_map(attention, "Mean over the 81 products in one sentence.")
    return plots


def load_with_facts(model_path: str, config: TokenProbesConfig, condition: Condition | None = None) -> EvaluatedModel:
    """A model with a row for each fact. Raises UserError for a stock GPT-2, which has none."""
    evaluated = load_for_evaluation(model_path, condition or config.condition, pick_device(config.device))
    if evaluated.model.config.vocab_size < evaluated.tokenizer.vocabulary.size:
        size = evaluated.model.config.vocab_size
        raise UserError(
            f"{model_path} has {size:,} embedding rows and none for the facts; pretrain/import_hf.py extends it"
        )
    return evaluated


def print_results(results: dict[str, Any], output_dir: Path) -> None:
    """One line per finding."""
    print_family(MUL, results)
    for name, found in results.get("families", {}).items():
        print(f"{name} facts")
        print_family(probed(name), found)
    if "attention" in results:
        titles = {"choice_to_factors": "choice of the fact to its factors", "fact_to_factors": "fact to its factors"}
        for key, title in (titles | {"result_to_fact": "'>>' to the fact before it"}).items():
            values = np.array(results["attention"][key])
            layer, head = np.unravel_index(values.argmax(), values.shape)
            uniform = results["attention"][f"{key}_uniform"]
            print(f"attention, {title}: at most {values.max():.2f} (layer {layer}, head {head}), equal: {uniform:.2f}")
    print(f"written to {output_dir}")


def print_family(family: Probed, results: dict[str, Any]) -> None:
    """The findings that every family has, and the nearest numbers of products."""
    result, token = "product" if family is MUL else "result", family.facts[0].token
    spelled = token.partition("_")[0] + ("_a_b_" if token.count("_") == 3 else "_a_")  # a square has one operand
    for model, found in results.get("embedding_clusters", {}).items():
        print(_embedding_line(model, found))
        if nearest := results.get("nearest_number", {}).get(model):
            print(
                f"{model}: the nearest number's embedding is the product's for {nearest['is_product']['share']:.1%} of "
                f"the facts (chance {nearest['chance_product']:.1%}), a factor's for "
                f"{nearest['is_factor']['share']:.1%}"
            )
    labels = {"spelled_prefix": f"{result} behind a spelled {spelled}"}
    labels["product_behind_fact"] = f"{result} behind a fact"
    parts = {label: results[key] for key, label in labels.items() if key in results}
    parts |= {f"fact behind {lead!r}": part for lead, part in results.get("fact_choices", {}).items()}
    for label, part in parts.items():
        low, high = part.get("wilson_95") or part["bootstrap_95"]
        mass = f", all facts together {part['mean_mass']:.3g}" if "mean_mass" in part else ""
        print(f"{label}: first choice {part['share']:.1%} [{low:.1%}, {high:.1%}], chance {part['chance']:.1%}{mass}")


def _embedding_line(name: str, found: dict[str, Any]) -> str:
    parts = [f"{relation} {part['statistic']:+.3f} (p = {part['p']:.4f})" for relation, part in found.items()]
    return f"{name}: {', '.join(parts)}."


if __name__ == "__main__":
    run_script(main)
