"""What holds for the repository as a whole: its scripts explain themselves and are tested, no config key is idle."""

import ast
import dataclasses
import functools
import importlib
import re
import subprocess
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import get_args, get_type_hints

import pytest

from common.config import config_from_yaml
from common.errors import UserError
from scripts.hub import Registry
from tests.helpers import ROOT

LAYERS = {  # who imports whom, as in the README's map
    "common": set(),
    "tokenizer": {"common"},
    "data": {"common", "tokenizer"},
    "pretrain": {"common", "tokenizer", "data"},
    "eval": {"common", "tokenizer", "data", "pretrain"},
    "sft": {"common", "tokenizer", "data", "pretrain", "eval"},
    "rl": {"common", "tokenizer", "data", "pretrain", "eval"},
    "edit": {"common", "tokenizer", "data", "pretrain", "eval"},
    "scripts": {"common", "tokenizer", "data", "pretrain", "eval", "sft", "rl", "edit"},
}
TREES = {
    str(path.relative_to(ROOT)): ast.parse(path.read_text())
    for folder in LAYERS
    for path in sorted((ROOT / folder).rglob("*.py"))
}
NAMES = {path: path.removesuffix(".py").replace("/", ".") for path in TREES}
SCRIPTS = [path for path in TREES if '__name__ == "__main__"' in (ROOT / path).read_text()]
TEST_TREES = {path: ast.parse(path.read_text()) for path in sorted((ROOT / "tests").glob("*.py"))}
THIS_FILE = Path(__file__)
CALLED_BY_LIBRARIES = {"on_epoch_begin", "on_step_begin", "_get_train_sampler", "_send_telemetry", "create_model_card"}


def module_of(script: str) -> ModuleType:
    return importlib.import_module(NAMES[script])


