"""data/tinygsm/interpreter.py: what Python computes, as Python computes it, and nothing that could do harm."""

import contextlib
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.tinygsm.interpreter import RETURNED, trace_solution
from data.tinygsm.values import Unsupported
from tests.helpers import cpu_seconds

NAMES = ("a", "b", "c", "items")
NUMBERS = st.one_of(st.integers(-20, 200), st.sampled_from([0.5, 0.15, 2.5, 1 / 3, 100.0])).map(repr)
LEAVES = st.one_of(NUMBERS, st.sampled_from(NAMES[:3]))
FORMS = (
    *(f"({{}} {sign} {{}})" for sign in ("+", "-", "*", "/", "//", "%", "**", "<", "<=", ">", ">=", "==", "!=")),
    *("({} and {})", "({} or {})", "(not {})"),
    *(f"{name}({{}})" for name in ("abs", "int", "float", "round", "-")),
    *(f"{name}({{}}, {{}})" for name in ("min", "max")),
    *(f"{name}([{{}}, {{}}, {{}}])" for name in ("sum", "len", "max")),
    *(f"round({{}}, {digits})" for digits in range(-2, 4)),
    *(f"[1, {{}}, 3][{index}]" for index in range(-3, 4)),
    *("({} + {} - {})", "({} - {} * {})", "({} < {} <= {})", "({} if {} else {})", "len(str({}))", "({} in items)"),
)


def body(*lines: str) -> str:
    return "def simple_math_problem() -> int:\n" + "".join(f"    {line}\n" for line in lines)


