"""Loss spikes: updates whose loss or gradient norm stands far above those just before."""

import math
from collections import deque
from statistics import fmean, pstdev

from pretrain.settings import SpikeConfig


class SpikeGuard:
    """Scores each update against a window of the ones before it, after llm.c's outlier detector."""

    def __init__(self, settings: SpikeConfig):
        self.settings = settings
        self.windows: dict[str, deque[float]] = {n: deque(maxlen=settings.window) for n in ("loss", "gradient norm")}

    def inspect(self, loss: float, grad_norm: float) -> str | None:
        """What makes this update a spike, in words, or None. It joins the window either way, unless it is no number.

        A level that stays is therefore no spike for longer than the window.
        """
        found = None
        for (name, window), value in zip(self.windows.items(), (loss, grad_norm), strict=True):
            if not math.isfinite(value):
                found = f"{name} {value}"
                continue
            if len(window) == window.maxlen:
                mean, deviation = fmean(window), pstdev(window)
                if value > mean + self.settings.threshold * deviation:
                    found = f"{name} {value:.4g} against {mean:.4g} +- {deviation:.2g} over {window.maxlen} updates"
            window.append(value)
        return found

    def state_dict(self) -> dict[str, list[float]]:
        """The windows, for a checkpoint."""
        return {name: list(window) for name, window in self.windows.items()}

    def load_state_dict(self, state: dict[str, list[float]]) -> None:
        """Go on with the windows of `state`."""
        for name, values in state.items():
            self.windows[name].extend(values)
