"""Whose a run's directory is."""

import pytest

from common.errors import UserError
from common.files import locked_directory, read_json, write_json
from common.run_directory import STARTED, check_not_the_parent, open_run_directory


def open_it(path, identity=None, **options):
    identity = identity or {"seed": 0}
    open_run_directory(path, identity, **{"unfinished": False, "resume": False, "force": False} | options)


def test_a_new_directory_says_what_the_run_is(tmp_path):
    open_it(tmp_path / "run")
    assert read_json(tmp_path / "run" / STARTED) == {"seed": 0}


def test_only_the_same_run_goes_on_and_only_when_asked(tmp_path):
    open_it(tmp_path)
    with pytest.raises(UserError, match="pass --resume"):
        open_it(tmp_path, unfinished=True)
    with pytest.raises(UserError, match="seed 0, this one has 1"):
        open_it(tmp_path, {"seed": 1}, unfinished=True, resume=True)
    open_it(tmp_path, unfinished=True, resume=True)


def test_a_finished_run_and_other_files_are_refused(tmp_path):
    write_json(tmp_path / "a" / "run.json", {})
    with pytest.raises(UserError, match="finished run"):
        open_it(tmp_path / "a", resume=True)
    write_json(tmp_path / "b" / "notes.json", {})
    with pytest.raises(UserError, match="no run wrote"):
        open_it(tmp_path / "b", force=True)


def test_what_a_killed_process_was_writing_is_nobodys(tmp_path):
    (tmp_path / ".started.json.123.partial").write_text("{")
    open_it(tmp_path)
    assert read_json(tmp_path / STARTED) == {"seed": 0}


def test_force_deletes_a_run_but_not_under_another_process(tmp_path):
    path = tmp_path / "run"
    write_json(path / "run.json", {})
    with locked_directory(path), pytest.raises(UserError, match="another process"):
        open_it(path, force=True)
    assert (path / "run.json").exists()
    open_it(path, force=True)
    assert [file.name for file in path.iterdir()] == [STARTED]
    assert [file.name for file in tmp_path.iterdir()] == ["run"]


def test_a_run_does_not_write_over_its_parent(tmp_path):
    check_not_the_parent(tmp_path / "a", tmp_path / "b")
    with pytest.raises(UserError, match="choose another"):
        check_not_the_parent(tmp_path / "a", tmp_path / "b" / ".." / "a")
