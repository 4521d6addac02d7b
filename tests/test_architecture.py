"""The shape of the tree: imports point up, modules and functions stay small."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import batteries

ROOT = Path(batteries.__file__).parent
ROOMS = (
    """errors files shapes config progress experiment prepare train score combine improve report cli __main__""".split()
)


def modules() -> Iterator[tuple[Path, str]]:
    for path in sorted(ROOT.rglob("*.py")):
        inside = path.relative_to(ROOT)
        if inside.name != "__init__.py" or len(inside.parts) > 1:
            yield path, inside.parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            names = (
                [f"{node.module}.{alias.name}" for alias in node.names]
                if node.module == "batteries"
                else [node.module or ""]
            )
        yield from (name.split(".")[1] for name in names if name.startswith("batteries."))


def test_modules_import_only_from_their_own_room_or_one_above() -> None:
    down = [
        f"{path.relative_to(ROOT)} imports {other}"
        for path, room in modules()
        for other in imported_rooms(path)
        if ROOMS.index(other) > ROOMS.index(room)
    ]
    assert down == []


def test_modules_stay_under_400_lines() -> None:
    assert [path.name for path, _ in modules() if len(path.read_text().splitlines()) > 400] == []


def test_function_bodies_stay_under_40_lines() -> None:
    long = []
    for path, _ in modules():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                body = node.body[1:] if ast.get_docstring(node) else node.body
                if body and body[-1].end_lineno - body[0].lineno + 1 > 40:  # type: ignore[operator]
                    long.append(f"{path.name}: {node.name}")
    assert long == []


def test_every_module_says_what_goes_in_and_out() -> None:
    for path, room in modules():
        if "templates" in path.parts or room == "__main__":
            continue
        doc = ast.get_docstring(ast.parse(path.read_text())) or ""
        assert all(word in doc for word in ("In:", "Out:", "Next:")), path