def larger(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Source with up to three parts in it."""
    return st.tuples(st.sampled_from(FORMS), inner, inner, inner).map(lambda t: t[0].format(*t[1:]))


# Over numbers, the variables of `programs` and the supported builtins.
EXPRESSIONS = st.one_of(LEAVES, larger(LEAVES), larger(larger(LEAVES)))


@st.composite
def programs(draw, returned: str = "{}") -> str:
    """A function that assigns, branches and loops, and returns an expression, put into `returned`."""

    def block(depth: int, indent: str) -> list[str]:
        lines = []
        for _ in range(draw(st.integers(1, 3))):
            kind = draw(st.sampled_from(["=", "=", "+=", "if", "for", "pair"] if depth < 2 else ["=", "*=", "-="]))
            name, value = draw(st.sampled_from(NAMES[:3])), draw(EXPRESSIONS)
            if kind == "if":
                lines += [f"{indent}if {value}:", *block(depth + 1, indent + "    ")]
                lines += [f"{indent}else:", *block(depth + 1, indent + "    ")] if draw(st.booleans()) else []
            elif kind == "for":
                over = draw(st.sampled_from(["range(3)", "range(1, 6, 2)", "items", "range(len(items))", "(1, 2.5)"]))
                lines += [f"{indent}for {name} in {over}:", *block(depth + 1, indent + "    ")]
            elif kind == "pair":
                lines.append(f"{indent}a, b = {value}, c")
            else:
                lines.append(f"{indent}{name} {kind} {value}")
        return lines

    start = ['    """Words."""', "    a = 3", "    b: float = 0.25", "    c = items = [7, 2]", "    c = 12"]
    lines = ["def simple_math_problem() -> int:", *start, *block(0, "    ")]
    return "\n".join([*lines, f"    return {returned.format(draw(EXPRESSIONS))}", ""])


def assert_same_as_python(program: str) -> None:
    """Programs are put together here, of harmless parts, so that Python itself may run them."""
    namespace: dict = {}
    exec(program, namespace)
    try:
        expected = namespace["simple_math_problem"]()
    except (ArithmeticError, TypeError, ValueError, IndexError):
        with pytest.raises(Unsupported):
            trace_solution(program)
        return
    try:
        found = trace_solution(program).answer
    except Unsupported as reason:  # a limit was passed on the way
        assert str(reason) in ("too_large", "value_complex", "too_many_steps")
        return
    assert repr(found) == repr(expected)  # type, value and sign of zero


@settings(max_examples=100)
@given(programs(returned="({}, a, b, c)"))
def test_generated_programs_give_what_they_give_in_python(program):
    assert_same_as_python(program)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_what_it_gives_in_python(form):
    for a, b, c in itertools.product(("7", "-3", "0", "2.5"), ("2", "-2", "0.5", "7"), ("1", "-4")):
        assert_same_as_python(body("items = [7, 2.5]", f"return {form.format(a, b, c)}"))


def test_the_trace_has_the_operands_values():
    trace = trace_solution(
        body("a, b = 3, 4", "total = a * b + 2 - 1", "if total > 5:", "    total -= 3", "return total")
    )
    assert [step.name for step in trace.steps] == ["a", "b", "total", None, "total", RETURNED]
    assert trace.steps[2].operations == ((("*",), (3, 4), 12), (("+", "-"), (12, 2, 1), 13))
    assert trace.steps[3].operations == (((">",), (13, 5), True),)
    assert trace.steps[4].operations == ((("-",), (13, 3), 10),)
    assert trace.steps[5].copied == "total" and trace.answer == 10


HOSTILE = {
    "import": body("import os", "return 1"),
    "importfrom": body("from os import system", "return 1"),
    "attribute": body("return (1).__class__.__bases__"),
    "call_of_something_else": body("return __import__('os')"),
    "unknown_name": body("return __builtins__"),
    "while": body("while True:", "    pass"),
    "lambda": body("return (lambda: 1)()"),
    "listcomp": body("return sum([x for x in range(9)])"),
    "dict": body("return {1: 2}[1]"),
    "try": body("try:", "    return 1", "except Exception:", "    return 2"),
    "global": body("global x", "return 1"),
    "functiondef": body("def f():", "    return f()", "return f()"),
    "slice": body("return [1, 2, 3][0:2]"),
    "subscript": body("a = [1]", "a[0] = 2", "return a[0]"),
    "starred": body("return max(*[1, 2])"),
    "namedexpr": body("return (x := 3)"),
    "is": body("return 1 is 1"),
    "lshift": body("return 1 << 10**12"),
    "yield": body("yield 1"),
    "no_return": body("a = 1"),
    "division_by_zero": body("return 1 / 0"),
    "raises_IndexError": body("return [1][5]"),
    "raises_TypeError": body("return [1] + 1"),
    "syntax_error": "def f(:",
    "not_one_function": body("return 1") + body("return 2"),
    "call": body("return 1") + "print(simple_math_problem())\n",
    "function_with_arguments_or_decorators": "def f(x=exit()):\n    return 1\n",
    "list_changed_in_place": body("a = b = [1]", "a += [2]", "return len(b)"),
    "string_operation": body("return '%999999999d' % 1"),
    "f_string_with_a_format": body("return f'{1:999999999}'"),
    "value_bytes": body("return b'1'"),
    "value_complex": body("return (-8) ** 0.5"),
    "code_too_long": body("return 1" + " " * 20_000),
    "runs_too_long": body("for i in range(1000):", "    for j in range(1000):", "        pass", "return 1"),
    "too_many_steps": body("a = 0", "for i in range(1000):", "    a += i", "return a"),
}
TOO_LARGE = (
    "9**9**9",
    "9**9**9**9**9",
    "2**-9999999999",
    "10**15 * 10",
    "1e15 * 1e15",
    "[0] * 10**12",
    "10**9 * 'a'",
    "range(10**15)",
    "[[0] * 900, [0] * 900]",
    "int('9' * 900)",
    "round(1, 10**9)",
    "round(1, -10**9)",
    "sum(range(10**9))",
    "1" + "0" * 40,
)
TOO_DEEP = {
    "brackets": "(" * 300 + "1" + ")" * 300,
    "signs": "-" * 5000 + "1",
    "lists": "[" * 90 + "]" * 90,
    "conditions": "1" + " if 0 else 2" * 700,
    "products": "1" + "*1" * 2000,
    "sums": "1" + "+1" * 4900,
}


@pytest.mark.parametrize(("reason", "program"), HOSTILE.items(), ids=HOSTILE)
def test_what_is_not_known_is_refused(reason, program):
    with pytest.raises(Unsupported, match=f"^{reason}$"):
        trace_solution(program)


@pytest.mark.parametrize("expression", TOO_LARGE)
def test_large_values_are_refused(expression):
    with pytest.raises(Unsupported, match=r"^too_large$"):
        trace_solution(body(f"return {expression}"))


@pytest.mark.parametrize("expression", TOO_DEEP.values(), ids=TOO_DEEP)
def test_deep_nesting_is_refused(expression):
    with pytest.raises(Unsupported, match=r"^(too_deep|syntax_error)$"):
        trace_solution(body(f"return {expression}"))


def test_sharing_does_not_hide_size():
    with pytest.raises(Unsupported, match="too_large"):
        trace_solution(body("a = [1]", *["a = [a, a]"] * 60, "return len(a)"))


def test_no_program_takes_long():
    expressions = [*TOO_LARGE, *TOO_DEEP.values(), " in ".join(["(a * 1000)"] * 400), "[" + "a," * 4000 + "]"]
    programs = [*HOSTILE.values(), *(body("a = ['x' * 1000]", f"return {expression}") for expression in expressions)]
    programs.append(body("a = 'x' * 1000", "return f'" + "{a}" * 3000 + "'"))
    programs.append(body("a = [1] * 999", "for i in range(1000):", "    sum(a)", "return 1"))
    for program in programs:
        assert cpu_seconds(_traced, program, repeats=1) < 0.5  # it is a hundredth of that


def _traced(program: str) -> None:
    with contextlib.suppress(Unsupported):
        trace_solution(program)


def test_strings_are_read_and_joined():
    lines = [
        "name = 'Sam'",
        "total = 4 * 2",
        "text = f'{name} has {total}.'",
        "text += '!' * 2",
        "return str(text) + name",
    ]
    assert trace_solution(body(*lines)).answer == "Sam has 8.!!Sam"


def test_a_docstring_with_odd_escapes_is_silent(recwarn):
    assert trace_solution(body('"""It costs \\$5 \\d."""', "return 2 + 3")).answer == 5
    assert not recwarn.list
