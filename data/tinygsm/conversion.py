"""From a TinyGSM solution to a worked answer in words, one line per step, with "#### " and the number at the end.

    trays = 10
    tray cost = 50                             An assignment is its variable's name in words and what it holds.
    tray total = 10 * 50 = 500                 A calculation has its numbers and its result,
    3 * 4 = 12                                 inner calculations in lines of their own before it,
    total cost = 500 + 12 = 512                so that a product stands where tokenizer/inject_mul.py rewrites it.
    Is 512 greater than 500? Yes.
    #### 512

Every written equation is true of the numbers as they are written: 0.1 + 0.2 has the result 0.3, and what no short
decimal is, such as 10 / 3, is a fraction. Where floating point leaves no such numbers, or the answer is no decimal,
the solution is dropped.
"""

import math
import re
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import NamedTuple

from data.tinygsm.interpreter import RETURNED, Operation, Step, trace_solution
from data.tinygsm.values import COMPARISONS, Unsupported, Value

DECIMALS = 6  # of a written number
MAX_DENOMINATOR = 100  # of a number that is no such decimal
MAX_LISTED = 12  # numbers in a line
NAME_OF_RETURNED = "answer"
_QUESTIONS = {
    "==": "equal to",
    "!=": "different from",
    "<": "less than",
    "<=": "at most",
    ">": "greater than",
    ">=": "at least",
}
_COMPARISON_NAMES = {name for name, _ in COMPARISONS.values()}


class WrittenNumber(NamedTuple):
    """A number as it is written, and exactly what that says."""

    text: str
    exact: Fraction

    @property
    def bracketed(self) -> str:
        """The text as an operand behind a sign, where a minus or a fraction needs brackets."""
        return self.text if self.exact >= 0 and "/" not in self.text else f"({self.text})"


def convert(code: str) -> str:
    """The worked answer. Raises Unsupported when the solution cannot be interpreted or written down exactly."""
    trace = trace_solution(code)
    answer = _number(trace.answer, "answer_not_a_number")
    if "/" in answer.text:
        raise Unsupported("answer_not_a_decimal")
    if not any(_calculates(operation) for step in trace.steps for operation in step.operations):
        raise Unsupported("no_calculation")  # a lone number would teach to guess
    lines = [line for step in _without_last_copies(trace.steps) for line in _lines(step)]
    return "\n".join([*lines, f"#### {answer.text}"])


