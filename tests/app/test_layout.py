"""The tree keeps its shape: short modules and functions, few parameters."""

import ast
import json
import tomllib
from pathlib import Path

import pytest
from helpers import ROOT as TREE

import bids_inpaint

ROOT = Path(bids_inpaint.__file__).parent
MODULES = sorted([*ROOT.rglob("*.py"), *(ROOT / "workflows").glob("*.py")])
MODULE_LINES, FUNCTION_LINES, PARAMETERS = 350, 60, 8


def code_lines(function: ast.FunctionDef) -> int:
    """Lines of a function without its docstring."""
    body = function.body[1:] if ast.get_docstring(function) and len(function.body) > 1 else function.body
    return body[-1].end_lineno - body[0].lineno + 1


def functions(path: Path) -> list[ast.FunctionDef]:
    return [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_and_functions_are_short(path):
    lines = path.read_text().splitlines()
    assert len(lines) <= MODULE_LINES
    for function in functions(path):
        # a reason stands before it
        reason = lines[min([function, *function.decorator_list], key=lambda n: n.lineno).lineno - 2]
        if reason.lstrip().startswith("# long:"):
            continue
        assert code_lines(function) <= FUNCTION_LINES, function.name


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_functions_have_few_parameters(path):
    for function in functions(path):
        # a workflow is built from what the run knows
        if function.name.startswith("init_") and "workflows" in path.parts:
            continue
        arguments = function.args
        count = len(arguments.args + arguments.kwonlyargs + arguments.posonlyargs)
        assert (
            count - (arguments.args[:1] != [] and arguments.args[0].arg in ("self", "cls")) <= PARAMETERS
        ), function.name


@pytest.mark.parametrize("path", sorted((ROOT / "interfaces").glob("*.py")), ids=lambda path: path.name)
def test_every_trait_of_an_interface_says_what_it_is(path):
    specs = [
        node
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ClassDef) and node.name.endswith("Spec")
    ]
    for spec in specs:
        for trait in (node for node in spec.body if isinstance(node, ast.Assign)):
            described = "desc" in {keyword.arg for keyword in trait.value.keywords}
            assert described, f"{spec.name}.{trait.targets[0].id}"


def test_there_is_one_version():
    version = tomllib.loads((TREE / "pyproject.toml").read_text())["project"]["version"]
    assert f"version: {version}\n" in (TREE / "CITATION.cff").read_text()
    assert f"ARG VERSION={version}\n" in (TREE / "Dockerfile").read_text()
    assert json.loads((TREE / "docs/bids_inpaint.boutiques.json").read_text())["tool-version"] == version
