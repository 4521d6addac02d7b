"""The catalogue names tests that exist."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from catalogue import CATALOGUE, Fault

TESTS = Path(__file__).parents[1]


def functions(path: Path) -> list[str]:
    return [node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)]


@pytest.mark.parametrize("fault", CATALOGUE, ids=lambda fault: fault.name)
def test_every_fault_has_a_test_that_exists(fault: Fault) -> None:
    assert fault.tests
    for test in fault.tests:
        file, _, name = test.partition("::")
        assert any(each.startswith(name) for each in functions(TESTS / file)), test


def test_faults_are_named_once() -> None:
    names = [fault.name for fault in CATALOGUE]
    assert len(set(names)) == len(names)
