"""Configs are dataclasses: YAML gives values, `--section.key` overrides them, `--help` shows every key.

A script's config class has a field `config: Path | None`. The file it names fills the dataclass, then tyro parses the
command line with that as the default, so `--help --config X.yaml` shows the values of X.yaml.
"""

import contextlib
import dataclasses
import difflib
import io
import re
import sys
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

import tyro
import yaml
from pydantic import TypeAdapter, ValidationError

from common.errors import UserError

Config = TypeVar("Config")


def parse_config(config_class: type[Config], argv: list[str] | None = None) -> Config:
    """Parse the command line `argv` (default: the process's) into a `config_class`, its YAML file first.

    Raises UserError naming the key for an unknown key (with the nearest valid one), a wrong type or a missing file.
    """
    argv = sys.argv[1:] if argv is None else argv
    path = _config_path(argv)
    if path is None:
        path = next((f.default for f in dataclasses.fields(config_class) if f.name == "config"), None)
    default = config_from_yaml(config_class, path) if path is not None else None
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            options = {"default": default} if default is not None else {}
            # Every flag pair `--x/--no-x` is needed: a YAML file may have set what the command line unsets.
            return tyro.cli(config_class, args=argv, **options)
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise UserError(_one_line(errors.getvalue())) from None


def config_from_yaml(config_class: type[Config], path: Path) -> Config:
    """Read `path` into a `config_class`. Keys absent from the file keep their defaults; unknown keys are errors."""
    if not Path(path).is_file():
        raise UserError(f"config file {path} does not exist")
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: expected keys and values, found {type(values).__name__}")
    _check_keys(config_class, values, path, prefix="")
    try:
        config = TypeAdapter(config_class).validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{path}: {key}: {first['msg']} (found {first['input']!r})") from None
    # A default that the file does not mention is not validated by pydantic, so `config` still holds it as it was.
    return dataclasses.replace(config, config=Path(path)) if hasattr(config, "config") else config


def to_dict(config: Any) -> dict[str, Any]:
    """The config as JSON-ready values (paths become strings), for run.json and checkpoints."""
    return TypeAdapter(type(config)).dump_python(config, mode="json")


def _config_path(argv: list[str]) -> Path | None:
    for i, argument in enumerate(argv):
        if argument == "--config":
            if i + 1 == len(argv):
                raise UserError("--config needs a path to a YAML file")
            return Path(argv[i + 1])
        if argument.startswith("--config="):
            return Path(argument.removeprefix("--config="))
    return None


def _check_keys(config_class: type, values: dict, path: Path, prefix: str) -> None:
    hints = get_type_hints(config_class)
    valid = [field.name for field in dataclasses.fields(config_class)]
    for key, value in values.items():
        if key not in valid:
            near = difflib.get_close_matches(str(key), valid, n=1, cutoff=0.0)[0]
            raise UserError(f"{path}: unknown key {prefix}{key}; the nearest valid one is {prefix}{near}")
        section = next((t for t in (hints[key], *get_args(hints[key])) if dataclasses.is_dataclass(t)), None)
        if section is not None and isinstance(value, dict):
            _check_keys(section, value, path, prefix=f"{prefix}{key}.")


def _one_line(boxed: str) -> str:
    """tyro draws its errors as a box of several lines; ours are one line, so keep the message and the suggestion."""
    rows = [re.sub(r"^[│╭╰]\s?|\s*[│╮╯]$", "", row).strip() for row in boxed.splitlines()]
    parts: list[list[str]] = [[]]
    for row in rows:
        if row and set(row) <= set("─ "):
            parts.append([])
        elif row and not re.match(r"^─.*─$", row):
            parts[-1].append(row)
    message = " ".join(parts[0])
    if len(parts) > 1 and parts[1] and parts[1][0].startswith("Perhaps you meant"):
        message += f"; perhaps you meant {parts[1][1]}"
    return message or "the command line could not be parsed; see --help"
