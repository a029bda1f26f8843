"""API keys: made, recognised, rotated and ended, by a clock that is set by hand."""

from __future__ import annotations

import sqlite3
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.server.conftest import Clock

from faissbase.database.database import connect
from faissbase.errors import AccessError, CorruptionError, InvalidInputError, NotFoundError
from faissbase.server.keys import SCOPES, Key, Keys, Unauthenticated


@pytest.fixture
def keys(folder: Path, clock: Clock) -> Iterator[Keys]:
    found = Keys(folder, clock)
    yield found
    found.close()


def is_good(keys: Keys, text: str) -> bool:
    try:
        keys.recognise(text)
    except Unauthenticated:
        return False
    return True


# ---- made and recognised ----------------------------------------------------------------------------


def test_a_key_is_recognised_as_it_was_made(keys: Keys, clock: Clock) -> None:
    made, text = keys.create("acme", ["write", "read"], name="nightly", indexes=["b", "a"], expires_in_s=60)
    assert keys.recognise(text) == made
    assert made.scopes == frozenset(("read", "write"))
    assert made.indexes == frozenset(("a", "b"))
    assert (made.created_s, made.expires_s) == (clock.now_s, clock.now_s + 60)
    assert text.startswith(f"fb_{made.id}_")
    assert len(text) > 50


def test_no_two_keys_are_alike(keys: Keys) -> None:
    made = [keys.create("acme", ["read"]) for _ in range(20)]
    assert len({key.id for key, _ in made}) == len({text for _, text in made}) == 20
    assert [keys.recognise(text) for _, text in made] == [key for key, _ in made]


def test_a_text_that_is_not_quite_a_key_is_none(keys: Keys) -> None:
    made, text = keys.create("acme", ["read"])
    _, other = keys.create("acme", ["read"])
    secret = text.split("_", 2)[2]
    for wrong in (
        "",
        "fb",
        f"fb_{made.id}",
        f"fb_{made.id}_",
        f"fb_{made.id}_{other.split('_', 2)[2]}",
        f"FB_{made.id}_{secret}",
        f"x_{made.id}_{secret}",
        f"_{made.id}_{secret}",
        f"fb_{made.id.upper()}x_{secret}",
        text[:-1],
        text + "x",
        f" {text}",
        f"{text}\x00",
        text.swapcase(),
        f"fb_{made.id}_{secret}{'x' * 10_000}",
        f"fb__{secret}",
    ):
        assert not is_good(keys, wrong), wrong
    assert is_good(keys, text)


def test_who_has_no_key_is_told_nothing_of_those_there_are(keys: Keys) -> None:
    made, _ = keys.create("acme", ["read"])
    with pytest.raises(Unauthenticated, match=r"^the API key is not known here$"):
        keys.recognise(f"fb_{made.id}_wrong")
    keys.revoke(made.id)
    with pytest.raises(Unauthenticated, match=r"^the API key is not known here$"):
        keys.recognise(f"fb_{made.id}_wrong")


@pytest.mark.parametrize("scopes", [[], ["root"], ["read", "root"], ["Read"], [""]], ids=str)
def test_a_scope_is_one_of_those_there_are(keys: Keys, scopes: list[str]) -> None:
    with pytest.raises(InvalidInputError, match=r"^scopes are read, write, admin, got"):
        keys.create("acme", scopes)
    assert keys.all() == []


@pytest.mark.parametrize("tenant", ["", "..", "a/b", "a b", "ü", "a\n", "x" * 129, ".hidden"])
def test_a_tenant_has_a_name_that_can_be_a_folder(keys: Keys, tenant: str) -> None:
    with pytest.raises(InvalidInputError, match=r"^tenant must be"):
        keys.create(tenant, ["read"])


@pytest.mark.parametrize("tenant", ["keys.sqlite", "catalog.sqlite", "keys.sqlite-wal"])
def test_a_tenant_is_not_called_like_a_file_of_the_database(keys: Keys, tenant: str) -> None:
    with pytest.raises(InvalidInputError, match="tenant"):
        keys.create(tenant, ["read"])


@pytest.mark.parametrize("name", ["two\nlines", "tab\t", "\x1b[31m", "x" * 201, "\u202e"])
def test_a_name_is_one_line_that_can_be_shown(keys: Keys, name: str) -> None:
    with pytest.raises(InvalidInputError, match=r"^a key's name is one line"):
        keys.create("acme", ["read"], name=name)


def test_a_key_for_no_index_is_good_for_none(keys: Keys) -> None:
    made, text = keys.create("acme", ["read"], indexes=[])
    assert keys.recognise(text).indexes == frozenset()
    assert not made.may_use(["docs"])


