"""What a run can execute: sources read and hashed by module, without importing them.

A module's hash is that of its syntax tree without comments, docstrings, imports for type checkers and the
documentation of knobs (`doc=...`, and that of a Choice's members). Imports are followed wherever they stand, in
functions too, with three exceptions, each of them code that the run cannot execute:

- a name that a package only passes on leads to the module that defines it, and not to all that the package imports;
- the config class of an option, used for nothing but `isinstance`, annotations and tables of options, leads nowhere:
  the module counts where the option is chosen;
- what is imported below `if isinstance(config, SomeConfig)` is followed where such an option is chosen.
"""

from __future__ import annotations

import ast
import functools
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

PACKAGE = "moe_sweeps"
# Rooms that cannot change what a run computes: no room that trains imports them.
NOT_TRAINING = frozenset({"cli", "launch", "reports", "results", "sweep", "tracking"})
SHORT = 8  # hexadecimal digits of one file's hash
INSTALLED = ("site-packages", "dist-packages")
LEAVING = (ast.Return, ast.Raise)
Guards = tuple[frozenset[str], ...]


@dataclass(frozen=True, slots=True)
class Import:
    """`from module import names`, or `import module` without names. `guards`: of each a class must be chosen."""

    module: str
    names: tuple[tuple[str, str], ...]  # (name there, name here)
    guards: Guards


@dataclass(frozen=True, slots=True)
class Module:
    """One parsed file. `options`: its config classes; `alive`: names that it calls, subclasses or looks into."""

    digest: str
    imports: tuple[Import, ...]
    options: frozenset[str]
    alive: frozenset[str]


@dataclass(slots=True, eq=False)
class Sources:
    """The sources below `root`, read once when this is made; modules elsewhere are read when they are asked for."""

    root: Path
    _texts: dict[str, tuple[str, bytes]] = field(default_factory=dict)  # module -> file, content
    _elsewhere: list[tuple[Path, str | None]] = field(default_factory=list)  # folder, the one package of it that counts
    _kernels: dict[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        package = self.root / PACKAGE
        for path in sorted(path for pattern in ("*.py", "*.cpp", "*.h") for path in package.rglob(pattern)):
            relative = path.relative_to(package)
            if relative.parts[0] in NOT_TRAINING:
                continue
            if path.suffix != ".py":
                self._kernels[relative.as_posix()] = path.read_bytes()
            else:
                name = ".".join((PACKAGE, *relative.with_suffix("").parts)).removesuffix(".__init__")
                self._texts[name] = (relative.as_posix(), path.read_bytes())

    def executed(self, roots: Iterable[str], chosen: frozenset[str] = frozenset()) -> dict[str, str]:
        """File -> short hash of every module that `roots` can execute where the classes `chosen` are chosen."""
        found: dict[str, str] = {}
        waiting = list(roots)
        while waiting:
            name = waiting.pop()
            file = self.file(name)
            if file in found:
                continue
            module = self._parsed(name)
            found[file] = module.digest if module else "unknown"
            taken = [i for i in module.imports if all(chosen & g for g in i.guards)] if module else []
            waiting += [target for one in taken for target in self._targets(one, module)]
        return found

    def kernels(self) -> dict[str, str]:
        """File -> short hash of the C++ sources."""
        return {file: _short(content) for file, content in self._kernels.items()}

    def add(self, module: str, file: Path) -> None:
        """Let `module`, which lies in `file` outside of this package, be found, and what it imports from beside it."""
        if module in self._texts:
            return
        try:
            name = module.removeprefix(f"{PACKAGE}.").replace(".", "/")
            place = f"{name}/__init__.py" if file.name == "__init__.py" else f"{name}.py"
            self._texts[module] = (place, file.read_bytes())
        except OSError:
            return
        depth = module.count(".") + (file.name == "__init__.py")
        folder = file.parents[depth] if depth < len(file.parents) else file.parent
        package = module.partition(".")[0] if folder.name in INSTALLED or module.startswith(f"{PACKAGE}.") else None
        if (folder, package) not in self._elsewhere:
            self._elsewhere.append((folder, package))

    def _targets(self, one: Import, importer: Module | None) -> Iterator[str]:
        """The modules that an import leads to."""
        if not one.names:
            yield from (one.module,) if self._has(one.module) else ()
        for name, here in one.names:
            yield from self._defining(one.module, name, importer is not None and here in importer.alive)

    def _defining(self, module: str, name: str, alive: bool, depth: int = 0) -> Iterator[str]:
        """The module that defines `name` of `module`; none for an option's class that is only compared with."""
        if self._has(f"{module}.{name}"):
            yield f"{module}.{name}"
        elif self._has(module):
            parsed = self._parsed(module)
            assert parsed
            for one in parsed.imports if self._is_package(module) and depth < 9 else ():
                there = next((n for n, here in one.names if here == name), None)
                if there is not None:
                    yield from self._defining(one.module, there, alive, depth + 1)
                    return
            if alive or name not in parsed.options:
                yield module

    def file(self, module: str) -> str:
        """The file of a module, relative to the package; of one outside, its name."""
        return self._texts[module][0] if self._has(module) else module

    def _is_package(self, module: str) -> bool:
        return self._texts[module][0].endswith("__init__.py")

    def _has(self, module: str) -> bool:
        """Whether it is ours: of this package, or beside a module that was added."""
        if module in self._texts:
            return True
        for folder, package in self._elsewhere:
            if package in (None, module.partition(".")[0]):
                path = folder.joinpath(*module.split("."))
                for file in (path.with_name(f"{path.name}.py"), path / "__init__.py"):
                    if file.is_file():
                        self._texts[module] = (file.relative_to(folder).as_posix(), file.read_bytes())
                        return True
        return False

    def _parsed(self, module: str) -> Module | None:
        if not self._has(module):
            return None
        file, content = self._texts[module]
        return parsed(module, file.endswith("__init__.py"), content)


@functools.lru_cache(maxsize=4096)
def parsed(name: str, is_package: bool, content: bytes) -> Module | None:
    """One file, each content once a process. A file that is not Python counts by its bytes and imports nothing."""
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError):
        return Module(_short(content), (), frozenset(), frozenset())
    package = name if is_package else name.rpartition(".")[0]
    imports = tuple(_imports(tree.body, package, ()))
    if b"import_module" in content or b"__import__" in content:
        imports += tuple(_literal_imports(tree))
    if is_package:  # what it passes on is followed by name
        tree.body = [s for s in tree.body if not isinstance(s, ast.Import | ast.ImportFrom) and not _is_all(s)]
    return Module(_short(_text(tree).encode()), imports, frozenset(_options(tree)), frozenset(_alive(tree)))


