"""zeus and codecarbon read the trees that we read: equal joules where they are right, and the rule where they are not.

What they are expected to show is what these releases were seen to show (the group ``oracles`` pins them).
"""

from __future__ import annotations

import os
import random
from contextlib import closing
from typing import TYPE_CHECKING, NamedTuple

import pytest
from reference.powercap_tree import PowercapTree
from reference.rapl_readers import Codecarbon, Ours, Zeus
from simulated import AMD_RANGE_UJ, WRAP_UJ, use_tree

WHY = "not installed here: make test-oracles runs this in an environment of its own"
pytest.importorskip("zeus", reason=f"zeus is {WHY}")
pytest.importorskip("codecarbon", reason=f"codecarbon is {WHY}")

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.extras

PACKAGE = "intel-rapl:0"
PACKAGE_1 = "intel-rapl:1"
SOCKETS = {PACKAGE: ("package-0", 1000.0), PACKAGE_1: ("package-1", 7000.0)}
WRAP_J = (WRAP_UJ + 1) / 1e6
AMD_WRAP_J = (AMD_RANGE_UJ + 1) / 1e6
CLOSE = 1e-6  # codecarbon's factor from J to kWh has six digits

BY_NAME = "zeus: a domain is what its name says, not its index: psys is no package"
MEMORY = "codecarbon: memory is beside its package and belongs to the sum"
MIRROR = "zeus: dies that mirror one counter count once"
NEAR = "codecarbon: two sockets with like counts are two sockets; only dies of one package mirror"
TWIN_ALONE = "both: the MMIO twin is read where it is alone"


class Case(NamedTuple):
    """Zones with name, count at the start and joules spent; totals in J that each reader gives, None: no sensor."""

    zones: dict[str, tuple[str, float, float]]
    true: float
    zeus: float | None
    codecarbon: float | None
    missed: str = ""


CASES = {
    "a client with memory": Case(
        {PACKAGE: ("package-0", 1000, 100), "intel-rapl:0:0": ("core", 600, 60),
         "intel-rapl:0:1": ("uncore", 50, 5), "intel-rapl:0:2": ("dram", 80, 8)},
        108, 108, 100, MEMORY,
    ),
    "two sockets with memory": Case(
        {PACKAGE: ("package-0", 1000, 100), "intel-rapl:0:0": ("dram", 5, 10),
         PACKAGE_1: ("package-1", 7000, 70), "intel-rapl:1:0": ("dram", 9, 7)},
        187, 187, 170, MEMORY,
    ),
    "two sockets": Case({PACKAGE: ("package-0", 1000, 100), PACKAGE_1: ("package-1", 7000, 70)}, 170, 170, 170),
    "a package and its cores": Case({PACKAGE: ("package-0", 9, 50), "intel-rapl:0:0": ("core", 5, 40)}, 50, 50, 50),
    "a laptop with psys": Case(
        {PACKAGE: ("package-0", 1000, 100), "intel-rapl:0:0": ("core", 600, 60), PACKAGE_1: ("psys", 3000, 150)},
        100, 250, 100, BY_NAME,
    ),
    "an MMIO twin": Case(
        {PACKAGE: ("package-0", 1000, 100), "intel-rapl-mmio:0": ("package-0", 1000, 100)}, 100, 100, 100
    ),
    "an MMIO twin alone": Case({"intel-rapl-mmio:0": ("package-0", 1000, 100)}, 100, None, None, TWIN_ALONE),
    "mirrored dies": Case(
        {PACKAGE: ("package-0-die-0", 1000, 100), PACKAGE_1: ("package-0-die-1", 1000, 100)}, 100, 200, 100, MIRROR
    ),
    "dies of their own": Case(
        {PACKAGE: ("package-0-die-0", 1000, 100), PACKAGE_1: ("package-0-die-1", 4000, 70)}, 170, 170, 170
    ),
    "sockets of like counts": Case(
        {PACKAGE: ("package-0", 1000, 100), PACKAGE_1: ("package-1", 1000.5, 100.4)}, 200.4, 200.4, 100, NEAR
    ),
}  # fmt: skip


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PowercapTree:
    return PowercapTree(use_tree(tmp_path, monkeypatch))


@pytest.fixture
def sockets(tree: PowercapTree) -> PowercapTree:
    for zone, (name, count_j) in SOCKETS.items():
        tree.add(zone, name, count_j)
    return tree


