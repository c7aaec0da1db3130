"""Claims: one process holds a run, whatever ends in between."""

import errno
import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import asdict, replace
from itertools import chain

import pytest

from bdhf.experiments.storage.claims import Claim, Claims, holds, living, release_ended
from bdhf.records import STALE_SECONDS, Owner

RUN = "0123456789abcdef"
ELSEWHERE = Owner("another-host", 7, 17.0)
LONG_AGO = 2 * STALE_SECONDS  # seconds


@pytest.fixture
def claims(tmp_path):
    """The claims of this process."""
    claims = Claims(tmp_path)
    yield claims
    claims.close()


@pytest.fixture
def opened(tmp_path):
    """Makes claims of this process, several at a time."""
    made = []

    def open_claims():
        made.append(Claims(tmp_path))
        return made[-1]

    yield open_claims
    for claims in made:
        claims.close()


def plant(folder, owner, generation=0, silent=0.0):
    """A claim of another process, touched so many seconds ago."""
    claim = Claim(RUN, generation, owner, 1.5)
    path = folder / "claims" / claim.name
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({**asdict(owner), "made": claim.made}))
    os.utime(path, (time.time() - silent,) * 2)
    return claim


def race(racers, lap):
    """Call `lap` in several threads at once; return the results, or raise the first error."""
    start, results, raised = threading.Barrier(racers), [], []

    def run():
        start.wait()
        try:
            results.append(lap())
        except Exception as error:
            raised.append(error)

    threads = [threading.Thread(target=run) for _ in range(racers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if raised:
        raise raised[0]
    return results


def test_among_many_threads_each_run_is_held_by_one(opened):
    """Eight that race for fifty runs hold each once, and together all."""
    runs = [f"{number:016x}" for number in range(50)]

    def lap():
        claims = opened()
        return [run for run in runs if claims.take(run) is not None]

    held = Counter(chain(*race(8, lap)))

    assert held == dict.fromkeys(runs, 1)


RACER = """
import sys
from pathlib import Path
from bdhf.experiments.storage.claims import Claims
claims = Claims(Path(sys.argv[1]))
sys.stdin.readline()
print(*(run for run in sys.argv[2:] if claims.take(run) is not None), flush=True)
sys.stdin.readline()
claims.close()
"""


def test_among_processes_each_run_is_held_by_one(tmp_path):
    """Four processes that start at once hold each of fifty runs once; ended, they leave nothing."""
    runs = [f"{number:016x}" for number in range(50)]
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACER, str(tmp_path), *runs],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for racer in racers:
        racer.stdin.write("\n")
        racer.stdin.flush()
    held = Counter(chain(*(racer.stdout.readline().split() for racer in racers)))
    owners = {claim.owner.pid for claim in living(tmp_path)}
    for racer in racers:
        racer.communicate("\n")

    assert held == dict.fromkeys(runs, 1)
    assert owners <= {racer.pid for racer in racers}
    assert list((tmp_path / "claims").iterdir()) == []


def test_claims_come_and_go_without_two_holding_one(tmp_path):
    """Two threads never hold a run at once."""
    inside, met = threading.Semaphore(1), []

    def lap():
        taken = 0
        while taken < 20:
            claims = Claims(tmp_path)
            claim = claims.take(RUN)
            if claim is not None:
                met.append(inside.acquire(blocking=False))
                taken += 1
                inside.release()
            claims.close()

    race(4, lap)

    assert met == [True] * 80
    assert list((tmp_path / "claims").iterdir()) == []


@pytest.mark.parametrize(
    ("owner", "silent", "is_stale"),
    [
        (lambda me: replace(me, pid=2**22 + 1), 0, True),
        (lambda me: replace(me, ticks=me.ticks - 900), 0, True),
        (lambda me: replace(me, started=me.started - 9, ticks=None), 0, True),
        (lambda me: me, LONG_AGO, False),
        (lambda me: ELSEWHERE, 0, False),
        (lambda me: ELSEWHERE, LONG_AGO, True),
    ],
    ids=[
        "pid gone",
        "pid reused",
        "pid reused, of an older version",
        "alive",
        "elsewhere",
        "elsewhere, silent",
    ],
)
def test_a_claim_is_taken_over_only_when_it_is_stale(claims, owner, silent, is_stale):
    """On this machine the process decides, whose id may be reused; elsewhere missing heartbeats."""
    old = plant(claims.folder, owner(Owner.here()), silent=silent)

    new = claims.take(RUN)

    assert [claim.run_id for claim in living(claims.folder)] == [RUN]
    if is_stale:
        assert new.generation == old.generation + 1
        assert not holds(claims.folder, old)
        assert holds(claims.folder, new)
    else:
        assert new is None
        assert holds(claims.folder, old)


def test_a_process_that_nobody_has_reaped_is_gone(claims):
    """In a container without an init, what was killed stays in the table of processes."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    plant(claims.folder, Owner.of(child.pid))
    before = claims.take(RUN)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and is not reaped

    after = claims.take(RUN)
    child.communicate()

    assert before is None
    assert after.generation == 1


def test_of_several_who_take_over_a_stale_claim_one_wins(tmp_path, opened):
    """The next generation is made once, a hundred times."""
    for _ in range(100):
        plant(tmp_path, replace(Owner.here(), pid=2**22 + 1))
        won = [claim for claim in race(4, lambda: opened().take(RUN)) if claim is not None]

        assert [claim.generation for claim in won] == [1]
        opened().release(won[0])
    assert list((tmp_path / "claims").iterdir()) == []


def test_who_was_taken_over_removes_nothing_of_its_successors(claims):
    """Not even if the run was released and claimed again under the same name."""
    lost = plant(claims.folder, ELSEWHERE, silent=LONG_AGO)
    second = claims.take(RUN)
    claims.release(lost)
    assert holds(claims.folder, second)
    claims.release(second)
    third = claims.take(RUN)
    assert third.name == lost.name

    Claims(claims.folder).release(lost)

    assert holds(claims.folder, third)
    assert not holds(claims.folder, lost)


def test_a_claim_made_on_an_outdated_look_is_withdrawn(claims, monkeypatch):
    """Between read and claim the run was released and claimed again: the new owner keeps it."""
    plant(claims.folder, replace(Owner.here(), pid=2**22 + 1), generation=1)
    make = os.link
    newcomer = replace(ELSEWHERE, pid=8)

    def late(source, target):
        (claims.home / f"{RUN}.1").unlink()
        plant(claims.folder, newcomer)
        make(source, target)

    monkeypatch.setattr(os, "link", late)

    assert claims.take(RUN) is None
    assert [claim.owner for claim in living(claims.folder)] == [newcomer]
    assert [path.name for path in claims.home.iterdir()] == [f"{RUN}.0"]


def test_letting_go_leaves_nothing(claims):
    """All generations go."""
    plant(claims.folder, ELSEWHERE, silent=LONG_AGO)
    claim = claims.take(RUN)

    claims.release(claim)

    assert list(claims.home.iterdir()) == []


def test_what_the_dead_held_is_let_go_and_the_rest_stays(claims):
    """A process that was killed between outcome and release leaves a claim on a finished run."""
    plant(claims.folder, replace(Owner.here(), pid=2**22 + 1), generation=3)
    other = claims.take("f" * 16)

    release_ended(claims.folder)

    assert [path.name for path in claims.home.iterdir()] == [other.name]


def test_age_is_reported_by_the_clock_of_the_file_system(claims, monkeypatch):
    """A machine whose clock is a day ahead takes over no live claim."""
    plant(claims.folder, ELSEWHERE)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 86400)

    assert claims.take(RUN) is None


def test_a_heartbeat_touches_what_is_held(tmp_path):
    """The thread of its process touches a claim again."""
    claims = Claims(tmp_path, heartbeat_seconds=0.01)
    path = claims.home / claims.take(RUN).name
    os.utime(path, (1.0, 1.0))

    deadline = time.monotonic() + 60
    while path.stat().st_mtime < 2 and time.monotonic() < deadline:
        time.sleep(0.01)

    assert path.stat().st_mtime > 2
    claims.close()


def test_without_links_a_claim_is_made_by_its_name(claims, monkeypatch):
    """A file system that has no links still lets one process make a name."""

    def refused(*_):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refused)

    claim = claims.take(RUN)

    assert holds(claims.folder, claim)
    assert Claims(claims.folder).take(RUN) is None
    assert [path.name for path in claims.home.iterdir()] == [claim.name]


def test_a_claim_that_cannot_be_read_is_one(claims):
    """It may be incomplete; without heartbeats for long, it is taken over."""
    path = claims.folder / "claims" / f"{RUN}.0"
    path.parent.mkdir()
    path.write_text("{")

    assert claims.take(RUN) is None
    os.utime(path, (1.0, 1.0))
    assert claims.take(RUN).generation == 1


def test_claims_are_read_without_torch():
    """`bdhf status` starts at once."""
    check = "import bdhf.experiments.storage.claims, sys; sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