def _is_executed(statement: object) -> bool:
    """False for docstrings, and for what only a type checker reads."""
    if isinstance(statement, ast.Expr):
        return not isinstance(statement.value, ast.Constant)
    return not (isinstance(statement, ast.If) and _is_type_checking(statement.test)) or bool(statement.orelse)


def _is_type_checking(test: ast.expr) -> bool:
    return getattr(test, "id", getattr(test, "attr", None)) == "TYPE_CHECKING"


def _text(node: object) -> str:
    """The tree as text that is the same in every version of Python: absent and empty fields are left out."""
    if isinstance(node, ast.Constant):
        return repr(node.value)
    if isinstance(node, ast.AST):
        fields = ast.iter_fields(_without_documentation(node))
        parts = [f"{k}={_text(v)}" for k, v in fields if v not in (None, []) and k != "type_comment"]
        return f"{type(node).__name__}({','.join(parts)})"
    return f"[{','.join(_text(n) for n in node if _is_executed(n))}]" if isinstance(node, list) else repr(node)


def _without_documentation(node: ast.AST) -> ast.AST:
    """A call of `knob` without its `doc`, the members of a Choice without theirs; anything else as it is."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "knob":
        return ast.Call(node.func, node.args, [k for k in node.keywords if k.arg != "doc"])
    if isinstance(node, ast.ClassDef) and any(isinstance(b, ast.Name) and b.id == "Choice" for b in node.bases):
        return ast.ClassDef(node.name, node.bases, node.keywords, [_bare(s) for s in node.body], node.decorator_list)
    return node


def _bare(member: ast.stmt) -> ast.stmt:
    """`name = value, documentation` as `name = value`."""
    if isinstance(member, ast.Assign) and isinstance(member.value, ast.Tuple):
        return ast.Assign(member.targets, member.value.elts[0])
    return member


def _imports(statements: Iterable[ast.stmt], package: str, guards: Guards) -> Iterator[Import]:
    """Every import below `statements`, with what has to be chosen for it to be executed."""
    for statement in statements:
        if isinstance(statement, ast.Import):
            yield from (Import(alias.name, (), guards) for alias in statement.names)
        elif isinstance(statement, ast.ImportFrom):
            yield _from(statement, package, guards)
        elif isinstance(statement, ast.If):
            here = _classes_asked_for(statement.test)
            if not _is_type_checking(statement.test):
                yield from _imports(statement.body, package, (*guards, *here))
            yield from _imports(statement.orelse, package, guards)
        else:
            for name in ("body", "orelse", "finalbody", "handlers", "cases"):
                yield from _imports(getattr(statement, name, ()), package, guards)
        guards += _asked_for_below(statement)


def _from(statement: ast.ImportFrom, package: str, guards: Guards) -> Import:
    parts = package.split(".")
    above = parts[: len(parts) - statement.level + 1] if statement.level else []
    module = ".".join([*above, *([statement.module] if statement.module else [])])
    names = tuple((a.name, a.asname or a.name) for a in statement.names)
    return Import(module, () if names[0][0] == "*" else names, guards)


def _literal_imports(tree: ast.Module) -> Iterator[Import]:
    """import_module("a.b")."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in ("import_module", "__import__"):
            name = node.args[0] if node.args else None
            if isinstance(name, ast.Constant) and isinstance(name.value, str):
                yield Import(name.value, (), ())