@pytest.fixture
def deny(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Refuse to open a file, as the kernel does to those who are not root; root runs these tests too."""

    def denied(path: Path) -> None:
        def guarded(opener: Callable) -> Callable:
            def opened(file: object, *args: object, **options: object) -> object:
                if isinstance(file, str | os.PathLike) and os.path.realpath(file) == str(path):
                    raise PermissionError(13, "Permission denied", str(file))
                return opener(file, *args, **options)

            return opened

        monkeypatch.setattr("builtins.open", guarded(open))
        monkeypatch.setattr(os, "open", guarded(os.open))

    return denied


def near(joules: float | None) -> object:
    return None if joules is None else pytest.approx(joules, rel=CLOSE)


@pytest.mark.parametrize("name", CASES)
def test_one_window(name: str, tree: PowercapTree, monkeypatch: pytest.MonkeyPatch) -> None:
    case = CASES[name]
    for zone, (domain, count_j, _spent) in case.zones.items():
        tree.add(zone, domain, count_j)
    ours = Ours()
    with closing(Zeus(tree, monkeypatch)) as zeus:
        if case.codecarbon is None:
            with pytest.raises(FileNotFoundError, match="RAPL files not found"):
                Codecarbon(tree)
        else:
            codecarbon = Codecarbon(tree)
        tree.spend({zone: spent_j for zone, (_name, _count, spent_j) in case.zones.items()})
        assert ours.joules() == near(case.true)
        assert zeus.joules() == near(case.zeus), case.missed
    if case.codecarbon is not None:
        assert codecarbon.joules() == near(case.codecarbon), case.missed
    assert bool(case.missed) == ({case.zeus, case.codecarbon} != {case.true})


def test_all_three_agree_on_every_one_of_forty_windows(sockets: PowercapTree, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = random.Random(3)
    ours, codecarbon = Ours(), Codecarbon(sockets)
    with closing(Zeus(sockets, monkeypatch)) as zeus:
        for _ in range(40):
            spent = {zone: draw.uniform(5.0, 3000.0) for zone in SOCKETS}
            sockets.spend(spent)
            found = [ours.joules(), zeus.joules(), codecarbon.joules()]
            zeus.begin()
            assert found == [pytest.approx(sum(spent.values()), rel=5e-6)] * 3


def test_the_total_of_zeus_has_no_package_in_it(tree: PowercapTree, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rule missed: a total is the sum of what is metered, and its scope is spelled out."""
    tree.add(PACKAGE, "package-0")
    with closing(Zeus(tree, monkeypatch)) as zeus:
        tree.spend({PACKAGE: 100})
        assert zeus.end() == ({0: near(100)}, None, 0)


def test_wraps(tree: PowercapTree, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rules missed. codecarbon: more than one wrap. zeus: one that its process has not seen yet; energy is below 0."""
    tree.add(PACKAGE, "package-0", 1000.0, AMD_RANGE_UJ)
    with closing(Zeus(tree, monkeypatch)) as zeus:
        # Its process is up once it has seen a wrap. Every count on the way is above 1000 J, what is left below 400 J.
        zeus.until(1, lambda: tree.spend({PACKAGE: 0.9 * AMD_WRAP_J}))
        tree.show(PACKAGE, AMD_WRAP_J - 1e-6)
        seen = zeus.wraps
        zeus.begin("early")
        zeus.begin("late")
        ours, codecarbon = Ours(), Codecarbon(tree)

        zeus.pause(on=True)
        tree.spend({PACKAGE: 300})
        ours.advance(30.0)
        assert zeus.joules("early") == near(300 - AMD_WRAP_J)
        assert codecarbon.joules() == near(300)
        zeus.pause(on=False)
        zeus.until(seen + 1)

        for part_j in (30_000.0, AMD_WRAP_J - 30_200.0):  # once more around, to 200 J below where it was
            tree.spend({PACKAGE: part_j})
            ours.advance(100.0)
        zeus.until(seen + 2)
        tree.spend({PACKAGE: 50_000.0})
        true = AMD_WRAP_J + 50_100.0
        assert ours.joules(100.0) == near(true)
        assert zeus.joules("late") == near(true)
        assert codecarbon.joules() == near(true - 300 - AMD_WRAP_J)


def test_one_wrap_of_the_longer_range(tree: PowercapTree) -> None:
    tree.add(PACKAGE, "package-0", WRAP_J - 100)
    ours, codecarbon = Ours(), Codecarbon(tree)
    tree.spend({PACKAGE: 300})
    assert (ours.joules(), codecarbon.joules()) == (near(300), near(300))


def test_a_reading_that_failed(sockets: PowercapTree, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rules missed. codecarbon: it is never 0 J. zeus: it costs its domain, not the whole window."""
    spent, counter = {PACKAGE: 100.0, PACKAGE_1: 70.0}, sockets.counter(PACKAGE_1)
    ours, codecarbon = Ours(), Codecarbon(sockets)
    with closing(Zeus(sockets, monkeypatch)) as zeus:
        sockets.spend(spent)
        good = counter.read_text()
        counter.write_text("")
        assert ours.joules() == "package-1 could not be read in window 0.0/decode"
        assert [r.domain for r in ours.refused()] == ["package-1"]
        with pytest.raises(ValueError, match="could not convert"):
            zeus.end()
    found = [codecarbon.joules()]
    counter.write_text(good)
    for _ in range(2):
        sockets.spend(spent)
        found.append(codecarbon.joules())
    assert found == [near(100), near(100), near(170)]  # of 510 J; the second socket's 140 J never turn up


def test_a_socket_that_only_root_may_read(
    sockets: PowercapTree, monkeypatch: pytest.MonkeyPatch, deny: Callable[[Path], None]
) -> None:
    """Rule missed by codecarbon: one socket of two is a part and never shown as the host."""
    deny(sockets.counter(PACKAGE_1))
    ours, codecarbon = Ours(), Codecarbon(sockets)
    with closing(Zeus(sockets, monkeypatch)) as zeus:
        sockets.spend({PACKAGE: 100, PACKAGE_1: 70})
        assert str(ours.joules()).startswith("package-1 cannot be read, and the rest is not the whole")
        assert zeus.joules() is None
        assert codecarbon.joules() == near(100)


def test_counters_that_only_root_may_read(
    sockets: PowercapTree, monkeypatch: pytest.MonkeyPatch, deny: Callable[[Path], None]
) -> None:
    """Rule missed by both: what could not be read is no 0 J but a reason with a fix."""
    for zone in SOCKETS:
        deny(sockets.counter(zone))
    ours, codecarbon = Ours(), Codecarbon(sockets)
    with closing(Zeus(sockets, monkeypatch)) as zeus:
        sockets.spend({PACKAGE: 100, PACKAGE_1: 70})
        assert ours.joules() == "no sensor covers the processor"
        assert [(r.reason, "chmod" in r.fix) for r in ours.probe.refusals] == [
            ("package-0: Permission denied", True), ("package-1: Permission denied", True)
        ]  # fmt: skip
        assert zeus.end() == (None, None, 0)
        assert codecarbon.joules() == 0


def test_a_counter_that_was_reset(tree: PowercapTree, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rule missed by both: falling by 4 kJ of a range of 262 kJ is no wrap in 10 s, and no energy below 0."""
    tree.add(PACKAGE, "package-0", 5000)
    ours, codecarbon = Ours(), Codecarbon(tree)
    with closing(Zeus(tree, monkeypatch)) as zeus:
        tree.show(PACKAGE, 1000)
        assert zeus.joules() == near(-4000)
    assert codecarbon.joules() == near(WRAP_J - 4000)
    assert ours.joules() == "package-0 could not be read in window 0.0/decode"


def test_a_counter_that_stands_still(tree: PowercapTree, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rule missed by both: a counter that does not move is dead, and a machine at work does not spend 0 J."""
    tree.add(PACKAGE, "package-0")
    ours, codecarbon = Ours(), Codecarbon(tree)
    with closing(Zeus(tree, monkeypatch)) as zeus:
        assert zeus.joules() == 0
    assert codecarbon.joules() == 0
    assert ours.joules() == "package-0 could not be read in window 0.0/decode"
    assert "frozen" in ours.refused()[0].reason


def test_mirrored_dies_read_an_update_apart_count_once(tree: PowercapTree):
    tree.add(PACKAGE, "package-0-die-0", 1000.0)
    tree.add(PACKAGE_1, "package-0-die-1", 1000.06)
    ours = Ours()
    tree.spend({PACKAGE: 100, PACKAGE_1: 100})
    assert ours.joules() == near(100)


def test_a_window_in_which_a_counter_may_have_wrapped_twice_is_refused(tree: PowercapTree):
    tree.add(PACKAGE, "package-0")
    ours = Ours()
    tree.spend({PACKAGE: WRAP_J + 50})
    assert "more than once" in str(ours.joules(900.0))
