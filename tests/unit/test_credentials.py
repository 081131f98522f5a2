"""Keys of other services stay out of everything that is written."""

from __future__ import annotations

import dataclasses
import io
import logging
import time
from pathlib import Path

import pytest
from helpers import compose_run

from moe_sweeps.config.groups import SlurmConfig
from moe_sweeps.credentials import has_key, hide_keys_in_logs, without_keys, without_keys_in_code, without_keys_in_diff
from moe_sweeps.errors import ConfigError
from moe_sweeps.experiment.freeze import freeze
from moe_sweeps.experiment.provenance import command_line
from moe_sweeps.paths import REPOSITORY
from moe_sweeps.records.rundir import RunDir

KEY = "0123456789abcdef0123456789abcdef01234567"


def test_values_of_the_environment_are_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("HF_TOKEN", "on")  # too short to be one
    assert without_keys(f"login with {KEY} went on") == "login with *** went on"


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("launch.setup=['export WANDB_API_KEY=abc']", "launch.setup=['export WANDB_API_KEY=***']"),
        ("HF_TOKEN=abc python train.py seed=1", "HF_TOKEN=*** python train.py seed=1"),
        ("""launch.setup=['export WANDB_API_KEY="a b"']""", "launch.setup=['export WANDB_API_KEY=***']"),
        ("""launch.setup=["export WANDB_API_KEY='ab'"]""", """launch.setup=["export WANDB_API_KEY=***"]"""),
        ("AWS_SECRET_ACCESS_KEY=wJalr/K7+MD AWS_ACCESS_KEY_ID=x1", "AWS_SECRET_ACCESS_KEY=*** AWS_ACCESS_KEY_ID=***"),
        ("export wandb_api_key=abc db-password: hunter2", "export wandb_api_key=*** db-password: ***"),
        ("curl -H 'Authorization: Bearer ab.cd' x", "curl -H 'Authorization: Bearer ***' x"),
        ("run --auth-token s3cret --steps 3", "run --auth-token *** --steps 3"),
        ("wandb login 0123456789abcdef", "wandb login ***"),
        ("data.repo=https://me:s3cret@host/x", "data.repo=https://me:***@host/x"),
        ("token hf_abcdefghijklmnopqrstuvwxyzABCDEFGH ends", "token *** ends"),
        ("-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY-----\n", "***\n"),
        ("SINGULARITYENV_HF_TOKEN=abc", "SINGULARITYENV_HF_TOKEN=***"),
        (
            "export WANDB_KEY=0123456789abcdef AZURE_STORAGE_KEY=x9/abcdefg==",
            "export WANDB_KEY=*** AZURE_STORAGE_KEY=***",
        ),
        ("export DB_PASS=hunter22 PGPASSWORD=123456", "export DB_PASS=*** PGPASSWORD=***"),
        (
            "export HF_TOKEN_READ=abc HF_TOKEN_2=abc HF_TOKEN+=abc",
            "export HF_TOKEN_READ=*** HF_TOKEN_2=*** HF_TOKEN+=***",
        ),
        ("export HF_TOKEN=$'abc'", "export HF_TOKEN=***"),
        ("setenv WANDB_API_KEY abc", "setenv WANDB_API_KEY ***"),
        ("curl --user=me:s3cret x", "curl --user=*** x"),
        ("hf auth login --token abcdefgh", "hf auth login --token ***"),
        (
            "wandb login --relogin --host https://w.org 0123456789abcdef",
            "wandb login --relogin --host https://w.org ***",
        ),
        ("https://0123456789abcdefghijkl@host/x", "https://***@host/x"),
        ("https://host/x?sv=1&sig=abcdefghijk", "https://host/x?sv=1&sig=***"),
        ("token=0a1b2c3d4e", "token=***"),
        ("export HF_TOKEN=${HF_TOKEN:-abcd1}", "export HF_TOKEN=${HF_TOKEN:-***}"),
        ("echo ${wandb_api_key=abcd} ${DB_PASSWORD-abcd}", "echo ${wandb_api_key=***} ${DB_PASSWORD-***}"),
        ("docker login -u me -p s3cret ghcr.io", "docker login -u me -p *** ghcr.io"),
        ("podman login -p=s3cret reg; ls -p x", "podman login -p=*** reg; ls -p x"),
        ("mysql -u me -ps3cret db && mysqldump -p's3cret' db", "mysql -u me -p*** db && mysqldump -p'***' db"),
        ("sshpass -p s3cret ssh host", "sshpass -p *** ssh host"),
    ],
)
def test_assignments_are_hidden(text: str, hidden: str) -> None:
    assert without_keys(text) == hidden