def _asked_for_below(statement: ast.stmt) -> Guards:
    """What the statements after this one may rely on: `if not isinstance(c, SomeConfig): return`, or an assertion."""
    if isinstance(statement, ast.Assert):
        return _classes_asked_for(statement.test)
    if not isinstance(statement, ast.If) or statement.orelse or not isinstance(statement.body[-1], LEAVING):
        return ()
    denied = [t.operand for t in _parts(statement.test, ast.Or) if isinstance(t, ast.UnaryOp) and _is_not(t)]
    return tuple(guard for test in denied for guard in _classes_asked_for(test))


def _classes_asked_for(test: ast.expr) -> Guards:
    """The config classes of `isinstance(x, A) and ...`; nothing of a test that may be true without it."""
    found = []
    for call in _parts(test, ast.And):
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "isinstance" and len(call.args) == 2:
            names = frozenset(n.rpartition(".")[2] for n in _alternatives(call.args[1]))
            if names and all(n.endswith("Config") for n in names):
                found.append(names)
    return tuple(found)


def _parts(test: ast.expr, joined: type[ast.boolop]) -> list[ast.expr]:
    """What a test joins by `and`, or by `or`."""
    return test.values if isinstance(test, ast.BoolOp) and isinstance(test.op, joined) else [test]


def _is_not(test: ast.UnaryOp) -> bool:
    return isinstance(test.op, ast.Not)


def _alternatives(classes: ast.expr) -> list[str]:
    if isinstance(classes, ast.Tuple):
        return [name for one in classes.elts for name in _alternatives(one)]
    if isinstance(classes, ast.BinOp):
        return [*_alternatives(classes.left), *_alternatives(classes.right)]
    return [ast.unparse(classes)]


def _options(tree: ast.Module) -> Iterator[str]:
    """The config classes of a module that registers options: those registered, and what they have in common."""
    classes = [s for s in tree.body if isinstance(s, ast.ClassDef)]
    marks = {c.name: {ast.unparse(d).partition("(")[0].rpartition(".")[2] for d in c.decorator_list} for c in classes}
    if any("component" in found for found in marks.values()):
        yield from (n for n, found in marks.items() if "component" in found or n.endswith("Config"))


def _alive(tree: ast.Module) -> Iterator[str]:
    """Names that are called, subclassed or looked into."""
    for node in ast.walk(tree):
        used = []
        if isinstance(node, ast.ClassDef):
            used = node.bases
        elif isinstance(node, ast.Call):
            used = [node.func]
        elif isinstance(node, ast.Attribute):
            used = [node.value]
        yield from (name.id for name in used if isinstance(name, ast.Name))


def _is_all(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "__all__"


def _short(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:SHORT]
