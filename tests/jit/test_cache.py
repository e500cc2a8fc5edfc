# SPDX-License-Identifier: BSD-2-Clause
from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

module = importlib.import_module("ptnetmap.jit.kernel")  # the package exports the decorator under the same name

SCRIPT = """
import json, sys
import numba
from numba import njit
from ptnetmap.jit.block import Block
from ptnetmap.jit.kernel import kernel
from ptnetmap.jit.memory import load64, store64
from ptnetmap.jit.wait import relax

where = sys.modules["ptnetmap.jit.kernel"].CACHE_DIR

@kernel
def step(address, i):
    store64(address, (load64(address + 8 * (load64(address) & 3)) * 31 + i) & 0xFFFFFFFF)
    return load64(address)

@kernel
def walk(address, n):
    total = 0
    for i in range(n):
        total = (total + step(address, i)) & 0xFFFFFFFF
        if total & 7 == 3:
            total ^= step(address + 8, i)
        elif total & 7 == 5:
            total -= step(address + 16, total)
        else:
            total |= step(address + 24, total + i)
    return total

@njit(cache=True)
def users(n):
    return n + 1

block = Block("i8", 16)
result = [relax(0), walk(block.address, 100), users(1)]
hits = sum(sum(k.stats.cache_hits.values()) for k in (relax, walk) if hasattr(k, "stats"))
misses = sum(sum(k.stats.cache_misses.values()) for k in (relax, walk) if hasattr(k, "stats"))
print(json.dumps({"result": result, "hits": hits, "misses": misses, "where": where, "numba": numba.config.CACHE_DIR}))
"""


def execute(script, **environment):
    run = subprocess.run(
        [sys.executable, str(script)], env=dict(os.environ, **environment), capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    return path


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of three files, which the digest takes for this one."""
    root = tmp_path / "ptnetmap"
    for name in ("jit/kernel.py", "netmap/pipe.py", "cli/main.py"):
        (root / name).parent.mkdir(parents=True)
        (root / name).write_text("A = 1\n")
    monkeypatch.setattr(module, "__file__", str(root / "jit" / "kernel.py"))
    return root


def test_changing_an_inlined_source_changes_the_digest(package):
    before = module._digest()
    assert module._digest() == before
    (package / "netmap" / "pipe.py").write_text("A = 2\n")
    changed = module._digest()
    assert changed != before
    (package / "netmap" / "pipe.py").write_text("A = 1\n")
    assert module._digest() == before


def test_adding_or_renaming_a_source_changes_the_digest(package):
    seen = {module._digest()}
    (package / "netmap" / "deep").mkdir()
    (package / "netmap" / "deep" / "new.py").write_text("")
    seen.add(module._digest())
    (package / "netmap" / "deep" / "new.py").rename(package / "netmap" / "deep" / "old.py")
    seen.add(module._digest())
    assert len(seen) == 3


def test_sources_that_no_kernel_inlines_do_not_change_the_digest(package):
    before = module._digest()
    (package / "cli" / "main.py").write_text("A = 2\n")
    assert module._digest() == before


def test_a_second_process_compiles_nothing(script, tmp_path):
    environment = {"PTNETMAP_CACHE_DIR": str(tmp_path / "cache"), "NUMBA_CACHE_DIR": str(tmp_path / "users")}
    cold, warm = execute(script, **environment), execute(script, **environment)
    assert (cold["hits"], cold["misses"]) == (0, 2)
    assert (warm["hits"], warm["misses"]) == (2, 0)
    assert warm["result"] == cold["result"]
    assert execute(script, **environment, NUMBA_DISABLE_JIT="1")["result"] == cold["result"]


def test_the_users_own_numba_cache_keeps_only_the_users_functions(script, tmp_path):
    users = tmp_path / "users"
    report = execute(script, PTNETMAP_CACHE_DIR=str(tmp_path / "cache"), NUMBA_CACHE_DIR=str(users))
    assert report["numba"] == str(users)
    assert {path.name.split("-")[0] for path in users.rglob("*.nb?")} == {"script.users"}
    ours = {path.name.split("-")[0] for path in Path(report["where"]).rglob("*.nb?")}
    assert {"wait.relax", "script.walk", "script.step"} <= ours
    assert "script.users" not in ours


def test_kernels_run_where_nothing_can_be_written(script, tmp_path):
    # Below a regular file: permissions would not stop root.
    (tmp_path / "file").write_text("")
    report = execute(
        script, PTNETMAP_CACHE_DIR=str(tmp_path / "file" / "cache"), NUMBA_CACHE_DIR=str(tmp_path / "users")
    )
    assert report["where"] is None
    assert report["result"][0] is True


def test_the_cache_is_where_the_environment_says(monkeypatch):
    for name in ("PTNETMAP_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/somebody")
    assert module.cache_root() == Path("/home/somebody/.cache/ptnetmap")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert module.cache_root() == Path("/xdg/ptnetmap")
    monkeypatch.setenv("PTNETMAP_CACHE_DIR", "/explicit")
    assert module.cache_root() == Path("/explicit")


def test_pruning_removes_old_digests_but_not_the_newest_nor_the_current(tmp_path):
    now = time.time()
    for days in range(10):
        (tmp_path / f"{days}").mkdir()
        os.utime(tmp_path / f"{days}", (now - days * 86400 - 60,) * 2)
    module._prune(tmp_path, "9")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1", "2", "3", "4", "5", "6", "9"]
    module._prune(tmp_path / "missing", "9")