@pytest.mark.parametrize(
    "text",
    [
        "data.tokenizer=bpe trainer.tokens=3 name=password-sweep",
        "export WANDB_API_KEY=$(cat /k) HF_TOKEN=$HF_TOKEN X_SECRET='$OTHER'",
        "paths.runs=/home/token/runs launch.account=secret-project",
        "launch.srun=['--container-env=HF_TOKEN'] data.domain_column=token",
        "data.revision=0123456789abcdef0123456789abcdef01234567",
        "git@host:team/x.git https://host:8080/a@b",
        # What people are told to write instead.
        """curl -H "Authorization: Bearer $HF_TOKEN" https://host/x""",
        "curl -u $USER:$PASS https://host/x",
        "wandb login --relogin",
        "wandb login --host https://wandb.my.org",
        "export GOOGLE_APPLICATION_CREDENTIALS=/home/me/gcp.json",
        "docker run --secret id=x,src=/y",
        "docker login -u me --password-stdin && docker run -p 80:80 x; mysql -u me -p db",
        "docker login -u me -p $PASS ghcr.io; mysql -p$PASS; export HF_TOKEN=${HF_TOKEN:-$OTHER} X=${RUN_NAME:-first}",
        "--container-mounts=/work/token:/work/token,/home/me/.netrc:/root/.netrc",
        # Words of this field, of labels and of switches.
        "name='router: token: choice' name='Token: choice' name='cost per token = low'",
        "name=sk-learn-comparison-of-experts-2 name='the bearer model'",
        "data.eos_token=eos max_token=4096 MAX_TOKEN=4096 data.files=/data/token=bpe/x.txt",
        "HF_HUB_DISABLE_IMPLICIT_TOKEN=1 SHOW_PASSWORD=false PRIMARY_KEY=name SORT_KEY=step",
    ],
)
def test_what_is_no_key_stays(text: str) -> None:
    assert without_keys(text) == text
    assert not has_key(text)


def test_a_diff_hides_keys_and_keeps_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_SERVICE_TOKEN", KEY)
    diff = f"""\
+token = tokens[0]  # secret: none
+API_KEY = "abcdefgh1234"
+    "api_key": 'abcdefgh1234',
+token: str = "word"
+secret = os.environ["X_SECRET"]
+client("{KEY}", url="https://me:s3cret@host")
"""
    assert (
        without_keys_in_code(diff)
        == """\
+token = tokens[0]  # secret: none
+API_KEY = ***
+    "api_key": ***,
+token: str = "word"
+secret = os.environ["X_SECRET"]
+client("***", url="https://me:***@host")
"""
    )


@pytest.mark.parametrize(
    ("file", "line", "stored"),
    [
        ("conf/launch/mine.yaml", "+  - export WANDB_API_KEY=abcd", "+  - export WANDB_API_KEY=***"),
        ("conf/launch/mine.yaml", "+wandb_api_key: abcd", "+wandb_api_key: ***"),
        ("src/x.py", '+os.environ["WANDB_API_KEY"] = "abcdefgh1"', '+os.environ["WANDB_API_KEY"] = ***'),
        ("src/x.py", '+os.environ.setdefault("HF_TOKEN", "abcdefgh1")', '+os.environ.setdefault("HF_TOKEN", ***)'),
        ("src/x.py", '+API_KEY: str = "abcdefgh1"', "+API_KEY: str = ***"),
        ("src/x.py", '+wandb.login(key="0123456789abcdef")', '+wandb.login(key="***")'),
        ("src/x.py", "+token = tokens[0] if ids else pad_token  # token: any", None),
        ("src/x.py", '+url = f"https://{user}:{word}@host", f"Bearer {word}"', None),
    ],
)
def test_a_diff_is_read_by_the_kind_of_its_files(file: str, line: str, stored: str | None) -> None:
    """Settings are no code: there a key needs no quotes."""
    head = f"diff --git a/{file} b/{file}\n@@ -1 +1 @@\n"
    other = "diff --git a/src/y.py b/src/y.py\n+token: int = word\n"
    assert without_keys_in_diff(f"{head}{line}\n{other}") == f"{head}{stored or line}\n{other}"


