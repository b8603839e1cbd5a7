"""The rules of the house, held by reading every source file: who may import whom, and what nobody may do."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

REPO_ROOT = Path(__file__).resolve().parent.parent
WEBUI = REPO_ROOT / "webui"
SOURCES = [REPO_ROOT / "app.py", *sorted(WEBUI.rglob("*.py"))]
PYENV = Path("~/.pyenv/versions").expanduser()

# Where an arrow may go: a part of webui/ and the parts that it may import. A part not named here does not exist.
DATA = {
    "caches",
    "errors",
    "names",
    "events",
    "operations",
    "extension_values",
    "params",
    "paths",
    "settings",
    "identity",
}
MAKING = {"sampling", "catalog", "prompt", "infotext", "pictures", "inputs", "provenance"}
FACE = DATA | {"jobs", "catalog", "prompt", "infotext", "pictures", "inputs", "history", "provenance", "extensions"}
ARROWS: dict[str, set[str]] = {
    "errors": set(),
    "names": {"errors"},
    "events": {"errors"},
    "operations": {"errors", "names"},
    "extension_values": set(),
    "params": {"errors", "names", "extension_values", "operations"},
    "paths": {"errors"},
    "settings": {"errors", "paths"},
    "caches": {"errors"},
    "identity": set(),
    "accounts": {"errors", "paths"},
    "sampling": {"errors", "names"},
    "prompt": {"errors", "names", "params", "events", "paths"},
    "infotext": {"errors", "names", "operations", "params", "events"},
    "pictures": {"errors", "names", "operations", "params", "infotext"},
    "inputs": {"errors", "identity", "params", "paths", "pictures"},
    "provenance": DATA,
    "catalog": DATA | {"inputs"},
    "extensions": DATA | {"provenance", "infotext", "prompt"},
    "engine": DATA | MAKING | {"extensions"},
    "history": DATA | MAKING - {"sampling"},
    "console": DATA,
    "jobs": DATA | {"engine", "catalog", "history", "provenance", "infotext", "inputs", "extensions"},
    "api": FACE,
    "ui": FACE,
    "server": FACE | {"api", "ui", "accounts"},
    "client": {"errors", "paths"},
    "mcp_server": {"errors", "client"},
    "install": {"errors", "paths"},
    "launcher": {"errors", "paths", "install", "cli"},
    "cli": DATA
    | {"accounts", "server", "engine", "jobs", "catalog", "history", "inputs", "console", "install", "launcher"}
    | {"extensions", "client", "mcp_server"},
    "__main__": {"launcher", "cli"},
    "__init__": set(),
}

# The lower floors of the engine, and those below each. The rest of it may know them all.
ENGINE_FLOORS: dict[str, set[str]] = {"files": set(), "memory": set(), "compute": {"memory"}, "tools": {"files"}}

# Packages of others that only some parts may know.
ONLY_IN = {
    "torch": {"engine", "sampling"},
    "torchsde": {"engine", "sampling"},
    "diffusers": {"engine"},
    "transformers": {"engine"},
    "xformers": {"engine"},
    "gradio": {"ui", "server"},
    "fastapi": {"api", "server"},
    "starlette": {"api", "server", "ui"},
    "uvicorn": {"server"},
    "typer": {"cli"},
    "pluggy": {"extensions"},
    "mcp": {"mcp_server"},
}
HEAVY = ("torch", "diffusers", "transformers", "xformers", "torchsde", "torchvision")
NOWHERE = {  # what would run code from a file, or reach the network
    "torchvision": "it breaks diffusers wherever its build does not match torch's",
    "pickle": "a pickle is a program",
    "marshal": "as pickle",
    "shelve": "as pickle",
    "dill": "as pickle",
    "joblib": "as pickle",
    "imp": "imports by name",
    "requests": "nothing is fetched",
    "httpx": "nothing is fetched",
    "aiohttp": "nothing is fetched",
    "urllib3": "nothing is fetched",
    "urllib.request": "nothing is fetched",
    "http.client": "nothing is fetched",  # but by the client for scripts, from the server it was given
    "ftplib": "nothing is fetched",
    "huggingface_hub": "nothing is fetched",
    "telnetlib": "nothing is fetched",
}
BUT_IN = {"http.client": {"client"}}
CALLS_NOWHERE = {"eval", "exec", "__import__", "os.system", "os.popen", "os.spawnl", "urlopen", "breakpoint"}
WRITES = {"write_text", "write_bytes"}
NEWER_THAN_310 = {  # "" is the module itself
    "typing": {
        *("Self", "Never", "LiteralString", "NotRequired", "Required", "Unpack", "TypeVarTuple", "assert_never"),
        *("assert_type", "reveal_type", "override", "dataclass_transform", "TypeAliasType", "get_overloads"),
        *("clear_overloads", "TypeIs", "ReadOnly", "NoDefault", "get_protocol_members", "is_protocol"),
    },
    "enum": {"StrEnum", "ReprEnum", "EnumCheck", "FlagBoundary"},
    "datetime": {"UTC"},
    "asyncio": {"TaskGroup", "timeout", "timeout_at", "Runner", "Barrier"},
    "contextlib": {"chdir"},
    "itertools": {"batched"},
    "tomllib": {""},
    "builtins": {"ExceptionGroup", "BaseExceptionGroup"},
}
OPTIONAL = {"spandrel", "spandrel_extra_arches", "triton"}  # used where the user, or torch for CUDA, has installed it
PACKAGE_OF = {"PIL": "pillow", "yaml": "pyyaml"}

FLOORS = {  # older ones have holes that are known (advisories) or lack what is used
    "gradio": "6.20",
    "diffusers": "0.38",
    "transformers": "5.3",
    "torch": "2.10",
    "pillow": "12.3",
    "safetensors": "0.8",
    "omegaconf": "2.4",
}


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def part_of(path: Path) -> str:
    return path.relative_to(WEBUI).parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """(line, dotted module) of every import, wherever in the file it stands."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import hides where the arrow goes"
            if node.module in ("webui", "urllib", "http"):
                yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)
            else:
                yield node.lineno, node.module or ""


