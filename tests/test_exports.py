"""The public names: complete, importable, quick."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import batteries


def test_all_is_sorted_and_every_name_is_importable() -> None:
    assert batteries.__all__ == sorted(batteries.__all__)
    for name in batteries.__all__:
        assert getattr(batteries, name) is not None


def test_type_checkers_see_the_same_names_as_programs() -> None:
    tree = ast.parse(Path(batteries.__file__).read_text())
    checking = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {
        alias.asname: node.module
        for node in ast.walk(checking)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == {name: f"batteries.{home}" for name, home in batteries._HOME.items()}


def test_an_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(batteries, "trainer")


def test_public_functions_and_classes_have_docstrings() -> None:
    without = [name for name in batteries.__all__ if not inspect.getdoc(getattr(batteries, name))]
    assert without == []


def test_importing_batteries_loads_nothing_heavy() -> None:
    code = "import sys, batteries; print([m for m in ('torch', 'numpy', 'polars', 'sklearn') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