def imported_modules(tree: ast.AST) -> set[str]:
    """Dotted names of modules; `from a import b` counts as a and as a.b."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return names


# -- imports ----------------------------------------------------------------------------------------------------------
def test_imports_go_one_way():
    wrong = []
    for path in TREES:
        folder = path.split("/")[0]
        allowed = LAYERS[folder] | {folder}
        if path == "pretrain/train.py":
            allowed = allowed | {"eval"}  # the end of its chain, as its docstring says: nothing imports it
        folders = {name.split(".")[0] for name in imports_of(path)}
        wrong += [f"{path} imports {name}" for name in sorted(folders & set(LAYERS) - allowed)]
    assert wrong == []


# -- files -------------------------------------------------------------------------------------------------------------
def test_text_files_are_utf8_whatever_the_locale():
    wrong = []
    for path, tree in TREES.items():
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            name = ast.unparse(call.func)
            is_binary = any(isinstance(mode, ast.Constant) and "b" in str(mode.value) for mode in call.args[1:])
            as_text = (name == "open" and not is_binary) or name.endswith((".read_text", ".write_text"))
            if as_text and "encoding" not in [keyword.arg for keyword in call.keywords]:
                wrong.append(f"{path}:{call.lineno}")
    assert wrong == []


def test_files_that_are_named_exist():
    """In code, comments, configs and notes; a file that was renamed leaves its old name behind there."""
    named = re.compile(
        rf"(?<![\w/.-])((?:{'|'.join([*LAYERS, 'progress', 'third_party'])})/[\w/.-]*\w\.(?:py|sh|yaml|md))\b"
    )
    places = [path for folder in (*LAYERS, "tests", "progress") for path in (ROOT / folder).rglob("*.*")]
    places = [path for path in places if path.suffix in (".py", ".sh", ".yaml", ".md")]
    found = {(name, str(path.relative_to(ROOT))) for path in places for name in named.findall(path.read_text())}
    # One would hide the standard library's; progress/05 says so.
    assert [pair for pair in sorted(found) if not (ROOT / pair[0]).exists() and pair[0] != "eval/statistics.py"] == []


def defined_names(tree: ast.AST) -> set[str]:
    """Functions, classes, methods and fields, and the constants of the module."""
    names = set()
    for scope in ast.walk(tree):
        for node in scope.body if isinstance(scope, ast.Module | ast.ClassDef) else ():
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            names |= {target.id for target in targets if isinstance(target, ast.Name)}
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                names.add(node.name)
    return {name for name in names if not name.startswith("__")}


def test_nothing_is_defined_for_nobody():
    """A name that stands once in all the code, the tests left aside, is that of something that nothing uses."""
    words = Counter(word for path in TREES for word in re.findall(r"\w+", (ROOT / path).read_text()))
    unused = [(path, name) for path, tree in TREES.items() for name in defined_names(tree) if words[name] == 1]
    assert [(path, name) for path, name in unused if name not in CALLED_BY_LIBRARIES] == []


# -- scripts ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("script", SCRIPTS)
def test_help_explains_every_option(script, monkeypatch, capsys):
    module = module_of(script)
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("sys.argv", [script, "--help"])
    with pytest.raises(SystemExit) as stop:
        module.main()
    assert stop.value.code in (0, None)
    assert "usage:" in capsys.readouterr().out
    assert "uv run python " + script in (module.__doc__ or ""), "the docstring shows how to call it"


@functools.cache
def named_in_tests() -> set[str]:
    """The strings of all test files, as a path is given to a process, and the modules that they import."""
    trees = [tree for path, tree in TEST_TREES.items() if path != THIS_FILE]
    strings = {n.value for tree in trees for n in ast.walk(tree) if isinstance(n, ast.Constant)}
    return strings.union(*map(imported_modules, trees))


@pytest.mark.parametrize("script", SCRIPTS)
def test_some_test_runs_the_script(script):
    assert {script, NAMES[script]} & named_in_tests()


def test_every_script_begins_and_ends_like_the_others():
    for script in SCRIPTS:
        assert (ROOT / script).read_text().endswith('if __name__ == "__main__":\n    run_script(main)\n'), script


def test_some_test_names_every_shell_script():
    texts = [path.read_text() for path in TEST_TREES]
    texts += [path.read_text() for path in (ROOT / "scripts").glob("*.sh")]  # sourced by one that is run
    for path in (ROOT / "scripts").glob("*.sh"):
        assert any(path.name in text for text in texts if text != path.read_text()), path.name


@pytest.mark.parametrize("script", ["run_demo.sh", "run_study.sh", "run_10b.sh"])
def test_help_of_a_shell_script_is_what_stands_at_its_top(script, tmp_path):
    path = ROOT / "scripts" / script
    result = subprocess.run(["bash", str(path), "--help"], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    head = path.read_text().split("\nset -euo pipefail\n")[0].splitlines()[1:]
    assert result.returncode == 0 and result.stderr == ""
    assert result.stdout.splitlines() == [line.removeprefix("#").removeprefix(" ") for line in head]


# -- config keys ------------------------------------------------------------------------------------------------------
def config_class_of(script: str) -> type | None:
    """The dataclass that the script gives to parse_config."""
    for node in ast.walk(TREES[script]):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "parse_config":
            return getattr(module_of(script), node.args[0].id)
    return None


def sections_of(config_class: type) -> dict[str, type]:
    """The fields of a config that are configs themselves, also those that may be None."""
    found = {}
    for name, hint in get_type_hints(config_class).items():
        kinds = [kind for kind in (hint, *get_args(hint)) if dataclasses.is_dataclass(kind)]
        if kinds:
            found[name] = kinds[0]
    return found


@functools.cache
def reads_of(path: str) -> frozenset[tuple[str, str]]:
    """(owner, attribute) of all that a module reads: `config.seed` and getattr(config, "seed") are ("config", "seed").

    Behind `t = config.training`, `t.epochs` is ("training", "epochs"); `asdict(config.model)` is ("model", "*").
    """
    nodes = list(ast.walk(TREES[path]))
    sections = [
        (target.id, node.value.attr)
        for node in nodes
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Attribute)
        for target in node.targets
        if isinstance(target, ast.Name)
    ]

    def owners(node: ast.expr) -> set[str]:
        if isinstance(node, ast.Attribute):
            return {node.attr}
        return {ast.unparse(node)} | {section for name, section in sections if name == ast.unparse(node)}

    found = set()
    for node in nodes:
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
            found |= {(owner, node.attr) for owner in owners(node.value)}
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id in ("asdict", "vars"):
                found |= {(owner, "*") for owner in owners(node.args[0])}
            elif node.func.id == "getattr" and isinstance(node.args[1], ast.Constant):
                found |= {(owner, node.args[1].value) for owner in owners(node.args[0])}
    return frozenset(found)


@functools.cache
def imports_of(path: str) -> set[str]:
    return imported_modules(TREES[path])


def reachable_from(script: str) -> set[str]:
    """The paths of the script and of all that it imports, directly or not."""
    paths = {name: path for path, name in NAMES.items()}
    seen, waiting = {script}, [script]
    while waiting:
        found = {paths[name] for name in imports_of(waiting.pop()) & set(paths)} - seen
        seen |= found
        waiting += found
    return seen


def unread_keys(config_class: type, script: str) -> list[str]:
    """Keys of the script's config that nothing reads: no `config.key`, no `section.key`, no `settings.key`.

    A section may serve several scripts of which each reads a part, so its keys are looked for in all modules; a key of
    the config itself only where the script gets to.
    """
    everywhere = frozenset().union(*map(reads_of, TREES))
    here = frozenset().union(*map(reads_of, reachable_from(script)))
    sections = sections_of(config_class)
    keys = [field.name for field in dataclasses.fields(config_class) if field.name != "config"]  # parse_config's own
    unread = [key for key in keys if not {("config", key), ("settings", key), ("self", key)} & here]
    whole = {sections[name] for name in sections if (name, "*") in everywhere}
    for section, kind in sections.items():
        owners = (section, "config", "settings", "self")
        names = [] if kind in whole else [field.name for field in dataclasses.fields(kind)]
        unread += [f"{section}.{name}" for name in names if not {(o, name) for o in owners} & everywhere]
    return unread


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_config_key_is_read(script):
    config_class = config_class_of(script)
    assert config_class is not None and unread_keys(config_class, script) == []


def test_a_key_that_nothing_reads_is_found():
    from pretrain.settings import ModelConfig, TrainConfig, TrainingConfig

    training = dataclasses.make_dataclass("Training", [("idle_rate", float, 0.1)], bases=(TrainingConfig,))
    fields = [("training", training), ("model", ModelConfig), ("idle_seed", int, 0), ("max_edits", int, 1)]
    idle = dataclasses.make_dataclass("Idle", fields, bases=(TrainConfig,), kw_only=True)
    # max_edits is a key of edit/run_memit.py, which train.py does not get to.
    assert unread_keys(idle, "pretrain/train.py") == ["idle_seed", "max_edits", "training.idle_rate"]


@pytest.mark.parametrize(
    "path", sorted(ROOT.glob("*/configs/*.yaml")), ids=lambda path: f"{path.parts[-3]}-{path.stem}"
)
def test_every_key_in_a_yaml_file_is_a_field(path):
    """Of some script of the folder; which one is for the tests of the stages."""
    scripts = [script for script in SCRIPTS if Path(script).parts[0] == path.parts[-3]]
    classes = [config_class_of(script) for script in scripts] + [Registry]
    assert any(parses(config_class, path) for config_class in classes)


def parses(config_class: type, path: Path) -> bool:
    try:
        config_from_yaml(config_class, path)
    except UserError:
        return False
    return True