def calls(path: Path) -> Iterator[tuple[int, str, ast.Call]]:
    """(line, dotted name, call) of every call."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call):
            yield node.lineno, ast.unparse(node.func), node


def where(path: Path, line: int) -> str:
    return f"{path.relative_to(REPO_ROOT)}:{line}"


def requirement(line: str) -> Requirement | None:
    text = line.split("#")[0].strip()
    return Requirement(text) if text and not text.startswith("-") else None


def requirements(name: str) -> dict[str, Requirement]:
    found = map(requirement, (REPO_ROOT / name).read_text(encoding="utf-8").splitlines())
    return {entry.name: entry for entry in found if entry is not None}


# --- arrows ----------------------------------------------------------------------------------------------------------


def test_every_arrow_between_parts_goes_where_the_plan_of_the_house_says() -> None:
    wrong = []
    for path in sorted(WEBUI.rglob("*.py")):
        part = part_of(path)
        assert part in ARROWS, f"{path}: a part that the plan does not know"
        for line, module in imports(path):
            head, _, rest = module.partition(".")
            target = rest.split(".")[0]
            if head != "webui" or target in ("", "__version__", part):
                continue
            if target not in ARROWS[part]:
                wrong.append(f"{where(path, line)}: {part} imports {target}")
    assert not wrong, "\n".join(wrong)


def test_the_lower_floors_of_the_engine_know_nothing_of_the_upper_ones() -> None:
    wrong = []
    for floor, below in ENGINE_FLOORS.items():
        paths = sorted((WEBUI / "engine" / floor).rglob("*.py"))
        assert len(paths) > 1, f"{floor} is no part of the engine"
        for path in paths:
            for line, module in imports(path):
                target = module.removeprefix("webui.engine.").split(".")[0]
                if module.startswith("webui.engine") and target not in below | {floor}:
                    wrong.append(f"{where(path, line)}: {floor} imports {module}")
    assert not wrong, "\n".join(wrong)


def test_packages_of_others_are_known_only_where_they_belong() -> None:
    wrong = []
    for path in sorted(WEBUI.rglob("*.py")):
        for line, module in imports(path):
            allowed = ONLY_IN.get(module.split(".")[0])
            if allowed is not None and part_of(path) not in allowed:
                wrong.append(f"{where(path, line)}: {module} in {part_of(path)}")
    assert not wrong, "\n".join(wrong)


def test_the_front_never_loads_torch() -> None:
    """Every module of the front, imported in a fresh process: none of the heavy packages may come along."""
    front = [part for part in ARROWS if part not in ("engine", "sampling", "cli", "launcher", "__main__", "__init__")]
    modules = []
    for part in (*front, "cli", "launcher"):
        files = sorted((WEBUI / part).rglob("*.py")) if (WEBUI / part).is_dir() else [WEBUI / f"{part}.py"]
        for path in files:
            if path.name == "__main__.py":
                continue
            parts = path.relative_to(REPO_ROOT).with_suffix("").parts
            modules.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    script = (
        "import importlib, sys\n"
        f"for name in {modules!r}:\n"
        "    importlib.import_module(name)\n"
        f"    loaded = [heavy for heavy in {HEAVY!r} if heavy in sys.modules]\n"
        "    assert not loaded, f'{name} loads {loaded}'\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=REPO_ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]


def test_what_runs_before_the_installation_needs_the_standard_library_alone() -> None:
    first = [REPO_ROOT / "app.py", *(WEBUI / f"{name}.py" for name in ("launcher", "install", "paths", "errors"))]
    for path in (*first, WEBUI / "__init__.py"):
        for line, module in imports(path):
            root = module.split(".")[0]
            assert root in sys.stdlib_module_names or root == "webui", f"{where(path, line)}: {module}"


# --- what nobody may do ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(REPO_ROOT)))
def test_no_code_from_files_no_network_no_patches_and_no_writing_past_the_door(path: Path) -> None:
    wrong = [*banned_imports(path), *banned_calls(path), *banned_statements(path)]
    assert not wrong, "\n".join(wrong)


def banned_imports(path: Path) -> Iterator[str]:
    for line, module in imports(path):
        for banned, reason in NOWHERE.items():
            if (module == banned or module.startswith(banned + ".")) and not allowed_here(path, banned):
                yield f"{where(path, line)}: {module}: {reason}"


def allowed_here(path: Path, banned: str) -> bool:
    return path.is_relative_to(WEBUI) and part_of(path) in BUT_IN.get(banned, ())


def banned_calls(path: Path) -> Iterator[str]:
    at_the_door = path == WEBUI / "paths.py"
    for line, name, call in calls(path):
        last = name.rsplit(".", 1)[-1]
        if name in CALLS_NOWHERE or last == "urlopen":
            yield f"{where(path, line)}: {name}()"
        if last == "import_module" and not isinstance(call.args[0], ast.Constant):
            yield f"{where(path, line)}: an import by a name that is computed"
        if name == "torch.load" and not any(
            word.arg == "weights_only" and isinstance(word.value, ast.Constant) and word.value.value is True
            for word in call.keywords
        ):
            yield f"{where(path, line)}: torch.load without weights_only=True"
        if any(word.arg == "shell" for word in call.keywords):
            yield f"{where(path, line)}: a shell"
        if not at_the_door and last in WRITES:
            yield f"{where(path, line)}: {last}: files are written by webui.paths"
        if not at_the_door and last == "open" and opens_for_writing(name, call):
            yield f"{where(path, line)}: a file is opened for writing: files are written by webui.paths"


def opens_for_writing(name: str, call: ast.Call) -> bool:
    """Whether `open(file, mode)` or `path.open(mode)` has a mode that writes. (`os.open` has flags instead.)"""
    position = 1 if name in ("open", "io.open") else 0
    given = call.args[position] if len(call.args) > position else None
    given = next((word.value for word in call.keywords if word.arg == "mode"), given)
    mode = given.value if isinstance(given, ast.Constant) else ""
    return isinstance(mode, str) and bool(re.fullmatch(r"[rwaxbt+]*[wax+][rwaxbt+]*", mode))


def banned_statements(path: Path) -> Iterator[str]:
    modules = {
        alias.asname or alias.name.split(".")[0]
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ExceptHandler):
            if len(node.body) == 1 and isinstance(node.body[0], ast.Pass):
                yield f"{where(path, node.lineno)}: an error is swallowed"
            if node.type is None:
                yield f"{where(path, node.lineno)}: a bare except"
        if isinstance(node, ast.Global):
            yield f"{where(path, node.lineno)}: global state that functions change"
        if isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in targets:
                if (
                    isinstance(target, ast.Attribute)
                    and isinstance(target.value, ast.Name)
                    and target.value.id in modules
                ):
                    yield f"{where(path, node.lineno)}: {ast.unparse(target)} is patched"
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if re.search(r"\b(TODO|FIXME|XXX|HACK)\b", text):
            yield f"{where(path, number)}: {text.strip()}"


def test_the_rules_see_what_they_forbid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rule that never fires holds nothing: each of these lines breaks one."""
    lines = [
        "import pickle",
        "from urllib import request",
        "from torchvision import ops",
        "eval('1')",
        "import os; os.system('x')",
        "import importlib; importlib.import_module(name)",
        "import torch; torch.load('x')",
        "import torch; torch.load('x', weights_only=False)",
        "open('x', 'w')",
        "open('x', mode='ab')",
        "path.open('r+')",
        "path.write_text('x')",
        "subprocess.run('x', shell=True)",
        "import gradio; gradio.Blocks.launch = None; gradio.version = 1",
        "try:\n    f()\nexcept OSError:\n    pass",
        "try:\n    f()\nexcept:\n    raise",
        "def f():\n    global x",
        "x = 1  # TODO",
    ]
    monkeypatch.setattr(sys.modules[__name__], "REPO_ROOT", tmp_path)
    for number, text in enumerate(lines):
        path = tmp_path / f"bad_{number}.py"
        path.write_text(text)
        assert [*banned_imports(path), *banned_calls(path), *banned_statements(path)], text
    good = tmp_path / "good.py"
    good.write_text("import os\nfrom pathlib import Path\nPath('x').open('rb'); open('x'); os.environ['A'] = 'b'\n")
    assert not [*banned_imports(good), *banned_calls(good), *banned_statements(good)]