def test_a_scope_includes_those_below_it(keys: Keys) -> None:
    for i, has in enumerate(SCOPES):
        made, _ = keys.create("acme", [has])
        for needed in SCOPES[: i + 1]:
            made.require(needed)
        for needed in SCOPES[i + 1 :]:
            with pytest.raises(AccessError, match=f"'{needed}'; this key has: {has}"):
                made.require(needed)


def test_a_key_may_use_an_index_by_any_of_its_names() -> None:
    def key(*indexes: str) -> Key:
        return Key("i", "t", "", frozenset(("read",)), frozenset(indexes), 0.0)

    assert key("docs").may_use(("docs", "0f"))
    assert key("0f").may_use(("docs", "0f"))
    assert not key("doc", "docs2").may_use(("docs", "0f"))


# ---- ended ------------------------------------------------------------------------------------------


def test_a_key_ends_at_its_time_and_not_before(keys: Keys, clock: Clock) -> None:
    made, text = keys.create("acme", ["read"], expires_in_s=10)
    clock.now_s += 9.999
    assert is_good(keys, text)
    assert made.state_at(clock.now_s) == "active"
    clock.now_s += 0.001
    with pytest.raises(Unauthenticated, match=f"{made.id} is expired"):
        keys.recognise(text)
    assert made.state_at(clock.now_s) == "expired"


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("inf"), float("nan")])
def test_a_time_that_is_not_ahead_is_refused(keys: Keys, seconds: float) -> None:
    with pytest.raises(InvalidInputError, match="expire later than now"):
        keys.create("acme", ["read"], expires_in_s=seconds)


def test_a_revoked_key_is_good_no_more_and_stays_revoked_as_it_was(keys: Keys, clock: Clock) -> None:
    made, text = keys.create("acme", ["read"], expires_in_s=10)
    _, other = keys.create("acme", ["read"])
    assert keys.revoke(made.id).revoked_s == clock.now_s
    with pytest.raises(Unauthenticated, match=f"{made.id} is revoked"):
        keys.recognise(text)
    clock.now_s += 60
    assert keys.revoke(made.id).revoked_s == clock.now_s - 60
    assert keys.find(made.id).state_at(clock.now_s) == "revoked"
    assert is_good(keys, other)


def test_a_key_of_another_tenant_is_not_found(keys: Keys) -> None:
    made, text = keys.create("acme", ["read"])
    for call in (
        lambda: keys.find(made.id, "other"),
        lambda: keys.revoke(made.id, "other"),
        lambda: keys.rotate(made.id, tenant="other"),
        lambda: keys.revoke("nosuch"),
    ):
        with pytest.raises(NotFoundError, match="no key"):
            call()
    assert is_good(keys, text)
    assert keys.all("other") == []
    assert keys.all("acme") == keys.all() == [made]


# ---- rotated ----------------------------------------------------------------------------------------


def test_a_rotated_key_may_do_the_same_and_the_old_one_nothing(keys: Keys, clock: Clock) -> None:
    old, old_text = keys.create("acme", ["write"], name="n", indexes=["docs"], expires_in_s=100)
    clock.now_s += 40
    new, text = keys.rotate(old.id)
    assert keys.recognise(text) == new
    for what in ("tenant", "name", "scopes", "indexes", "expires_s"):
        assert getattr(new, what) == getattr(old, what)
    assert new.created_s == clock.now_s
    assert not is_good(keys, old_text)
    assert keys.find(old.id).state_at(clock.now_s) == "revoked"


def test_the_old_key_is_good_for_its_time_of_grace(keys: Keys, clock: Clock) -> None:
    old, old_text = keys.create("acme", ["read"])
    new, text = keys.rotate(old.id, grace_s=30)
    clock.now_s += 29
    assert is_good(keys, old_text)
    clock.now_s += 1
    assert not is_good(keys, old_text)
    assert new.expires_s is None
    assert is_good(keys, text)


def test_grace_makes_no_key_last_longer(keys: Keys, clock: Clock) -> None:
    old, old_text = keys.create("acme", ["read"], expires_in_s=10)
    keys.rotate(old.id, grace_s=1000)
    clock.now_s += 10
    assert not is_good(keys, old_text)


def test_a_key_that_has_ended_is_not_rotated(keys: Keys, clock: Clock) -> None:
    expired, _ = keys.create("acme", ["read"], expires_in_s=10)
    revoked, _ = keys.create("acme", ["read"])
    keys.revoke(revoked.id)
    clock.now_s += 10
    for key, state in ((expired, "expired"), (revoked, "revoked")):
        with pytest.raises(InvalidInputError, match=f"is {state}: make a new one"):
            keys.rotate(key.id)
    assert len(keys.all()) == 2