def in_words(name: str) -> str:
    """A variable's name as words: "num_apples" and "numApples" are "num apples"."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name).replace("_", " ")
    return " ".join(spaced.split()).lower() or name


def written(value: Value) -> WrittenNumber:
    """A number as a decimal of few digits, else as a fraction of small numbers. Raises Unsupported when it is neither.

    Floats are taken for what they are meant to be, if that is within a billionth: 0.30000000000000004 for 0.3.
    """
    if isinstance(value, int):
        return WrittenNumber(str(value), Fraction(value))
    decimal = f"{value:.{DECIMALS}f}".rstrip("0").rstrip(".")
    if math.isclose(float(decimal), value, rel_tol=1e-9):
        return WrittenNumber("0" if decimal == "-0" else decimal, Fraction(decimal))
    fraction = Fraction(value).limit_denominator(MAX_DENOMINATOR)
    if math.isclose(float(fraction), value, rel_tol=1e-9):
        return WrittenNumber(str(fraction), fraction)
    raise Unsupported("inexact_value")


def _number(value: Value, reason: str) -> WrittenNumber:
    if not _is_number(value):
        raise Unsupported(reason)
    return written(value)


def _numbers(values: Iterable[Value]) -> list[WrittenNumber]:
    return [_number(value, "calculation_with_no_number") for value in values]


def _without_last_copies(steps: list[Step]) -> list[Step]:
    """Without what only hands the answer on, as `result = total` and `return result` do: "####" says it again."""
    end = len(steps)
    while end and steps[end - 1].copied:
        end -= 1
    return steps[:end]


def _lines(step: Step) -> Iterator[str]:
    label = NAME_OF_RETURNED if step.name == RETURNED else in_words(step.name or "")
    operations = [operation for operation in step.operations if not _changes_nothing(operation)]
    if step.whole and _is_number(step.value) and operations and operations[-1].result == step.value:
        last = operations.pop()
        yield from filter(None, map(_equation, operations))
        yield f"{label} = {_equation(last) or written(last.result).text}"
        return
    yield from filter(None, map(_equation, operations))
    if step.name is not None and (value := _listed(step.value)) is not None:
        copied = f"{in_words(step.copied)} = " if step.copied else ""
        yield f"{label} = {copied}{value}"


def _is_number(value: Value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _listed(value: Value) -> str | None:
    """A number, or the numbers of a sequence, as text; None for what the steps need not say, such as strings."""
    items = value if isinstance(value, list | tuple) else [value]
    if not items or not all(map(_is_number, items)):
        return None
    if len(items) > MAX_LISTED:
        raise Unsupported("long_list")
    return ", ".join(written(item).text for item in items)


def _changes_nothing(operation: Operation) -> bool:
    """Such as int() of a whole number."""
    return operation.operators[0] in ("abs", "round", "int") and operation.operands[0] == operation.result


def _calculates(operation: Operation) -> bool:
    if operation.operators[0] in _COMPARISON_NAMES or _changes_nothing(operation):
        return False
    return _is_number(operation.result)


def _equation(operation: Operation) -> str | None:
    """What is calculated, " = " and the result; a comparison as question and answer.

    None when it is of other values, or no more than a number: 1 / 3 is 1/3. Raises Unsupported when it is not true of
    the numbers as written.
    """
    name = operation.operators[0]
    if name in _COMPARISON_NAMES:
        return _comparison(operation)
    if not _is_number(operation.result):
        return None  # of strings and lists; what becomes a number of them is written with its numbers
    result = written(operation.result)
    if name in ("min", "max", "sum", "len"):
        text, exact = _of_several(name, operation.operands)
    else:
        numbers = [_number(operand, "calculation_with_no_number") for operand in operation.operands]
        text, exact = (
            _of_one(name, numbers) if name in ("abs", "int", "round") else _chain(operation.operators, numbers)
        )
    if exact != result.exact:
        raise Unsupported("inexact_value")
    return None if text.replace(" ", "") == result.text else f"{text} = {result.text}"


def _comparison(operation: Operation) -> str | None:
    name, (left, right) = operation.operators[0], operation.operands
    if name not in _QUESTIONS or not (_is_number(left) and _is_number(right)):
        return None
    return f"Is {written(left).text} {_QUESTIONS[name]} {written(right).text}? {'Yes' if operation.result else 'No'}."


def _chain(operators: tuple[str, ...], numbers: list[WrittenNumber]) -> tuple[str, Fraction]:
    """Text and exact value of numbers with operators between them."""
    first, second = numbers[0], numbers[1]
    match operators[0]:
        case "+" | "-":
            text, exact = first.text, first.exact
            for sign, number in zip(operators, numbers[1:], strict=True):
                text += f" {sign} {number.bracketed}"
                exact += number.exact if sign == "+" else -number.exact
            return text, exact
        case "*":
            return f"{first.text} * {second.bracketed}", first.exact * second.exact
        case "/":
            return f"{first.text} / {second.bracketed}", first.exact / second.exact
        case "//":
            quotient = first.exact / second.exact
            rounded = "" if quotient.denominator == 1 else " rounded down"
            return f"{first.text} / {second.bracketed}{rounded}", Fraction(math.floor(quotient))
        case "%":
            return f"remainder of {first.text} / {second.bracketed}", first.exact % second.exact
        case "**":
            if second.exact.denominator != 1 or abs(second.exact) > 64:
                raise Unsupported("inexact_value")
            return f"{first.bracketed} ^ {second.bracketed}", first.exact ** int(second.exact)


def _of_several(name: str, arguments: tuple[Value, ...]) -> tuple[str, Fraction]:
    """Text and exact value of min, max, sum and len, whose numbers are a sequence or the arguments themselves."""
    items = list(arguments[0]) if len(arguments) == 1 else list(arguments)
    if name == "sum" and len(arguments) > 1:
        raise Unsupported("sum_with_a_start")
    if not items:
        raise Unsupported("calculation_with_no_number")
    if len(items) > MAX_LISTED:
        raise Unsupported("long_list")
    numbers = _numbers(items)
    if name == "len":
        return f"count of {', '.join(number.text for number in numbers)}", Fraction(len(items))
    if name == "sum":
        return _chain(("+",) * (len(numbers) - 1), numbers) if len(numbers) > 1 else (numbers[0].text, numbers[0].exact)
    choose, word = (min, "smallest") if name == "min" else (max, "largest")
    return f"{word} of {', '.join(number.text for number in numbers)}", choose(number.exact for number in numbers)


def _of_one(name: str, numbers: list[WrittenNumber]) -> tuple[str, Fraction]:
    """Text and exact value of abs, int and round, as school has them: round(2.5) is 2 in Python and is refused."""
    number = numbers[0]
    if name == "abs":
        return f"size of {number.text}", abs(number.exact)
    if name == "int":
        return f"{number.text} without its decimals", Fraction(math.trunc(number.exact))
    digits = int(numbers[1].exact) if len(numbers) > 1 else 0
    if digits < 0:
        raise Unsupported("rounded_before_the_point")
    scaled = abs(number.exact) * Fraction(10) ** digits
    rounded = Fraction(math.floor(scaled + Fraction(1, 2))) / Fraction(10) ** digits
    places = f" to {digits} decimal{'s' * (digits > 1)}" if digits else ""
    return f"{number.text} rounded{places}", rounded if number.exact >= 0 else -rounded
