"""A damaged spool, end to end: the next program delivers all that is intact, names what is not, and never makes up a
value. (`tests/property/test_journal.py` has every byte of it, inside one process.)"""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from asynctrack.journal.segment import HEADER_SIZE
from asynctrack.journal.slots import SLOT_SIZE
from tests.fault.programs import LIMIT, ON_FILES, Lab, finish, steps

POINTS = 3000
#: part of it is delivered and acknowledged, part of it is not
DIES = f"""
asynctrack.configure(flush_interval=1000, segment_bytes=65536)
run = asynctrack.start_run(run_name="damaged", tags={{"a": 1}})
log_some(run, 500)
run.log_param("early", 1)
run.flush()
for step in range(500, {POINTS}):
    run.log_metric("loss", step * 0.25, step)
    if step % 500 == 0:
        run.log_param(f"p{{step}}", step)
os._exit(1)
"""
DAMAGES = 10


@ON_FILES
def test_damage_costs_what_is_damaged_and_no_more(lab: Lab) -> None:
    """A byte flipped, or the end cut off, at a random place of each file of a spool; whatever is missing afterwards has
    been reported, and nothing is wrong or doubled."""
    seed = random.randrange(1 << 30)
    chance = random.Random(seed)
    assert lab.run(DIES).returncode == 1
    sound = lab.folder / "sound"
    for name in (".asynctrack", "mlruns"):
        shutil.copytree(lab.folder / name, sound / name)
    (spool,) = lab.spools()
    files = sorted(path.name for path in spool.iterdir())
    assert {"owner", "registry", "cursor", "000001.slots", "000001.frames"} <= set(files)
    for number in range(DAMAGES):
        for name in (".asynctrack", "mlruns"):
            shutil.rmtree(lab.folder / name)
            shutil.copytree(sound / name, lab.folder / name)
        about = f"seed {seed}: {damage(spool / files[number % len(files)], chance)}"
        told = lab.recover().stderr
        assert "Traceback" not in told, (about, told)
        check(lab, about, told)


def damage(path: Path, chance: random.Random) -> str:
    """Flip a bit, or cut; what was done. A segment that was being made at the kill is empty: it gets a byte."""
    data = bytearray(path.read_bytes() or 1)
    at = chance.randrange(len(data))
    if chance.random() < 0.3:
        path.write_bytes(data[:at])
        return f"{path.name} cut at {at} of {len(data)}"
    data[at] ^= 1 << chance.randrange(8)
    path.write_bytes(data)
    return f"{path.name} flipped at {at} of {len(data)}"


def check(lab: Lab, about: str, told: str) -> None:
    run = lab.only_run()
    there = steps(run)  # each value is the one that belongs to its step, and none is there twice
    assert set(range(500)) <= set(there), about  # was in the store already
    params = {"early": "1"} | {f"p{step}": str(step) for step in range(500, POINTS, 500)}
    assert run.params.items() <= params.items(), about
    complete = len(there) == POINTS and run.params == params and run.status == "KILLED"
    reported = any(word in told for word in ("damaged", "missing", "unfinished", "is cut", "cannot"))
    assert complete or reported, (about, told)
    # A flipped byte costs one event, or one metric's name; a spool that cannot be read at all stays for a person.
    if lab.spools():
        assert "stays as it is" in told or "damaged" in told, (about, told)


FOLLOWED = """
asynctrack.configure(mode="offline", segment_bytes=65536)
run = asynctrack.start_run(run_name="followed")
log_some(run, 20000)
print("logged", flush=True)
sys.stdin.readline()
run.terminate()
"""


@ON_FILES
@pytest.mark.parametrize("how", ["damaged", "missing"])
def test_a_segment_that_is_lost_from_a_spool_that_is_being_followed_costs_itself(lab: Lab, how: str) -> None:
    """The later ones are found and delivered, the loss is said, and the run has the status that its program gave it."""
    program = lab.start(FOLLOWED)
    assert program.stdout is not None
    assert program.stdout.readline() == "logged\n"
    (spool,) = lab.spools()
    lost = sorted(spool.glob("*.slots"))[5]
    slots = (lost.stat().st_size - HEADER_SIZE) // SLOT_SIZE
    if how == "missing":
        lost.unlink()
    else:
        lost.write_bytes(b"\xff" * HEADER_SIZE + lost.read_bytes()[HEADER_SIZE:])
    sync = lab.start("print(asynctrack.sync(watch=True)[0].state)")
    program.communicate("\n", timeout=LIMIT)
    done = finish(sync)
    assert done.stdout == "delivered\n", done.stderr
    assert f"a segment is missing, with up to {slots} records" in done.stderr
    (run,) = lab.runs().values()
    assert run.status == "FINISHED"
    assert 20000 - slots <= len(steps(run)) <= 20000 - slots + 8  # it may hold slots that are no points
    assert not lab.spools()


FEW_DESCRIPTORS = """
import errno, resource
adopted = asynctrack.start_run(run_name="beside")
mine = []
resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200))
try:
    while True:
        mine.append(os.open("/dev/null", os.O_RDONLY))
except OSError as error:
    assert error.errno == errno.EMFILE
time.sleep(1)  # whoever delivers meets it, too
for fd in mine:
    os.close(fd)
adopted.log_metric("loss", 0.25, 1)
"""


@ON_FILES
def test_a_program_without_free_descriptors_loses_nothing_of_what_it_has_adopted(lab: Lab) -> None:
    """More segments than descriptors, and then none left at all: that says nothing about the data. What cannot be read
    now is read later, and no segment is deleted unread."""
    left = lab.run(
        "asynctrack.configure(segment_bytes=16384, mode='offline')\n"
        "with asynctrack.start_run(run_name='left') as run:\n    log_some(run, 60000)"
    )
    assert left.returncode == 0, left.stderr
    (spool,) = lab.spools()
    assert len(list(spool.glob("*.slots"))) > 200
    done = lab.run(FEW_DESCRIPTORS, ASYNCTRACK_MODE="online")
    assert done.returncode == 0, done.stderr
    lab.recover()
    runs = {run.tags["mlflow.runName"]: run for run in lab.runs().values()}
    assert steps(runs["left"]) == list(range(60000))
    assert steps(runs["beside"]) == [1]
    assert not lab.spools()
