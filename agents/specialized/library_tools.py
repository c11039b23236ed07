"""Runs radon, bandit, interrogate and a syntax check; a program of its own, started by `inspection`.

It is one because these are libraries that parse hostile files in Python: a file that takes for ever, needs
all memory or brings the interpreter down must not do so to a worker. It imports nothing of Callboard.

Reads one JSON object from standard input: {"tools": [...], "paths": [...], "memory": bytes, "cpu": seconds}.
Writes one JSON object per line and file: {"path": ..., "error": ..., "<tool>": ...}.
"""

import ast
import contextlib
import json
import logging
import resource
import sys
import tokenize
import warnings
from collections.abc import Callable
from typing import Any

MOST_PER_FILE = 500


def outline(path: str, _: bytes, tree: ast.Module) -> dict[str, Any]:
    """Tell what a module defines, imports, and how much it decides."""
    defined: list[str] = []
    imported: set[str] = set()
    decisions = 0
    runs_itself = False
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            defined.append(node.name)
        elif isinstance(node, ast.Import):
            imported.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = "." * node.level + (node.module or "")
            imported.update({start, *(f"{start.rstrip('.')}.{alias.name}" for alias in node.names)})
        elif isinstance(node, ast.If | ast.For | ast.AsyncFor | ast.While | ast.ExceptHandler | ast.IfExp):
            decisions += 1
        elif isinstance(node, ast.BoolOp):
            decisions += len(node.values) - 1
    for statement in tree.body:
        runs_itself |= isinstance(statement, ast.If) and "__main__" in ast.unparse(statement.test)[:200]
    return {
        "path": path,
        "defined": defined[:MOST_PER_FILE],
        "imported": sorted(imported)[:MOST_PER_FILE],
        "decisions": decisions,
        "runs_itself": runs_itself,
    }


def complexity(_: str, __: bytes, tree: ast.Module) -> list[dict[str, Any]]:
    """Give the functions and methods that radon ranks C or worse."""
    from radon.complexity import cc_rank  # noqa: PLC0415 (only who asks for a tool pays for it)
    from radon.visitors import ComplexityVisitor, Function  # noqa: PLC0415 (as above)

    visitor = ComplexityVisitor.from_ast(tree)
    blocks = [*visitor.functions, *(method for found in visitor.classes for method in found.methods)]
    return [
        {"name": block.fullname, "line": block.lineno, "complexity": block.complexity, "rank": rank}
        for block in blocks
        if isinstance(block, Function) and (rank := cc_rank(block.complexity)) not in {"A", "B"}
    ][:MOST_PER_FILE]


def docstrings(path: str, _: bytes, tree: ast.Module) -> dict[str, Any]:
    """Tell which public modules, classes, functions and methods have a docstring."""
    from interrogate.config import InterrogateConfig  # noqa: PLC0415 (as above)
    from interrogate.visit import CoverageVisitor  # noqa: PLC0415 (as above)

    asked = InterrogateConfig(
        ignore_init_method=True,
        ignore_magic=True,
        ignore_nested_functions=True,
        ignore_nested_classes=True,
        ignore_overloaded_functions=True,
        ignore_private=True,
        ignore_property_decorators=False,
        ignore_property_setters=True,
        ignore_semiprivate=True,
    )
    visitor = CoverageVisitor(path, asked)
    visitor.visit(tree)
    # A private class's methods are no public API either, which interrogate does not know.
    public = [node for node in visitor.nodes if not _in_private(node)]
    missing = [
        {"what": node.node_type, "name": node.path.partition(":")[2] or node.name, "line": node.lineno or 1}
        for node in public
        if not node.covered
    ]
    return {"public": len(public), "missing": missing[:MOST_PER_FILE], "missing_count": len(missing)}


def security(path: str, _: bytes, __: ast.Module) -> list[dict[str, Any]]:
    """Give what bandit finds, whatever the repository's own bandit configuration says."""
    from bandit.core.config import BanditConfig  # noqa: PLC0415 (as above)
    from bandit.core.manager import BanditManager  # noqa: PLC0415 (as above)

    if not _bandit:
        logging.getLogger("bandit").setLevel(logging.CRITICAL)
        _bandit.append(BanditManager(BanditConfig(), "file"))
    manager = _bandit[0]
    manager.results = []
    manager.files_list = [path]
    manager.run_tests()
    return [
        {
            "rule": issue.test_id,
            "line": issue.lineno,
            "severity": issue.severity.lower(),
            "message": issue.text,
        }
        for issue in manager.results
    ][:MOST_PER_FILE]


TOOLS: dict[str, Callable[[str, bytes, ast.Module], Any]] = {
    "complexity": complexity,
    "docstrings": docstrings,
    "outline": outline,
    "security": security,
}
_bandit: list[Any] = []


def look_at(path: str, tools: list[str]) -> dict[str, Any]:
    """Run tools on one file."""
    report: dict[str, Any] = {"path": path, "error": None}
    try:
        with open(path, "rb") as file:  # noqa: PTH123 (pathlib takes longer to import than this takes to run)
            content = file.read()
        tree = ast.parse(content, path)
        compile(tree, path, "exec", dont_inherit=True)
    except (SyntaxError, ValueError, LookupError, tokenize.TokenError) as error:
        line = getattr(error, "lineno", None)
        report |= {
            "error": f"{type(error).__name__}: {getattr(error, 'msg', None) or error}"[:300],
            "line": line,
        }
        return report
    except (RecursionError, MemoryError) as error:
        report["error"] = f"cannot be parsed: {type(error).__name__}"
        return report
    for tool in tools:
        try:
            report[tool] = TOOLS[tool](path, content, tree)
        except (RecursionError, MemoryError, ValueError) as error:
            report["error"] = f"{tool} gave up: {type(error).__name__}"
    return report


def _in_private(node: Any) -> bool:
    while node is not None:
        name = node.name
        if node.node_type != "Module" and name.startswith("_") and not name.endswith("__"):
            return True
        node = node.parent
    return False


def main() -> None:
    """Look at the files that standard input names."""
    wanted = json.load(sys.stdin)
    with contextlib.suppress(ValueError, OSError):  # not every system lets a process limit its memory
        resource.setrlimit(resource.RLIMIT_AS, (wanted["memory"],) * 2)
    resource.setrlimit(resource.RLIMIT_CPU, (wanted["cpu"],) * 2)
    warnings.simplefilter("ignore")
    for path in wanted["paths"]:
        print(json.dumps(look_at(path, wanted["tools"])), flush=True)  # noqa: T201 (this is its output)


if __name__ == "__main__":
    main()
