"""What becomes of output that nobody takes, in a process of its own: it is about the process's own stdout."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from moe_sweeps.host.output import PATIENCE, READER_GONE

START = "import sys, os\nfrom moe_sweeps.host.output import *\n"


def run(body: str, stdout: int = subprocess.PIPE, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # type: ignore[call-overload, no-any-return]
        [sys.executable, "-c", START + body], stdout=stdout, stderr=subprocess.PIPE, text=True, timeout=60, **options
    )


@pytest.fixture
def nobody_reads() -> int:
    """A pipe whose reader is gone."""
    reading, writing = os.pipe()
    os.close(reading)
    return writing


def test_everything_arrives_where_somebody_reads() -> None:
    done = run("with guarded():\n  print('x' * 200_000)\n  print('later', file=sys.stderr)")
    assert (done.stdout, done.stderr, done.returncode) == ("x" * 200_000 + "\n", "later\n", 0)


def test_training_goes_on_without_a_reader(nobody_reads: int) -> None:
    body = "with guarded(may_be_lost=True):\n  for n in range(3): print('x' * 9000, flush=True)\n"
    done = run(body + "  print('still here', file=sys.stderr)\nsys.exit(7)", nobody_reads)
    assert (done.stderr, done.returncode) == ("still here\n", 7)


def test_a_reading_command_ends_with_its_reader(nobody_reads: int) -> None:
    body = "with guarded():\n  print('x' * 9000, flush=True)\n  print('not reached', file=sys.stderr)"
    done = run(body, nobody_reads)
    assert (done.stderr, done.returncode) == ("", READER_GONE)


def test_a_command_may_say_later_that_its_output_counts_less(nobody_reads: int) -> None:
    body = "with guarded() as output:\n  output.may_be_lost = True\n  print('x', flush=True)\nsys.exit(7)"
    assert run(body, nobody_reads).returncode == 7


def test_stderr_that_nobody_reads_ends_nothing(nobody_reads: int) -> None:
    guard = "import sys\nfrom moe_sweeps.host.output import guarded\n"
    body = f"{guard}with guarded():\n  print('x', file=sys.stderr)\n  print(1)"
    done = subprocess.run([sys.executable, "-c", body], stdout=subprocess.PIPE, stderr=nobody_reads, text=True)
    assert (done.stdout, done.returncode) == ("1\n", 0)


def test_a_closed_stream_is_no_place_for_the_next_file(tmp_path: Path) -> None:
    """Without care the file gets number 1, and then what is printed."""
    body = f"with guarded(may_be_lost=True):\n  file = open({str(tmp_path / 'file')!r}, 'w')\n"
    body += "  print('lost', flush=True)\n  file.write(str(file.fileno()))"
    done = subprocess.run(["bash", "-c", f'"{sys.executable}" -c "$0" >&- <&-', START + body], capture_output=True)
    assert done.returncode == 0, done.stderr
    assert int((tmp_path / "file").read_text()) > 2


def test_a_child_inherits_what_stands_in_for_a_closed_stream(tmp_path: Path) -> None:
    child = "[sys.executable, '-c', 'import os; os.fstat(1); os.fstat(0)']"
    body = f"import subprocess\nwith guarded(may_be_lost=True):\n  subprocess.run({child}, check=True)"
    done = subprocess.run(["bash", "-c", f'"{sys.executable}" -c "$0" >&- <&-', START + body], capture_output=True)
    assert done.returncode == 0, done.stderr


def test_a_character_that_cannot_be_shown_is_no_error() -> None:
    environment = os.environ | {"PYTHONIOENCODING": "latin-1"}
    assert run("with guarded():\n  print('a ━ b')", env=environment).stdout == "a ? b\n"


def test_a_reader_who_stands_still_is_waited_for_once_and_only_in_training() -> None:
    """65,536 bytes fit into the pipe. The rest of two prints is lost, within the patience for one; then he reads on."""
    body = "import time\nwith guarded(may_be_lost=True):\n  start = time.monotonic()\n  with not_waited_for():\n"
    body += "    for n in range(4): print('x' * 100_000, flush=True)\n"
    body += "  print(time.monotonic() - start, file=sys.stderr, flush=True)\n  print('end', flush=True)\nsys.exit(7)"
    with subprocess.Popen(
        [sys.executable, "-c", START + body], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        assert PATIENCE <= float(process.stderr.readline()) < 2 * PATIENCE
        time.sleep(0.2)
        assert process.poll() is None  # what is said after training waits for its reader
        output, _ = process.communicate(timeout=60)
    assert output == "x" * 65_536 + "end\n"
    assert process.returncode == 7


def test_the_log_of_a_worker(tmp_path: Path) -> None:
    """All output goes there, that of children, too; a log that cannot be written to ends nothing."""
    body = f"log_to(__import__('pathlib').Path({str(tmp_path / 'log')!r}))\nprint('one')\nos.system('echo two')\n"
    done = run(body + "print('three', file=sys.stderr)")
    assert (done.stdout, done.stderr) == ("", "")
    assert (tmp_path / "log").read_text() == "one\ntwo\nthree\n"
    for bad in ("/dev/full", str(tmp_path / "missing" / "log")):
        assert run(f"log_to(__import__('pathlib').Path({bad!r}))\nprint('x' * 9000)\nsys.exit(7)").returncode == 7


def test_a_log_follows_no_link_and_waits_for_no_reader(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "precious")
    (tmp_path / "dangling").symlink_to(tmp_path / "made")
    os.mkfifo(tmp_path / "fifo")
    for name in ("link", "dangling", "fifo"):
        done = run(f"log_to(__import__('pathlib').Path({str(tmp_path / name)!r}))\nprint('x')\nsys.exit(7)")
        assert (done.stdout, done.returncode) == ("", 7)
    assert (tmp_path / "precious").read_text() == "mine"
    assert not (tmp_path / "made").exists()


def test_a_log_takes_the_place_of_a_pipe_so_that_its_reader_sees_the_end(tmp_path: Path) -> None:
    """A worker that outlives its driver must not keep the driver's `| tee` waiting."""
    body = "import time\nwith guarded(may_be_lost=True):\n  print('begun', flush=True)\n"
    body += f"  log_to(__import__('pathlib').Path({str(tmp_path / 'log')!r}))\n  time.sleep(30)"
    with subprocess.Popen([sys.executable, "-c", START + body], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.read() == "begun\n"  # to the end of the pipe
        assert process.poll() is None
        process.kill()