def test_the_project_s_own_sources_and_settings_hold_none() -> None:
    """A diff of any of them shows what changed."""
    for part in ("conf", "sweeps", "tables"):
        for path in (REPOSITORY / part).rglob("*.yaml"):
            assert without_keys(path.read_text()) == path.read_text(), path
    for path in (REPOSITORY / "src").rglob("*.py"):
        assert without_keys_in_code(path.read_text()) == path.read_text(), path


def test_logs_and_failures_show_no_key(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = RunDir(tmp_path)
    try:
        raise RuntimeError("401 for https://me:s3cret@host, Authorization: Bearer s3cret2")
    except RuntimeError as error:
        failure = folder.record_failure(error)
        assert failure.message == "401 for https://me:***@host, Authorization: Bearer ***"
        assert "s3cret" not in (tmp_path / "traceback.txt").read_text()
        stream = io.StringIO()
        handler = logging.StreamHandler(stream)
        logging.getLogger().addHandler(handler)
        try:
            hide_keys_in_logs()
            logging.getLogger("x").error("with WANDB_API_KEY=%s", KEY, exc_info=error)
        finally:
            logging.getLogger().removeHandler(handler)
    assert "with WANDB_API_KEY=***\n" in stream.getvalue()
    assert "RuntimeError: 401" in stream.getvalue()
    assert "s3cret" not in stream.getvalue()


def test_a_key_that_comes_from_elsewhere_is_refused_before_the_folder_is_made(folders: Path) -> None:
    """From a YAML file of one's own, for example, which no override shows."""
    run = compose_run("launch=slurm")
    assert isinstance(run.launch, SlurmConfig)
    launch = dataclasses.replace(run.launch, setup=['export HF_TOKEN="abc"'])
    with pytest.raises(ConfigError, match=r"launch\.setup=\*\*\* is refused"):
        freeze(dataclasses.replace(run, launch=launch), [], command="test")
    assert not list(folders.glob("*"))


def test_the_test_for_keys_is_quick_enough_for_every_argument() -> None:
    """No pattern goes back and forth over a long text."""
    for piece in (
        "a_",
        "--",
        "a-",
        "token",
        "curl ",
        "Bearer",
        "'\"",
        "-----BEGIN ",
        "eyJ",
        "x://",
        "K9_",
        "/a",
        "?sig=",
        "${token:-",
        "docker login ",
        "mysql -u ",
        "setenv ",
        "wandb login -x ",
        "x=$'",
    ):
        started = time.process_time()
        has_key(piece * 20_000 + "=" + piece)
        assert time.process_time() - started < 3, piece


def test_the_command_in_provenance_has_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["train.py", "seed=1", f"launch.setup=[export WANDB_API_KEY={KEY}]"])
    assert command_line() == "python train.py seed=1 'launch.setup=[export WANDB_API_KEY=***]'"


def test_an_override_with_a_key_is_refused_and_the_message_does_not_show_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"launch\.setup=\*\*\* is refused: it holds an API key") as refused:
        compose_run("launch=slurm", f"launch.setup=['export WANDB_API_KEY={KEY}']")
    assert KEY not in str(refused.value)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    with pytest.raises(ConfigError, match="Export the key"):
        compose_run("tracking=wandb", f"tracking.entity={KEY}")
