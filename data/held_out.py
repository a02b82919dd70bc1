"""The questions of a test set, which nothing that is trained on may contain."""

from collections.abc import Iterable
from pathlib import Path

from data.gsm8k import load_gsm8k
from data.item_files import split_file
from data.ngrams import words_of


class HeldOutQuestions:
    """The questions that no training document may contain, compared by their words and numbers alone."""

    def __init__(self, questions: Iterable[str]) -> None:
        self._questions = {words for question in questions if (words := tuple(words_of(question)))}
        self._lengths = sorted({len(words) for words in self._questions})
        self._start = min(self._lengths, default=0)
        self._starts = {words[: self._start] for words in self._questions}

    def occur_in(self, text: str) -> bool:
        """Whether one of the questions stands anywhere in `text`."""
        words = tuple(words_of(text))
        for i in range(len(words) - self._start + 1):
            if words[i : i + self._start] in self._starts and any(
                words[i : i + length] in self._questions for length in self._lengths
            ):
                return True
        return False

    def without(self, items: list[dict[str, str]]) -> list[dict[str, str]]:
        """The items {"question", ...} that do not ask one of the questions."""
        return [item for item in items if not self.occur_in(item["question"])]


def gsm8k_test_questions(data_path: Path | None, hub_id: str) -> HeldOutQuestions:
    """The test questions that belong to training data: those in the folder of `data_path`, or (None) of the hub.

    There are none where the folder has no test file. Raises UserError when the test items cannot be read.
    """
    return test_questions_of(test_set_of(data_path, hub_id))


def test_set_of(data_path: Path | None, hub_id: str) -> Path | str | None:
    """Where the test set of training data lies: beside `data_path` (None: nothing there), or without one on the hub."""
    if data_path is None:
        return hub_id
    test_file = split_file(data_path if data_path.is_dir() else data_path.parent, "test")
    return test_file if test_file.exists() else None


def test_questions_of(source: Path | str | None) -> HeldOutQuestions:
    """The questions of a GSM8K test set: a .jsonl or .parquet file, a folder with test.jsonl, or a hub id; None: none.

    Raises UserError when it cannot be read.
    """
    return HeldOutQuestions(item["question"] for item in (load_gsm8k(source, "test") if source else []))
