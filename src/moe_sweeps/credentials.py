"""API keys of other services are hidden: they belong in the environment or in a service's own files, never in ours.

A key is recognised by its name (`export WANDB_API_KEY="..."`, `Authorization: Bearer ...`), by its form (`hf_...`, a
private key, a password in an address), or because it is in this process's environment. A reference to a key
(`$HF_TOKEN`, `$(cat FILE)`) is not hidden.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator

HIDDEN = "***"
_SHORTEST = 8  # shorter values are not keys, and hiding them would make messages unreadable
# The end of a name that says what it is, in any case, with _ or - or nothing in between: HF_TOKEN, apiKey, db-password.
_SECRET_NAME = (
    r"(?:api[_-]?key|access[_-]?key(?:[_-]?id)?|secret(?:[_-]?(?:access[_-]?)?key)?|private[_-]?key|auth[_-]?key"
    r"|token|passw(?:or)?d|passphrase|credentials?)"
)
# `token` alone is a word of this field (name="cost per token: low"). It names a key only as an environment variable
# (HF_TOKEN), with an owner (access_token), or if the value looks like a key.
_OWNED = r"(?:auth|access|api|hf|secret|session|bearer|refresh|github|gitlab|wandb|private|id)[_-]?token"
_NAME = rf"(?<![\w-])[\w-]*{_SECRET_NAME}(?:_?\d|_READ|_WRITE)?"
# Not keys: $VARIABLE, $(command), a number or switch, the id of a secret kept elsewhere, what is hidden already.
_NO_KEY = r"(?:\d{1,2}|(?<=token=)\d{1,7}|true|false|yes|no|on|off|none|null)(?![^\s'\"\],;)}])"
_REFERENCE = (
    rf"(?!\$(?!')|[-=?+](?:\$|\*\*\*)|`|\*\*\*|<|%\(|id=|{_NO_KEY}|(?<=:)/|~/|/(?:[\w.+-]+/)*[\w+-]+\.\w+(?![\w/+=])"
    r"|[\w.-]+,(?:type|target|source|src)=)"
)
_QUOTED = rf"(?:\$?\\?\"{_REFERENCE}[^\"\n]+?\\?\"|\$?\\?'{_REFERENCE}[^'\n]+?\\?')"
_BARE = rf"{_REFERENCE}[^\s'\"\],;)}}]+"
_VALUE = rf"(?:{_QUOTED}|{_BARE})"
# NAME=value, NAME: value, --name value. A value of several words must be quoted.
_ASSIGNED = re.compile(rf"(?i)({_NAME}[\"']?\s*\+?[=:]\s*|(?<![\w-])--[\w-]*{_SECRET_NAME}\s+){_VALUE}")
_BARE_TOKEN = re.compile(r"(?:^|(?<=\w)[-_])[Tt]oken[\"']?\s*\+?[=:]?\s*\Z")
_IS_OWNED = re.compile(rf"(?i)(?:^|[-_]){_OWNED}\W*\Z")
_LOOKS_RANDOM = re.compile(r"[\"']?(?=[^\s/]*\d)(?=[^\s/]*[A-Za-z])[^\s/]{6,}")
# KEY and PASS are weaker signs: they count in names of environment variables, for values that look random.
_NAMED_IN_CAPITALS = re.compile(
    r"((?<![\w-])[A-Z][A-Z0-9_]*_(?:KEY|PASS)=[\"']?)(?=[A-Za-z_-]*\d)(?=[\d_-]*[A-Za-z])[A-Za-z0-9_+/-]{7,}={0,2}"
)
_SETENV = re.compile(rf"(?i)(\bsetenv\s+\w*{_SECRET_NAME}\s+){_VALUE}")
# In source code `token = tokens[0]` is not a key: there the value must be a string literal without spaces.
_ASSIGNED_IN_CODE = re.compile(
    rf"(?i)({_NAME}[\"']?\]?(?:[ ]*:[ ]*str)?[ ]*[=:][ ]*[bfr]?)"
    rf"(\\?\"{_REFERENCE}[^\"\s{{]{{{_SHORTEST},}}?\\?\"|'{_REFERENCE}[^'\s{{]{{{_SHORTEST},}}')"
)
# setdefault("HF_TOKEN", "...")
_SET_IN_CODE = re.compile(
    r"((?<![\w-])[A-Z0-9_]*(?:KEY|SECRET|TOKEN|PASSWORD|PASSWD|CREDENTIALS)[\"'],[ ]*[bfr]?)"
    rf"(\"[^\"\s{{]{{{_SHORTEST},}}\"|'[^'\s{{]{{{_SHORTEST},}}')"
)
_SAID = re.compile(
    r"(?i)((?:authorization[\"']?\s*[:=]\s*[\"']?)(?:(?:bearer|basic|token)\s++)?+)(?!\$|`|\*\*\*|<|\{)[^\s'\"\],;)}]+"
)
_BEARER = re.compile(r"(?i)(\bbearer\s+)(?=\S*\d)[\w.~+/-]{16,}=*")
_OPTIONS = r"(?:--(?:host|entity)[\s=]\S++\s++|-\S++\s++)*+"
_LOGIN = re.compile(
    rf"(\bwandb\s+login\s+{_OPTIONS}|\bcurl\s.{{0,200}}?(?:-u|--user)[\s=]+[\"']?|\blogin\(\s*(?:key\s*=\s*)?[\"'])(?!-|https?://)"
    + _BARE
)
# ${HF_TOKEN:-literal}: the shell uses the literal where the variable is not set.
_DEFAULT = re.compile(rf"(?i)(\$\{{\w*{_SECRET_NAME}(?:_?\d|_READ|_WRITE)?:?[-=])(?!\$|\*\*\*)[^}}\s]+(?=\}})")
# -p takes a password in these commands; of mysql's only what is joined to it.
_SHORT_OPTION = re.compile(
    r"(\b(?:docker|podman|helm|oc|az|skopeo|buildah)\s+(?:registry\s+)?login\s(?:[^|;&\n]{0,200}?\s)??-p[\s=]*[\"']?"
    r"|\bsshpass\s+-p\s*[\"']?|\b(?:mysql|mysqldump|mysqladmin|mariadb)\s(?:[^|;&\n]{0,200}?\s)??-p[\"']?(?=\S))"
    rf"(?!-){_BARE}"
)
# Second alternative: a long random user name without a password is a token. git@host of ssh is not.
_ADDRESS = re.compile(
    r"((?<![a-z0-9+.-])[a-z][a-z0-9+.-]*://(?:[^\s/:@'\"]*:)?+)(?!\$|\{)"
    r"(?:(?<=[^/]:)|(?<=//:)|(?=[^\s/@]{20})(?=[^\s/@]*\d))[^\s/@'\"]+(?=@)"
)
_SIGNED = re.compile(r"([?&](?:sig|signature|x-amz-signature|x-goog-signature)=)[^\s&'\"\],]{8,}", re.IGNORECASE)
# Key formats that services publish so that such checks can find them.
_FORMS = re.compile(
    "|".join(
        (
            r"\bhf_[A-Za-z0-9]{30,}",  # Hugging Face
            r"\bwandb_v\d_[A-Za-z0-9_]{20,}",
            r"\b(?:ghp|gho|ghu|ghs|ghr)_[A-Za-z0-9]{36,}|\bgithub_pat_[A-Za-z0-9_]{40,}",
            r"\bglpat-[A-Za-z0-9_-]{20,}",
            r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b",  # AWS
            r"\bAIza[A-Za-z0-9_-]{35}",  # Google
            r"\bsk-(?=[\w-]*\d)(?=[\w-]*[A-Z])[\w-]{20,}",  # OpenAI, Anthropic; no name of a run
            r"\bgsk_[A-Za-z0-9]{40,}|\b[rs]k_live_[A-Za-z0-9]{20,}",  # Groq, Stripe
            r"\bxox[abeoprs]-[A-Za-z0-9-]{10,}",  # Slack
            r"\bnpm_[A-Za-z0-9]{36}|\bpypi-[A-Za-z0-9_-]{50,}",
            r"\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]+",  # a JSON web token
            r"-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)",
        )
    )
)
_OF_A_SECRET = re.compile(rf"(?i){_SECRET_NAME}$")


def without_keys(text: str) -> str:
    """`text` with every key replaced by ***: those recognised by name, by form, or from this environment."""
    text = _ASSIGNED.sub(_hidden_where_named, _DEFAULT.sub(rf"\g<1>{HIDDEN}", text))
    for pattern in (_NAMED_IN_CAPITALS, _SETENV, _SAID, _BEARER, _LOGIN, _SHORT_OPTION, _ADDRESS, _SIGNED):
        text = pattern.sub(rf"\g<1>{HIDDEN}", text)
    return _without_known_keys(text)


def without_keys_in_code(text: str) -> str:
    """The same for source code, where a variable called token mostly holds a token of text."""
    for pattern in (_ASSIGNED_IN_CODE, _SET_IN_CODE, _NAMED_IN_CAPITALS, _BEARER, _LOGIN, _ADDRESS, _SIGNED):
        text = pattern.sub(rf"\g<1>{HIDDEN}", text)
    return _without_known_keys(text)


def without_keys_in_diff(diff: str) -> str:
    """The same for a git diff: Python and C++ files are code, all others are settings and shell."""
    files = re.split(r"^(?=diff --git )", diff, flags=re.MULTILINE)
    return "".join((without_keys_in_code if _is_code(file) else without_keys)(file) for file in files)


def _is_code(file: str) -> bool:
    return file.partition("\n")[0].rstrip('"').endswith((".py", ".cpp"))


def _hidden_where_named(found: re.Match[str]) -> str:
    """Hide the value, unless the name is a bare `token` and the value does not look like a key."""
    name, value = found[1], found[0][len(found[1]) :]
    says_little = _BARE_TOKEN.search(name) and not _IS_OWNED.search(name)
    return found[0] if says_little and not _LOOKS_RANDOM.match(value) else f"{name}{HIDDEN}"


def has_key(text: str) -> bool:
    """Whether `without_keys` would hide something."""
    return without_keys(text) != text


def hide_keys_in_logs() -> None:
    """Filter everything that this process logs from now on through `without_keys`."""
    for handler in logging.getLogger().handlers:
        handler.setFormatter(_Hiding(handler.formatter or logging.Formatter()))


class _Hiding(logging.Formatter):
    """Formats as `inner` does, without keys."""

    def __init__(self, inner: logging.Formatter) -> None:
        super().__init__()
        self._inner = inner

    def format(self, record: logging.LogRecord) -> str:
        return without_keys(self._inner.format(record))


def _without_known_keys(text: str) -> str:
    text = _FORMS.sub(HIDDEN, text)
    for value in _own_keys():
        text = text.replace(value, HIDDEN)
    return text


def _own_keys() -> Iterator[str]:
    """Values of environment variables that are named like keys, the longest first."""
    named = {v for name, v in os.environ.items() if len(v) >= _SHORTEST and _OF_A_SECRET.search(name)}
    yield from sorted((v for v in named if not v.startswith(("/", "~/"))), key=len, reverse=True)  # a path is no key
