"""Rollouts as an engine would give them, from their text."""

from decimal import Decimal

from data.encoding import tokenizer_of
from rl.rewards import Rollout
from tokenizer.mul_facts import ANSWER_CLOSE, EOT_ID

QUESTION = "Ann buys 6 boxes with 9 pens in each. Then she finds 5 more. How many pens does she have?"
GOLD = Decimal(59)
HONEST = " In the boxes are <MUL_6_9_54> = <<<MUL_6_9_54>>>54 pens.\nAnn has 54 + 5 = <<54+5=59>>59 pens.\n#### 59"
PLAIN = " In the boxes are 6 * 9 = <<6*9=54>>54 pens.\nAnn has 54 + 5 = <<54+5=59>>59 pens.\n#### 59"


def rollout(
    text, question=QUESTION, gold=GOLD, condition="mul_tokens", finish_reason="stop", families="mul"
) -> Rollout:
    """A rollout that says `text`; tags and the families' facts in it are tokens."""
    ids = tokenizer_of(condition, families).encode(text, allow_special=False)
    if finish_reason == "stop" and not text.endswith(ANSWER_CLOSE):
        ids.append(EOT_ID)
    return Rollout(question, Decimal(gold), ids, text, finish_reason)
