"""What a TinyGSM solution computes, step by step, found by walking its syntax tree.

The solutions are code that a language model wrote, so nothing here compiles or runs them: what this module does not
know is refused. It knows assignments, arithmetic, comparisons, `if`, `for` over ranges and sequences, `return`, lists
and tuples, plain strings and ten builtins. Steps, depth, numbers and sequences have limits, so a hostile function ends
as soon as a good one does.

What it accepts, Python computes alike: tests/test_tinygsm_interpreter.py has generated programs done by both.
"""

import ast
import warnings
from dataclasses import dataclass, field
from typing import NamedTuple, NoReturn

from data.tinygsm.values import (
    CALCULATIONS,
    COMPARISONS,
    FUNCTIONS,
    OPERATORS,
    UNARY,
    Unsupported,
    Value,
    binary,
    sequence,
    string_of,
    within_limits,
)

MAX_CODE_CHARACTERS = 10_000
MAX_DEPTH = 60  # of nested statements and expressions, four frames of this module each
MAX_NODES = 5000  # statements and expressions carried out, those in loops every time
MAX_STEPS = 100  # of the trace; a solution of GSM8K has two to eight
RETURNED = "return"  # no variable can be called so


class Operation(NamedTuple):
    """One calculation: 2 + 3 - 4 is (("+", "-"), (2, 3, 4), 1), min(2, 3) is (("min",), (2, 3), 2)."""

    operators: tuple[str, ...]  # between the operands; of a function, its name alone
    operands: tuple[Value, ...]
    result: Value


class Step(NamedTuple):
    """An assignment, a condition (name None) or what is returned (name RETURNED), with the calculations made for it."""

    name: str | None
    value: Value
    operations: tuple[Operation, ...]
    whole: bool  # whether the last operation is the whole right-hand side, so that its result is the value
    copied: str | None  # the variable that the whole right-hand side is, if it is one


@dataclass
class Trace:
    """The steps of a solution in the order in which they were carried out, and what it returns."""

    steps: list[Step] = field(default_factory=list)
    answer: Value = None


class _Return(Exception):
    pass


def trace_solution(code: str) -> Trace:
    """Interpret the one function that `code` defines, which takes no arguments.

    Raises Unsupported for everything outside the subset, for a limit passed and for what would raise in Python.
    """
    return _Interpreter().run(_parse(code))


def _parse(code: str) -> ast.FunctionDef:
    if len(code) > MAX_CODE_CHARACTERS:
        raise Unsupported("code_too_long")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about escapes in docstrings
            body = ast.parse(code).body
    except (SyntaxError, ValueError):
        raise Unsupported("syntax_error") from None
    except (RecursionError, MemoryError):  # the parser's own stack
        raise Unsupported("too_deep") from None
    statements = [node for node in body if not _is_text(node)]
    for node in statements:
        if not isinstance(node, ast.FunctionDef):
            _refuse(node)
    if len(statements) != 1:
        raise Unsupported("not_one_function")
    if statements[0].decorator_list or any(vars(statements[0].args).values()):
        raise Unsupported("function_with_arguments_or_decorators")
    return statements[0]


