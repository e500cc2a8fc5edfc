# SPDX-License-Identifier: BSD-2-Clause
import ast
import importlib
import itertools
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import ptnetmap.abi
from ptnetmap.abi import netmap

PACKAGE = Path(ptnetmap.abi.__file__).parent
MODULES = sorted(
    ".".join(("ptnetmap.abi", *path.relative_to(PACKAGE).with_suffix("").parts))
    for path in PACKAGE.rglob("*.py")
    if path.name != "__init__.py"
)
ROW = re.compile(r"(\d+) +(\d+) +(\w+)(?: |$)")


def documented_layouts():
    for name in MODULES:
        module = importlib.import_module(name)
        body = ast.parse(Path(module.__file__).read_text()).body
        for statement, documentation in itertools.pairwise(body):
            if not (isinstance(statement, ast.Assign) and isinstance(documentation, ast.Expr)):
                continue
            target = statement.targets[0].id
            layout = getattr(module, target)
            if isinstance(layout, np.dtype) and layout.names:
                yield pytest.param(layout, documentation.value.value, id=f"{name}.{target}")


@pytest.mark.parametrize(("dtype", "documentation"), list(documented_layouts()))
def test_a_byte_table_says_what_the_layout_is(dtype, documentation, layout):
    table = {
        match[3]: (int(match[1]), int(match[2])) for line in documentation.splitlines() if (match := ROW.match(line))
    }
    assert table == layout(dtype)
    assert f"{dtype.itemsize} bytes" in documentation


def test_every_layout_has_a_byte_table():
    layouts = {
        id(value)
        for name in MODULES
        for value in vars(importlib.import_module(name)).values()
        if isinstance(value, np.dtype) and value.names
    }
    assert layouts == {id(parameter.values[0]) for parameter in documented_layouts()}


def test_the_netmap_package_exports_every_public_name():
    public = {
        name
        for module in MODULES
        if module.startswith("ptnetmap.abi.netmap.")
        for name, value in vars(importlib.import_module(module)).items()
        if not name.startswith("_")
        and (
            isinstance(value, int | str | np.dtype)
            or name in {"REQUEST_BODIES", "OPTION_LAYOUTS"}
            or getattr(value, "__module__", "").startswith("ptnetmap.")
        )
    }
    assert set(netmap.__all__) == public
    assert all(hasattr(netmap, name) for name in netmap.__all__)


def test_nmreq_is_the_layout_and_not_its_module():
    importlib.import_module("ptnetmap.abi.netmap.nmreq")
    assert isinstance(netmap.nmreq, np.dtype)


def test_layouts_need_neither_a_compiler_nor_an_operating_system():
    program = f"""
import sys, numpy
before = set(sys.modules)
for name in {MODULES!r}:
    __import__(name)
print(*set(sys.modules) - before)
"""
    printed = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    assert {name for name in printed.split() if not name.startswith("ptnetmap.abi")} <= {"ptnetmap", "__future__"}


@pytest.mark.parametrize("name", MODULES)
def test_a_module_imports_only_numpy_and_other_layouts(name):
    tree = ast.parse(Path(importlib.import_module(name).__file__).read_text())
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    allowed = {"numpy", "__future__", "typing", "types", "collections.abc"}
    assert {module for module in imported if not module.startswith("ptnetmap.abi.")} <= allowed
