"""What goes wrong in reinforcement learning, noticed while it runs: each alarm is given once, with what to try."""

from collections.abc import Iterator

WINDOW = 10  # iterations that a judgement looks at


class Alarms:
    """Reads the log's rows in order."""

    def __init__(self) -> None:
        self.rows: list[dict] = []
        self.given: set[str] = set()

    def check(self, row: dict) -> list[str]:
        """The alarms that this row sets off for the first time, one line each."""
        self.rows.append(row)
        new = [(name, text) for name, text in self._alarms() if name not in self.given]
        self.given |= {name for name, _ in new}
        return [text for _, text in new]

    def _alarms(self) -> Iterator[tuple[str, str]]:
        recent = self.rows[-WINDOW:]
        if len(recent) < WINDOW:
            return
        first, mean = self.rows[:WINDOW], lambda rows, key: sum(row[key] for row in rows) / len(rows)
        if all(row["kept_fraction"] == 0 for row in recent):
            side = "right" if recent[-1]["groups_all_right"] else "wrong"
            yield (
                "dead",
                (
                    f"no group had rewards that vary in the last {WINDOW} iterations (the last ones all {side}): "
                    "there is nothing to learn from; take easier or harder problems, larger groups, or a partial reward"
                ),
            )
        if mean(recent, "truncated") > 0.5:
            yield (
                "truncated",
                (
                    f"{mean(recent, 'truncated'):.0%} of the responses do not end by themselves: raise "
                    "rollout.max_new_tokens, teach the end in SFT, or set objective.overlong to penalty"
                ),
            )
        if mean(recent, "response_tokens") > 2 * mean(first, "response_tokens"):
            yield (
                "length",
                (
                    f"responses grew from {mean(first, 'response_tokens'):.0f} to "
                    f"{mean(recent, 'response_tokens'):.0f} tokens: set objective.overlong to penalty, or reward.short"
                ),
            )
        learned = [row for row in recent if row["entropy"] is not None]
        started = next((row["entropy"] for row in self.rows if row["entropy"] is not None), None)
        if learned and mean(learned, "entropy") < 0.1 * started:
            yield (
                "entropy",
                (
                    f"entropy fell from {started:.3f} to {mean(learned, 'entropy'):.3f} nats: lower the learning rate, "
                    "raise objective.clip_high, or set an entropy bonus"
                ),
            )
        learned = [row for row in learned if row["kl"] is not None]
        if learned and mean(learned, "kl") > 0.5:
            yield (
                "kl",
                (
                    f"the policy is {mean(learned, 'kl'):.2f} nats a token from where it started: lower the learning "
                    "rate or raise objective.kl_coefficient"
                ),
            )
