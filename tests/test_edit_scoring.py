"""Scores beside a naive loop; the measures on hand-made rows; the entropy and the perplexity."""

import math

import pytest
import torch

from common.errors import UserError
from edit.scoring import generation_entropy, ngram_entropy, perplexity, score_records, score_targets, summarise
from tests.edit_models import RECORDS, TOKENIZER, small_model
from tokenizer.vocabulary import Vocabulary

NEVER = set(Vocabulary("baseline").suppressed_ids)


def naive(model, prompt, target):
    """Mean NLL over all ids and worst rank among those that can be decoded, token by token."""
    ids, nll, ranks = TOKENIZER.encode(prompt), [], []
    for token in TOKENIZER.encode(f" {target}"):
        with torch.no_grad():
            logprobs = model.logits(model.hidden(torch.tensor([ids])))[0, -1].log_softmax(-1)
        nll.append(-float(logprobs[token]))
        better = (logprobs > logprobs[token]).nonzero()[:, 0].tolist()
        ranks.append(1 + len(set(better) - NEVER))
        ids = [*ids, token]
    return sum(nll) / len(nll), max(ranks)


def test_scores_equal_a_naive_loop(monkeypatch):
    model = small_model()
    pairs = [(record.prompt, target) for record in RECORDS for target in (record.target_new, record.target_old)]
    for batch_tokens in (1, 40, 4096):
        monkeypatch.setattr("edit.scoring.BATCH_TOKENS", batch_tokens)
        for score, pair in zip(score_targets(model, TOKENIZER, pairs), pairs, strict=True):
            nll, rank = naive(model, *pair)
            assert score.nll == pytest.approx(nll, rel=1e-4) and score.rank == rank
            assert score.probability == pytest.approx(math.exp(-nll), rel=1e-3)


def test_a_suppressed_id_takes_no_place():
    model = small_model()
    ids = torch.tensor([TOKENIZER.encode(RECORDS[0].prompt)])
    first = int(model.logits(model.hidden(ids))[0, -1, : min(NEVER)].argmax())
    with torch.no_grad():
        model.wte.weight[max(NEVER)] = 2 * model.wte.weight[first]  # twice the largest logit
    [score] = score_targets(model, TOKENIZER, [(RECORDS[0].prompt, TOKENIZER.decode([first]).removeprefix(" "))])
    assert int(model.logits(model.hidden(ids))[0, -1].argmax()) == max(NEVER) and score.rank == 1


def test_rows_hold_prompts_paraphrases_and_neighbors_in_place():
    model = small_model()
    rows = score_records(model, TOKENIZER, RECORDS)
    first, record = rows[0], RECORDS[0]
    assert [len(first[key]) for key in ("paraphrases", "neighbors")] == [1, 2] and rows[3]["neighbors"] == []
    nll, rank = naive(model, record.neighbors[1].prompt, record.neighbors[1].answer)
    assert first["neighbors"][1]["old"] == pytest.approx(math.exp(-nll), rel=1e-3)
    assert first["neighbors"][1]["old_rank"] == rank
    nll, _ = naive(model, record.paraphrases[0], record.target_new)
    assert first["paraphrases"][0]["new"] == pytest.approx(math.exp(-nll), rel=1e-3)


def test_a_prompt_that_does_not_fit_is_named():
    with pytest.raises(UserError, match="the model takes 48"):
        score_targets(small_model(), TOKENIZER, [("word " * 60, "x")])


def comparison(new, old, new_rank=5, old_rank=5):
    return {"new": new, "old": old, "new_rank": new_rank, "old_rank": old_rank}


def test_the_measures_on_rows_made_by_hand():
    win, lose = comparison(0.6, 0.2, new_rank=1), comparison(0.1, 0.5, old_rank=1)
    rows = [
        {"prompt": win, "paraphrases": [win, lose], "neighbors": [lose, win, win]},
        {"prompt": lose, "paraphrases": [win], "neighbors": [lose]},
    ]
    results = summarise(rows, [[False, False, True], [False]])
    shares = {name: (results[name]["num_correct"], results[name]["num_total"]) for name in list(results)[2:]}
    assert shares == {
        "efficacy": (1, 2),
        "paraphrase": (2, 3),
        "neighborhood": (2, 3),
        "neighborhood_edited": (0, 1),
    }
    assert results["score"] == pytest.approx(3 / (1 / (1 / 2) + 1 / (2 / 3) + 1 / (2 / 3)), abs=1e-6)
    assert results["efficacy"]["magnitude"] == pytest.approx((0.4 - 0.4) / 2)
    assert results["neighborhood"]["magnitude"] == pytest.approx((0.4 - 0.4 + 0.4) / 3, abs=1e-6)
    assert results["efficacy"]["argmax"] == 0.5 and results["neighborhood"]["argmax"] == pytest.approx(2 / 3, abs=1e-6)
    low, high = results["efficacy"]["wilson_95"]
    assert low < 0.5 < high
    nothing = summarise([{"prompt": win, "paraphrases": [], "neighbors": []}], [[]])
    assert nothing["paraphrase"] is None and nothing["score"] is None
    zero = summarise([{"prompt": lose, "paraphrases": [win], "neighbors": [lose]}], [[False]])
    assert zero["score"] == 0.0


def test_the_entropy_of_ngrams_by_hand():
    # a b a b: bigrams ab, ba, ab; trigrams aba, bab.
    bigrams = -(2 / 3 * math.log2(2 / 3) + 1 / 3 * math.log2(1 / 3))
    assert ngram_entropy("A b a b") == pytest.approx((2 / 3 * bigrams + 4 / 3 * 1.0) / 2)
    assert ngram_entropy("no no no no no") == 0.0 == ngram_entropy("one")
    assert ngram_entropy("a b c d e f g h") > ngram_entropy("a b a b a b a b") > 0


def test_generated_texts_are_the_same_for_the_same_seed():
    model = small_model()
    a, b, c = (generation_entropy(model, TOKENIZER, RECORDS[:2], 8, seed) for seed in (0, 0, 1))
    assert a == b and a[1] != c[1] and a[1][0].startswith(RECORDS[0].prompt)
    assert a[0] == pytest.approx(sum(map(ngram_entropy, a[1])) / 2)


def test_perplexity_equals_a_naive_loop():
    model = small_model()
    windows = [TOKENIZER.encode(text) for text in ("The capital of France", "One two", "What is six times nine?")]
    total, count = 0.0, 0
    for window in windows:
        with torch.no_grad():
            logprobs = model.logits(model.hidden(torch.tensor([window])))[0].log_softmax(-1)
        total -= sum(float(logprobs[t, window[t + 1]]) for t in range(len(window) - 1))
        count += len(window) - 1
    assert perplexity(model, windows) == pytest.approx(math.exp(total / count), rel=1e-4)
