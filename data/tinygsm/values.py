"""The values a TinyGSM solution may have and the operations on them, each with a limit on what comes out."""

import ast
import math
import operator
from collections.abc import Callable

Value = int | float | bool | str | list | tuple | range | None

MAX_NUMBER = 1e15  # whole numbers up to here are exact as floats too
MAX_ITEMS = 1000  # of a list, tuple or range, inner ones included, and characters of a string


class Unsupported(Exception):
    """A solution is not interpreted. The message is the reason, the same words for the same kind of construct."""


OPERATORS = {
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.Div: "/",
    ast.FloorDiv: "//",
    ast.Mod: "%",
    ast.Pow: "**",
}
COMPARISONS: dict[type, tuple[str, Callable]] = {
    ast.Eq: ("==", operator.eq),
    ast.NotEq: ("!=", operator.ne),
    ast.Lt: ("<", operator.lt),
    ast.LtE: ("<=", operator.le),
    ast.Gt: (">", operator.gt),
    ast.GtE: (">=", operator.ge),
    ast.In: ("in", lambda item, items: item in items),
    ast.NotIn: ("not in", lambda item, items: item not in items),
}
UNARY: dict[type, Callable] = {ast.USub: operator.neg, ast.UAdd: operator.pos, ast.Not: operator.not_}
CALCULATIONS = ("min", "max", "sum", "abs", "round", "int", "len")  # the functions whose calls are steps of a solution

_BINARY: dict[str, Callable] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "//": operator.floordiv,
    "%": operator.mod,
    "**": operator.pow,
}


def binary(name: str, left: Value, right: Value) -> Value:
    """One operation, refused before it is carried out where its result could be large. Raises Unsupported."""
    if (isinstance(left, str) or isinstance(right, str)) and name not in ("+", "*"):
        raise Unsupported("string_operation")  # % would format
    if name == "*":
        for items, count in ((left, right), (right, left)):
            if isinstance(items, str | list | tuple) and isinstance(count, int) and len(items) * count > MAX_ITEMS:
                raise Unsupported("too_large")
    if name == "**" and not (abs(left) in (0, 1) or abs(right) * abs(math.log10(abs(left))) <= 15):
        raise Unsupported("too_large")
    return within_limits(_BINARY[name](left, right))


def within_limits(value: Value) -> Value:
    """`value`. Raises Unsupported when it is too large or of a kind that solutions do not need."""
    match value:
        case None | bool():
            return value
        case int() | float():
            if abs(value) <= MAX_NUMBER:  # and not nan
                return value
        case str() | range():
            if len(value) <= MAX_ITEMS:
                return value
        case list() | tuple():
            if not _holds_more_than(MAX_ITEMS, value):
                return value
        case _:
            raise Unsupported(f"value_{type(value).__name__}")
    raise Unsupported("too_large")


def _holds_more_than(limit: int, items: list | tuple) -> bool:
    """Inner items count: [x, x] of [x, x] of ... is short to write and endless to read."""
    count, waiting = 0, [items]
    while waiting and count <= limit:
        inner = waiting.pop()
        count += len(inner)
        waiting += [item for item in inner if isinstance(item, list | tuple)]
    return count > limit


def sequence(value: Value) -> list | tuple | range | str:
    """`value`, which is to be iterated or indexed. Raises TypeError when it cannot be."""
    if not isinstance(value, list | tuple | range | str):
        raise TypeError("not a sequence")
    return value


def string_of(value: Value = "") -> str:
    """As `str`, of numbers and strings alone."""
    if isinstance(value, list | tuple | range):
        raise Unsupported("string_of_a_sequence")
    return str(value)


def _number_of(kind: type, value: Value) -> int | float:
    if isinstance(value, str) and len(value) > 20:
        raise Unsupported("too_large")
    return kind(value)


def _rounded(value: Value, digits: int | None = None) -> int | float:
    if digits is not None and not -20 <= digits <= 20:
        raise Unsupported("too_large")
    return round(value, digits)


FUNCTIONS: dict[str, Callable] = {
    "min": min,
    "max": max,
    "sum": sum,
    "abs": abs,
    "round": _rounded,
    "int": lambda value=0: _number_of(int, value),
    "float": lambda value=0: _number_of(float, value),
    "str": string_of,
    "len": len,
    "range": range,
}