@pytest.mark.parametrize("grace_s", [-1.0, float("inf"), float("nan")])
def test_a_grace_that_makes_no_sense_leaves_the_key_alone(keys: Keys, grace_s: float) -> None:
    made, text = keys.create("acme", ["read"])
    with pytest.raises(InvalidInputError, match="grace must be"):
        keys.rotate(made.id, grace_s=grace_s)
    assert keys.all() == [made]
    assert is_good(keys, text)


def test_of_rotations_at_once_one_wins(folder: Path, keys: Keys, clock: Clock) -> None:
    made, _ = keys.create("acme", ["read"])
    others = [Keys(folder, clock) for _ in range(4)]
    together = threading.Barrier(len(others))
    outcomes: list[bool] = []

    def rotate(mine: Keys) -> None:
        together.wait(10)
        try:
            mine.rotate(made.id)
            outcomes.append(True)
        except InvalidInputError:
            outcomes.append(False)

    threads = [threading.Thread(target=rotate, args=(mine,)) for mine in others]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == [False, False, False, True]
    assert len(keys.all()) == 2
    for mine in others:
        mine.close()


# ---- files ------------------------------------------------------------------------------------------


def test_what_another_process_changes_holds_at_once(folder: Path, keys: Keys, clock: Clock) -> None:
    assert not keys.are_there
    other = Keys(folder, clock)
    made, text = other.create("acme", ["read"])
    assert keys.are_there
    assert keys.recognise(text) == made
    other.revoke(made.id)
    assert not is_good(keys, text)
    _, again = keys.create("acme", ["read"])
    assert is_good(other, again)
    other.close()
    assert keys.are_there


def test_keys_outlive_those_who_made_them(folder: Path, clock: Clock) -> None:
    first = Keys(folder, clock)
    made, text = first.create("acme", ["admin"], name="é", indexes=["docs"], expires_in_s=5)
    first.close()
    second = Keys(folder, clock)
    assert second.recognise(text) == made
    second.close()


def test_without_keys_there_is_no_file(folder: Path, keys: Keys) -> None:
    assert not keys.are_there
    assert keys.all() == []
    assert not is_good(keys, "fb_0_0")
    assert list(folder.glob("keys*")) == []


def test_the_file_is_its_owners_and_holds_no_secret(folder: Path, keys: Keys) -> None:
    secrets = [keys.create("acme", ["read"])[1].split("_", 2)[2] for _ in range(5)]
    for path in folder.glob("keys.sqlite*"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert not any(secret.encode() in path.read_bytes() for secret in secrets)
    assert list(folder.glob("*draft*")) == []


def test_the_file_has_a_row_for_each_key_and_hashes_of_32_bytes(folder: Path, keys: Keys) -> None:
    keys.create("acme", ["read"])
    keys.create("other", ["write", "read"], indexes=["b", "a"])
    keys.close()
    connection = sqlite3.connect(folder / "keys.sqlite")
    rows = connection.execute(
        "SELECT tenant, scopes, indexes, length(hash) FROM keys ORDER BY tenant"
    ).fetchall()
    connection.close()
    assert rows == [("acme", "read", None, 32), ("other", "read write", "a b", 32)]


def test_a_lost_catalog_is_made_again_beside_keys(folder: Path, keys: Keys) -> None:
    keys.create("default", ["read"])
    with connect(folder) as db:
        db.create_collection("docs", 2).add("a", [1, 2])
    for path in folder.glob("catalog.sqlite*"):
        path.unlink()
    with connect(folder) as db:
        assert db.list_collections() == ["docs"]


def test_keys_and_their_indexes_are_bounded(keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("faissbase.server.keys._MOST_KEYS", 3)
    made = [keys.create("acme", ["read"])[0] for _ in range(3)]
    with pytest.raises(AccessError, match="revoke some"):
        keys.create("acme", ["read"])
    keys.create("other", ["read"])
    keys.revoke(made[0].id)
    keys.create("acme", ["read"])
    with pytest.raises(InvalidInputError, match="100 indexes"):
        keys.create("third", ["read"], indexes=[f"i{i}" for i in range(101)])


def test_a_damaged_file_of_keys_says_what_helps_and_lets_nobody_in(folder: Path, clock: Clock) -> None:
    (folder / "keys.sqlite").write_bytes(b"no database")
    keys = Keys(folder, clock)
    for call in (lambda: keys.are_there, lambda: keys.create("acme", ["read"]), keys.all):
        with pytest.raises(CorruptionError, match="put a copy of it back, or move it away") as caught:
            call()
        assert "repair()" not in str(caught.value)
    keys.close()