class _Interpreter:
    def __init__(self) -> None:
        self.variables: dict[str, Value] = {}
        self.operations: list[Operation] = []  # made since the last step
        self.trace = Trace()
        self.nodes = 0
        self.depth = 0

    def run(self, function: ast.FunctionDef) -> Trace:
        """The trace of the function's body. Raises Unsupported as `trace_solution`."""
        try:
            self._block(function.body)
        except _Return:
            return self.trace
        except ZeroDivisionError:
            raise Unsupported("division_by_zero") from None
        except (TypeError, ValueError, IndexError, OverflowError) as error:
            raise Unsupported(f"raises_{type(error).__name__}") from None
        raise Unsupported("no_return")

    # ---- statements

    def _block(self, statements: list[ast.stmt]) -> None:
        for statement in statements:
            self._enter()
            self._statement(statement)
            self.depth -= 1

    def _statement(self, node: ast.stmt) -> None:
        match node:
            case ast.Assign():
                value = self._value(node.value)
                for target in node.targets:
                    self._assign(target, value, node.value)
            case ast.AnnAssign(target=ast.Name(), value=ast.expr()):
                self._assign(node.target, self._value(node.value), node.value)
            case ast.AugAssign(target=ast.Name(id=name)):
                operands = (self._variable(name), self._value(node.value))
                if isinstance(operands[0], list):
                    raise Unsupported("list_changed_in_place")  # under its other names too
                value = self._calculated((_operator(node.op),), operands)
                self._assign(node.target, value, ast.BinOp(node.target, node.op, node.value))
            case ast.If():
                truth = bool(self._value(node.test))
                self._step(None, truth, node.test)
                self._block(node.body if truth else node.orelse)
            case ast.For(target=ast.Name(id=name), orelse=[]):
                items = sequence(self._value(node.iter))
                for item in items:
                    self.variables[name] = item
                    self._block(node.body)
            case ast.Return(value=ast.expr()):
                self.trace.answer = self._value(node.value)
                self._step(RETURNED, self.trace.answer, node.value)
                raise _Return
            case ast.Pass():
                pass
            case _ if _is_text(node):
                pass
            case _:
                _refuse(node)

    def _assign(self, target: ast.expr, value: Value, source: ast.expr) -> None:
        match target:
            case ast.Name(id=name):
                self.variables[name] = value
                self._step(name, value, source)
            case ast.Tuple(elts=targets) if all(isinstance(part, ast.Name) for part in targets):
                # Not `source`: all was calculated before the first name got its value.
                for part, item in zip(targets, sequence(value), strict=True):
                    self._assign(part, item, target)
            case _:
                _refuse(target)

    def _step(self, name: str | None, value: Value, source: ast.expr) -> None:
        """Add a step; `source` is the expression that gave its value."""
        if len(self.trace.steps) == MAX_STEPS:
            raise Unsupported("too_many_steps")
        match source:
            case ast.BinOp():
                whole = bool(self.operations)
            case ast.Call(func=ast.Name(id=function)):
                whole = bool(self.operations) and function in CALCULATIONS
            case _:
                whole = False
        copied = source.id if isinstance(source, ast.Name) else None
        # Nothing that is supported changes a list, so the trace can share it.
        self.trace.steps.append(Step(name, value, tuple(self.operations), whole, copied))
        self.operations.clear()

    # ---- expressions

    def _value(self, node: ast.expr) -> Value:
        self._enter()
        value = self._expression(node)
        self.depth -= 1
        return value

    def _expression(self, node: ast.expr) -> Value:
        match node:
            case ast.Constant(value=value):
                return within_limits(value)
            case ast.Name(id=name):
                return self._variable(name)
            case ast.BinOp(op=ast.Add() | ast.Sub()):
                return self._sum(node)
            case ast.BinOp():
                return self._calculated((_operator(node.op),), (self._value(node.left), self._value(node.right)))
            case ast.UnaryOp() if type(node.op) in UNARY:
                return within_limits(UNARY[type(node.op)](self._value(node.operand)))
            case ast.Compare():
                return self._comparison(node)
            case ast.BoolOp():
                decides = isinstance(node.op, ast.Or)  # what comes behind a value of that truth is not evaluated
                for part in node.values:
                    value = self._value(part)
                    if bool(value) == decides:
                        break
                return value
            case ast.IfExp():
                return self._value(node.body if self._value(node.test) else node.orelse)
            case ast.List():
                return within_limits([self._value(item) for item in node.elts])
            case ast.Tuple():
                return within_limits(tuple(self._value(item) for item in node.elts))
            case ast.Subscript():
                return sequence(self._value(node.value))[self._value(node.slice)]
            case ast.Call():
                return self._call(node)
            case ast.JoinedStr(values=parts):
                return within_limits("".join(self._text(part) for part in parts))
            case _:
                _refuse(node)

    def _sum(self, node: ast.BinOp) -> Value:
        """A chain of + and - is one operation, however long: 16 - 3 - 4 = 9."""
        operators, terms = [], []
        while isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Sub):
            operators.append(_operator(node.op))
            terms.append(node.right)
            node = node.left
        operands = tuple(self._value(term) for term in (node, *reversed(terms)))
        return self._calculated(tuple(reversed(operators)), operands)

    def _comparison(self, node: ast.Compare) -> bool:
        left = self._value(node.left)
        for sign, right_node in zip(node.ops, node.comparators, strict=True):
            if type(sign) not in COMPARISONS:
                _refuse(sign)
            name, compare = COMPARISONS[type(sign)]
            right = self._value(right_node)
            truth = compare(left, right)
            self.operations.append(Operation((name,), (left, right), truth))
            if not truth:
                return False
            left = right
        return True

    def _call(self, node: ast.Call) -> Value:
        if not isinstance(node.func, ast.Name):
            _refuse(node.func)
        name = node.func.id
        if name not in FUNCTIONS or name in self.variables or node.keywords:
            raise Unsupported("call_of_something_else")
        arguments = tuple(self._value(argument) for argument in node.args)
        result = within_limits(FUNCTIONS[name](*arguments))
        if name in CALCULATIONS:
            self.operations.append(Operation((name,), arguments, result))
        return result

    def _text(self, node: ast.expr) -> str:
        match node:
            case ast.FormattedValue(conversion=-1, format_spec=None):
                return string_of(self._value(node.value))
            case ast.Constant(value=str(text)):
                return text
            case _:
                raise Unsupported("f_string_with_a_format")

    def _calculated(self, operators: tuple[str, ...], operands: tuple[Value, ...]) -> Value:
        result = operands[0]
        for name, operand in zip(operators, operands[1:], strict=True):
            result = binary(name, result, operand)
        self.operations.append(Operation(operators, operands, result))
        return result

    def _variable(self, name: str) -> Value:
        if name not in self.variables:
            raise Unsupported("unknown_name")
        return self.variables[name]

    def _enter(self) -> None:
        self.nodes += 1
        self.depth += 1
        if self.nodes > MAX_NODES:
            raise Unsupported("runs_too_long")
        if self.depth > MAX_DEPTH:
            raise Unsupported("too_deep")


def _operator(node: ast.operator) -> str:
    if type(node) not in OPERATORS:
        _refuse(node)
    return OPERATORS[type(node)]


def _is_text(node: ast.AST) -> bool:
    """A string that stands alone, as docstrings do."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _refuse(node: ast.AST) -> NoReturn:
    """Raise Unsupported with the construct's name; of a bare expression, with what the expression is."""
    raise Unsupported(type(node.value if isinstance(node, ast.Expr) else node).__name__.lower())
