"""From completions to the rows of a responses file, and from rows to a summary."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from eval.answer_formats import AnswerFormat, is_compliant, thinking_tokens
from eval.answers import as_text, extract_flexible, first_turn
from eval.engine import Completion
from eval.fact_use import USE_MEASURES, FactUse, fact_use, families_counted
from eval.pass_at_k import majority, pass_at_k, sample_counts
from eval.repetition import REPETITIVE_SHARE, repeated_share
from eval.resampling import bootstrap_mean
from eval.responses import SKIPPED
from eval.stats import wilson_interval
from tokenizer.gpt2_tiktoken import GPT2TokenizerWithMulFacts
from tokenizer.mul_facts import EOT_ID

Row = dict[str, Any]


def scored_row(
    index: int,
    question: str,
    gold: Decimal,
    completion: Completion,
    tokenizer: GPT2TokenizerWithMulFacts,
    answer_format: AnswerFormat,
    sample: int = 0,
) -> Row:
    """One line of a responses file. The answer is read up to where the model starts a turn of the user's.

    Fact tokens are counted in the generated ids: text alone cannot tell the token from its spelling.
    """
    response = tokenizer.decode([i for i in completion.ids if i != EOT_ID])
    turn = first_turn(response)
    strict, flexible = answer_format.strict(turn), extract_flexible(turn)
    return {
        "index": index,
        "id": str(index),
        "sample": sample,
        "question": question,
        "gold": as_text(gold),
        "response": response,
        "prediction": as_text(strict),
        "prediction_flexible": as_text(flexible),
        "correct": strict == gold,
        "correct_flexible": flexible == gold,
        "format_ok": is_compliant(answer_format, completion.ids, completion.finish_reason == "stop", tokenizer),
        "thinking_tokens": thinking_tokens(answer_format, completion.ids, tokenizer),
        "response_tokens": len(completion.ids),
        "finish_reason": completion.finish_reason,
        "repeated_share": round(repeated_share(response), 6),
    } | _use_columns(fact_use(question, completion.ids, tokenizer))


def summary(rows: Sequence[Row]) -> dict[str, Any]:
    """Accuracy with its 95% interval, and how the responses look. `accuracy` is of the rows' own `correct`.

    A skipped prompt counts as a wrong answer. With several samples of an item, `accuracy` is the mean over all of them,
    and its interval is bootstrap_95, by item, in place of wilson_95. `rows` may be empty.
    """
    n = len(rows)

    def share(values: Sequence[Any]) -> float:
        return round(sum(values) / len(values), 6) if values else 0.0

    correct = [bool(row["correct"]) for row in rows]
    answered = [row for row in rows if row["finish_reason"] != SKIPPED]
    items = [row["index"] for row in rows]
    if len(set(items)) == n:
        interval = {"wilson_95": [round(limit, 6) for limit in wilson_interval(sum(correct), n)]}
    else:
        found = bootstrap_mean(correct, items)
        interval = {"bootstrap_95": [round(found.low, 6), round(found.high, 6)]}
    return {
        "accuracy": share(correct),
        "num_correct": sum(correct),
        "num_total": n,
        **interval,
        "num_items": len(set(items)),
        "num_skipped": n - len(answered),
        "no_answer": sum(row["prediction"] is None for row in rows),
        "format_compliance": share([row["format_ok"] for row in rows]),
        "eos_rate": share([row["finish_reason"] == "stop" for row in rows]),
        "hit_limit_rate": share([row["finish_reason"] == "length" for row in rows]),
        "repetition_rate": share([row["repeated_share"] >= REPETITIVE_SHARE for row in rows]),
        "mean_response_tokens": share([row["response_tokens"] for row in answered]),
        "mean_cot_tokens": share([row["thinking_tokens"] for row in answered]),
    } | _use_totals(rows)


def sampled_summary(rows: Sequence[Row]) -> dict[str, Any]:
    """pass@k and majority@k for several k, {"pass_at_k": {"1": {"value", "low", "high"}, ...}, "majority_at_k": ...}.

    Every item has the same number of samples. majority@k is of an item's first k samples, by the strict reading; its
    votes are numbers (18 and 18.00 are one answer), its ties go to the answer given first. Intervals draw items anew.
    """
    of_item: dict[int, list[Row]] = {}
    for row in rows:
        of_item.setdefault(row["index"], []).append(row)
    samples = list(of_item.values())
    n = len(samples[0])
    results: dict[str, Any] = {"num_samples": n, "pass_at_k": {}, "majority_at_k": {}}
    for k in sample_counts(n):
        passed = [pass_at_k(n, sum(row["correct"] for row in of_one), k) for of_one in samples]
        voted = [majority([_value(row) for row in of_one[:k]]) for of_one in samples]
        won = [
            any(row["correct"] for row in of_one[:k] if _value(row) == winner) and winner is not None
            for winner, of_one in zip(voted, samples, strict=True)
        ]
        for name, values in (("pass_at_k", passed), ("majority_at_k", won)):
            found = bootstrap_mean(values)
            results[name][str(k)] = {
                "value": round(found.mean, 6),
                "low": round(found.low, 6),
                "high": round(found.high, 6),
            }
    return results


def _use_columns(use: dict[str, FactUse]) -> Row:
    """A row's counts of each family: mul_tokens, mul_tokens_right and so on, add_tokens, ..."""
    columns: Row = {}
    for name, counts in use.items():
        columns[f"{name}_tokens"] = counts.total
        columns |= {f"{name}_tokens_{measure}": getattr(counts, measure) for measure in USE_MEASURES}
    return columns


def _use_totals(rows: Sequence[Row]) -> dict[str, Any]:
    """The sums of those columns; of `mul` also when there is no row."""
    totals: dict[str, Any] = {}
    for name in ("mul", *(families_counted(rows[0]) if rows else ())):
        total = sum(row[f"{name}_tokens"] for row in rows)
        totals[f"{name}_tokens_total"] = total
        totals[f"{name}_tokens_per_response"] = round(total / len(rows), 6) if rows else 0.0
        totals |= {key: sum(row[key] for row in rows) for key in (f"{name}_tokens_{use}" for use in USE_MEASURES)}
    return totals


def _value(row: Row) -> Decimal | None:
    return None if row["prediction"] is None else Decimal(row["prediction"])
