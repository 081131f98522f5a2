"""Which modules of a package a source file imports, in whatever spelling: read from the file, without running it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

LOADERS = ("import_module", "__import__")


class Package:
    """The sources of one package, below `root`; modules are named without the package: `training.trainer`.

    They are read once, as they are when they are first asked for.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.name = root.name
        self._trees: dict[str, ast.Module] = {}

    @cached_property
    def files(self) -> dict[str, Path]:
        """Module -> file. A package's name stands for its `__init__`, and "" for that of the whole."""
        paths = sorted(self.root.rglob("*.py"))
        named = {".".join(p.relative_to(self.root).with_suffix("").parts): p for p in paths}
        return {name.removesuffix("__init__").removesuffix("."): path for name, path in named.items()}

    def tree(self, module: str) -> ast.Module:
        """The syntax tree of a module."""
        if module not in self._trees:
            self._trees[module] = ast.parse(self.files[module].read_text())
        return self._trees[module]

    def imports(self, module: str) -> set[str]:
        """Modules of this package that `module` imports, anywhere in its file, for type checkers as well.

        A name that is no module (`from a import function`) leads to the module that it is taken from.

        Raises:
            AssertionError: an import that cannot be read: `import *`, or a computed name.
        """
        return {self._module(name) for name in set(self._asked(module))} - {module}

    def foreign(self, module: str) -> set[str]:
        """Packages of others that `module` imports: `torch`."""
        nodes = list(ast.walk(self.tree(module)))
        plain = {alias.name for n in nodes if isinstance(n, ast.Import) for alias in n.names}
        taken = {n.module for n in nodes if isinstance(n, ast.ImportFrom) and n.module and not n.level}
        return {name.partition(".")[0] for name in plain | taken} - {self.name}

    def closure(self, modules: set[str]) -> set[str]:
        """`modules` with all that they import, directly or through others, and the `__init__` of every package passed.

        Raises:
            AssertionError: an import that cannot be read.
        """
        found: set[str] = set()
        waiting = set(modules)
        while waiting:
            module = waiting.pop()
            found.add(module)
            waiting |= (self.imports(module) | set(_packages_of(module))) - found
        return found

    def _asked(self, module: str) -> Iterator[str]:
        """Full dotted names below the package that the file imports or reaches through `import moe_sweeps`."""
        own = ".".join(filter(None, (self.name, module)))
        package = own if self.files[module].name == "__init__.py" else own.rpartition(".")[0]
        for node in ast.walk(self.tree(module)):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                base = _absolute(package, node.level, node.module or "")
                assert base.partition(".")[0] != self.name or node.names[0].name != "*", f"{own}: from {base} import *"
                names = [f"{base}.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in LOADERS:
                names = self._loaded(node, module, package)
            elif isinstance(node, ast.Attribute):  # import moe_sweeps; moe_sweeps.training.trainer
                names = [ast.unparse(node)] if _is_dotted(node) else []
            yield from (n.removeprefix(f"{self.name}.") for n in names if n.startswith(f"{self.name}."))

    def _loaded(self, call: ast.Call, module: str, package: str) -> list[str]:
        """What `import_module("a.b")` loads; of `import_module(names[key])` every module that the file names in full.

        `import_module(f"{__name__}.{name}")`, by which a package loads its own modules, leads nowhere else.
        """
        said = call.args[0] if call.args else None
        if isinstance(said, ast.Constant) and isinstance(said.value, str):
            level = len(said.value) - len(said.value.lstrip("."))
            return [_absolute(package, level, said.value.lstrip("."))]
        computed = ast.unparse(said) if said else ""
        unread = f"{self.name}.{module}: import_module({computed}) cannot be read; name the module in full"
        assert self.name not in computed, unread
        strings = [n.value for n in ast.walk(self.tree(module)) if isinstance(n, ast.Constant)]
        prefix = f"{self.name}."
        return [
            s for s in strings if isinstance(s, str) and s.startswith(prefix) and s.removeprefix(prefix) in self.files
        ]

    def _module(self, name: str) -> str:
        """The module that `name` is, or lies in; of a dotted name that is not there its first part."""
        room = name.partition(".")[0] if "." in name else ""
        while name and name not in self.files:
            name = name.rpartition(".")[0]
        return name or room


def _absolute(package: str, level: int, name: str) -> str:
    """`from ..a import b` in `package`, as a full name."""
    if not level:
        return name
    parts = package.split(".")
    return ".".join(filter(None, (*parts[: len(parts) - level + 1], name)))


def _packages_of(module: str) -> Iterator[str]:
    """`a.b.c` -> `a.b`, `a`, and the whole: their `__init__` files run first."""
    while module:
        module = module.rpartition(".")[0]
        yield module


def _is_dotted(node: ast.expr) -> bool:
    while isinstance(node, ast.Attribute):
        node = node.value
    return isinstance(node, ast.Name)
