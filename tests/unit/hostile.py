"""One corpus of texts that would act somewhere, and a scanner of LaTeX."""

from __future__ import annotations

import re

HOSTILE = (
    "\\input{/etc/passwd}\n\\immediate\\write18{touch pwned}",
    "% comment\n\\input{x}",
    "x}\\input{y}{%",
    "^^5cinput{z} #1 ~ & $x^2$ \\[ a \\]",
    "a\n\n# heading\n\n- item",
    "| cell | cell |\n|---|---|",
    "`code` ``` *bold* _it_ **b** ~~s~~ $\\frac{1}{2}$",
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onclick='alert(1)' x='",
    "</style></title><b>bold",
    "&lt;b&gt; &#60; &copy;",
    "[text](javascript:alert(1))",
    "![picture](http://127.0.0.1/x.png)",
    "<http://127.0.0.1/> http://127.0.0.1/a www.example.invalid a@example.invalid",
    "[a]: javascript:alert(1)",
    "[red]red[/red] [link=http://127.0.0.1/]here[/link] [/]",
    "\x1b[31mred\x1b[0m \x1b[2J\x1b]0;title\x07",
    "\x1b]8;;http://127.0.0.1/\x1b\\link\x1b]8;;\x1b\\",
    "\x9b31m\x9d0;title\x9c",
    "a\rover\x08\x08\x7f",
    "user\u202egnp.exe\u2066x\u2069\u200b\ufeff",
    "half \ud800 and \udfff",
    "nul \x00 end",
    "line\u2028separator\u2029next\x85last",
    "=HYPERLINK(\"http://127.0.0.1/\",\"x\")",
    "+1+cmd|' /C calc'!A0",
    "-2+3",
    "@SUM(A1)",
    "\t=1+1",
    "＝1+1",
    "'quoted', \"twice\"; a,b",
    "👩\u200d🔬 emoji 😀 :smile:",
    "[ begins with a bracket",
    "* begins with a star",
    "_ begins with an underscore",
    "# hash",
    "> quotation",
    "1. list",
    "    four spaces",
    "../../../../tmp/pwned",
    "..",
    "/etc/passwd",
    "a/b\\c",
    "%s %n {0} {x}",
    "--help",
    "a--b---c ``q'' ?` !`",
    "ÐŁø α→β 数 ± ≤",
    "long " * 400,
)  # fmt: skip

# What escape(), the floats and booktabs write; anything else came out of a text.
_ESCAPES = """textbackslash textasciitilde textasciicircum textbar texttt pm times Delta dots cdot to le ge alpha beta
gamma delta epsilon eta theta kappa lambda mu nu pi rho sigma tau phi chi psi omega"""
_FLOATS = """begin caption label centering fontsize selectfont setlength tabcolsep raggedright arraybackslash toprule
midrule bottomrule end textcolor"""
COMMANDS, FLOATS = frozenset(_ESCAPES.split()), frozenset(_FLOATS.split())


def latex_problems(text: str, allowed: frozenset[str] = COMMANDS) -> list[str]:
    """Commands, comments, parameters and groups in `text` that LaTeX would act on and that are not `allowed`."""
    found = [f"\\{name}" for name in re.findall(r"\\([A-Za-z@]+)", _without_pairs(text)) if name not in allowed]
    bare = re.sub(r"\\(?:[A-Za-z]+|[&%$#_{}\\])", "", text)
    found += re.findall(r"\^\^|[%#^~]", bare)
    found += re.findall(r"[^\n\x20-\x7e¡-ſ]", bare)
    plain_math = re.sub(r"\$(?:[-<>]|\\[A-Za-z]+)\$", "", re.sub(r"\\\$", "", text))
    found += re.findall(r"\$", plain_math)
    braces = re.sub(r"\\[{}]", "", text)
    depth = 0
    for character in braces:
        depth += (character == "{") - (character == "}")
        if depth < 0:
            return [*found, "unbalanced }"]
    return [*found, "unbalanced {"] if depth else found


def _without_pairs(text: str) -> str:
    """Without \\\\, which ends a row, and without escaped characters."""
    return re.sub(r"\\[^A-Za-z]", "", text)