@pytest.mark.parametrize("version", ["3.10", "3.12", "3.13"])
def test_every_file_compiles_on_every_supported_python(version: str) -> None:
    python = next(iter(sorted(PYENV.glob(f"{version}.*/bin/python"))), None)
    if python is None:
        pytest.skip(f"no Python {version} here")
    script = (
        "import sys\n"
        "for name in sys.argv[1:]:\n"
        "    with open(name, encoding='utf-8') as file:\n"
        "        compile(file.read(), name, 'exec')\n"
    )
    done = subprocess.run([str(python), "-c", script, *map(str, SOURCES)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr[-1000:]


def newer_names(path: Path) -> Iterator[str]:
    """What Python 3.10 does not have, outside of an `if` about the version: a file with it compiles, and fails."""
    names = "|".join(name or module for module, names in NEWER_THAN_310.items() for name in names)
    if not re.search(rf"\b({names})\b", path.read_text(encoding="utf-8")):
        return  # reading it whole would take longer
    aside = {
        id(node)
        for test in ast.walk(tree(path))
        if isinstance(test, ast.If) and "sys.version_info" in ast.unparse(test.test)
        for node in ast.walk(test)
    }
    for node in ast.walk(tree(path)):
        used: list[tuple[str, str]] = []
        if isinstance(node, ast.Import):
            used = [(alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            used = [(node.module or "", name) for name in ("", *(alias.name for alias in node.names))]
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            used = [(node.value.id, node.attr)]
        elif isinstance(node, ast.Name):
            used = [("builtins", node.id)]
        for module, name in used:
            if id(node) not in aside and name in NEWER_THAN_310.get(module, ()):
                yield f"{where(path, node.lineno)}: Python 3.10 has no {module}{'.' * bool(name)}{name}"


def test_nothing_is_used_that_the_oldest_python_does_not_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = [*SOURCES, *sorted((REPO_ROOT / "extensions").rglob("*.py"))]
    assert not (wrong := [line for path in shipped for line in newer_names(path)]), "\n".join(wrong)
    monkeypatch.setattr(sys.modules[__name__], "REPO_ROOT", tmp_path)
    newer = (
        "from typing import Any, Self",
        "import tomllib",
        "import enum; enum.StrEnum",
        "raise ExceptionGroup('', [])",
    )
    for number, text in enumerate(newer):
        path = tmp_path / f"newer_{number}.py"
        path.write_text(text)
        assert list(newer_names(path)), text


def test_no_test_imports_a_conftest() -> None:
    """There are several files of that name; which of them would be found depends on the order of the tests."""
    tests = sorted((REPO_ROOT / "tests").rglob("*.py"))
    found = [
        where(path, line) for path in tests for line, module in imports(path) if module.split(".")[0] == "conftest"
    ]
    assert not found, found


BESIDE_VENV = re.compile(r"(?<![\w./\\-])python3? -m (?!venv\b)|(?<!-m )\bpip3? (?:un)?install\b")


def test_no_command_in_the_texts_or_in_an_advice_is_for_a_python_beside_venv() -> None:
    """All that is installed lies in .venv, so a bare python would not find it, and a bare pip would miss it."""
    assert BESIDE_VENV.search("$ python -m training.own")
    assert BESIDE_VENV.search("(pip install x)")
    assert not BESIDE_VENV.search(".venv/bin/python -m pip install x; python3 app.py")
    texts = [REPO_ROOT / "README.md", REPO_ROOT / "training" / "README.md", *sorted((REPO_ROOT / "docs").glob("*.md"))]
    wrong = [
        f"{where(path, number)}: {line.strip()}"
        for path in texts
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if BESIDE_VENV.search(line)
    ]
    for path in SOURCES:
        if "pip " in path.read_text(encoding="utf-8"):
            documentation = {id(node.value) for node in ast.walk(tree(path)) if isinstance(node, ast.Expr)}
            wrong += [
                f"{where(path, node.lineno)}: {node.value[:80]}"
                for node in ast.walk(tree(path))
                if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation
                if BESIDE_VENV.search(node.value)
            ]
    assert not wrong, "\n".join(wrong)


# --- packages --------------------------------------------------------------------------------------------------------


def test_every_package_that_is_imported_is_named_in_the_requirements() -> None:
    named = {name.lower() for name in (*requirements("requirements.txt"), *requirements("requirements-mcp.txt"))}
    missing = set()
    for path in SOURCES:
        for line, module in imports(path):
            root = module.split(".")[0]
            if root not in sys.stdlib_module_names and root != "webui":
                package = PACKAGE_OF.get(root, root).lower()
                if package not in named | OPTIONAL:
                    missing.add(f"{package} ({where(path, line)})")
    assert not missing, sorted(missing)


@pytest.mark.parametrize("name", FLOORS)
def test_no_version_with_a_known_hole_is_allowed_or_installed(name: str) -> None:
    asked = requirements("requirements.txt")[name]
    lowest = max(Version(spec.version) for spec in asked.specifier if spec.operator in (">=", "==", "~="))
    assert lowest >= Version(FLOORS[name])
    assert Version(metadata.version(name)) >= Version(FLOORS[name])


def test_torch_is_held_below_the_builds_that_most_drivers_cannot_run() -> None:
    torch = requirements("requirements.txt")["torch"].specifier
    assert torch.contains("2.10.0")
    assert torch.contains("2.13.0")
    assert not torch.contains("2.14.0")


def test_torchvision_is_not_installed_and_nothing_that_is_asked_for_brings_it() -> None:
    with pytest.raises(metadata.PackageNotFoundError):
        metadata.version("torchvision")
    seen: set[str] = set()
    waiting = [*requirements("requirements.txt"), *requirements("requirements-dev.txt")]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        try:
            needed = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        for entry in map(Requirement, needed):
            if entry.marker is None or entry.marker.evaluate({"extra": ""}):
                assert entry.name.lower() != "torchvision", name
                waiting.append(entry.name)


def test_xformers_is_asked_for_only_where_it_has_a_wheel() -> None:
    marker = requirements("requirements.txt")["xformers"].marker
    assert marker is not None

    def asked(platform: str, machine: str) -> bool:
        return bool(marker.evaluate({"sys_platform": platform, "platform_machine": machine}))

    assert asked("linux", "x86_64")
    assert asked("win32", "AMD64")
    assert not asked("linux", "aarch64")
    assert not asked("darwin", "arm64")
    assert not asked("darwin", "x86_64")


def test_no_requirement_names_an_index() -> None:
    for name in ("requirements.txt", "requirements-dev.txt", "requirements-mcp.txt"):
        text = (REPO_ROOT / name).read_text(encoding="utf-8")
        assert "://" not in text
        assert "--index" not in text
        assert "--extra-index" not in text


# --- the repository --------------------------------------------------------------------------------------------------


def test_no_tracked_file_is_too_large_to_be_cloned_in_comfort() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=REPO_ROOT, capture_output=True, text=True)
    if listed.returncode != 0:
        pytest.skip("not a clone")
    sizes = {
        name: (REPO_ROOT / name).stat().st_size for name in listed.stdout.split("\0") if (REPO_ROOT / name).is_file()
    }
    assert sizes
    assert {name: size for name, size in sizes.items() if size > 58 * 10**6} == {}
