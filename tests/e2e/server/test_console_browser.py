"""The console in a real browser: what a person does with it, and what hostile records may not do."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.e2e.server.browsing import Console, launched
from tests.e2e.server.running import Running, done, made, made_damaged, new_key

import faissbase
from faissbase.server.keys import Keys

HOSTILE = '<img src=x onerror="alert(1)">'
LARGE = 9007199254740993  # JavaScript's own numbers would make it ...992
RECORDS: list[dict[str, Any]] = [
    {
        "id": HOSTILE,
        "values": [0, 1, 0],
        "metadata": {HOSTILE: HOSTILE, "n": LARGE},
        "document": f"evil {HOSTILE}",
    },
    {"id": "..", "values": [0, 0, 1], "metadata": {"kind": "path"}, "document": "<script>alert(2)</script>"},
    {"id": "a/b?c#d", "values": [1, 0, 0], "metadata": {"kind": "path", "deep": {"list": [1, "two"]}}},
    {"id": "plain", "values": [1, 1, 0], "metadata": {}, "document": "a plain document"},
]
Opened = Callable[..., Console]


@dataclass(frozen=True)
class Target:
    """A server with one index, ``docs``, and a client of it."""

    running: Running
    key: str
    http: httpx.Client


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with launched() as found:
        yield found


@pytest.fixture
def opened(browser: Any) -> Iterator[Opened]:
    """Opens a tab that shares nothing with another, and looks at the end at what went on in all of them."""
    tabs: list[Console] = []

    def open_tab(running: Running, place: str = "", **context: Any) -> Console:
        page = browser.new_context(**context).new_page()
        tabs.append(Console(page, running.url).watch())
        return tabs[-1].open(place)

    yield open_tab
    for tab in tabs:
        tab.check()
        tab.page.context.close()


@pytest.fixture(scope="module")
def served(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    folder = made(tmp_path_factory.mktemp("browser") / "data")
    _, key = new_key(folder, "acme", "write")
    with Running(folder) as running, running.client(key) as http:
        yield Target(running, key, http)


@pytest.fixture
def target(served: Target) -> Iterator[Target]:
    """The index as it should be at the beginning of each test."""
    done(served.http.post("/index", json={"name": "docs", "dimension": 3, "metric": "cosine"}), 201)
    done(served.http.post("/index/docs/vectors", json={"vectors": RECORDS}))
    yield served
    for each in done(served.http.get("/index"))["indexes"]:
        assert served.http.delete(f"/index/{each['name']}").status_code == 204


# ---- who asks ------------------------------------------------------------------------------------


def test_only_a_good_key_signs_in_and_it_is_forgotten_at_the_end(target: Target, opened: Opened) -> None:
    tab = opened(target.running, "#/index/docs/records")
    tab.heading("Sign in")
    tab.sign_in("fb_000000000000_wrong")
    with target.running.client("fb_000000000000_wrong") as stranger:
        message = stranger.get("/index").json()["error"]["message"]
    tab.sees(message)
    assert "401 unauthenticated · request " in tab.refusal()
    tab.sign_in(target.key)
    tab.heading("docs")
    kept = "[JSON.stringify({...sessionStorage}), localStorage.length, document.cookie]"
    assert tab.page.evaluate(kept) == [f'{{"faissbase.key":"{target.key}"}}', 0, ""]
    tab.page.reload()
    tab.heading("docs")
    tab.press("Sign out")
    tab.heading("Sign in")
    assert tab.page.evaluate(kept) == ["{}", 0, ""]
    assert [url for url in tab.asked if "fb_" in url] == []
    assert "plain" not in tab.page.content()


def test_a_key_that_is_revoked_leads_back_to_signing_in_with_the_reason(
    target: Target, opened: Opened
) -> None:
    made_key, text = new_key(target.running.folder, "acme", "read")
    tab = opened(target.running, "#/index/docs/search").sign_in(text)
    tab.type("Text", "plain")
    keys = Keys(target.running.folder)
    keys.revoke(made_key.id)
    keys.close()
    tab.press("Search")
    tab.heading("Sign in")
    assert "401 unauthenticated" in tab.refusal()
    tab.sign_in(target.key)
    assert tab.page.get_by_role("textbox", name="Text", exact=True).input_value() == "plain"


def test_what_a_key_may_not_do_is_told_in_the_servers_words(target: Target, opened: Opened) -> None:
    _, text = new_key(target.running.folder, "acme", "read")
    tab = opened(target.running).sign_in(text)
    tab.press("Delete docs")
    tab.type("Type its name to delete it", "docs")
    tab.press("Delete it")
    tab.sees("403 access · request ")
    assert [each["name"] for each in done(target.http.get("/index"))["indexes"]] == ["docs"]


def test_without_keys_nobody_is_asked_for_one_and_a_server_that_is_gone_is_told(
    opened: Opened, tmp_path: Path
) -> None:
    with Running(made(tmp_path / "data")) as running:
        tab = opened(running)
        tab.sees("No index yet")
        tab.press("New index")
        tab.type("Name", "first")
        tab.page.get_by_label("Dimension").fill("3")
        tab.press("Create")
        tab.heading("first")
        assert tab.page.get_by_role("button", name="Sign out").count() == 0
        with running.client() as http:
            done(http.post("/index/first/vectors", json={"vectors": RECORDS}))
        tab.page.get_by_role("link", name="Records").click()
        tab.page.get_by_role("link", name="Search").click()
        tab.type("Text", "plain")
        running.kill()
        tab.press("Search")
        tab.sees(f"no answer from {running.url}")
        assert tab.page.get_by_role("textbox", name="Text", exact=True).input_value() == "plain"
        tab.page.get_by_role("link", name="Server").click()
        tab.heading("This page cannot be shown")
        tab.page.get_by_role("button", name="Try again").wait_for()


# ---- indexes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "dimension"), [("small", 3), ("wide", 40)])
def test_an_index_is_made_and_filled_by_the_commands_it_shows(
    target: Target, opened: Opened, tmp_path: Path, name: str, dimension: int
) -> None:
    tab = opened(target.running).sign_in(target.key)
    tab.press("New index")
    tab.type("Name", "docs")
    tab.page.get_by_label("Dimension").fill(str(dimension))
    tab.press("Create")
    tab.sees("409 already_exists")
    tab.type("Name", name)
    tab.press("Create")
    tab.heading(name)
    curl, python = (
        str(tab.page.get_by_label(f"with {each}", exact=True).inner_text()) for each in ("curl", "Python")
    )
    assert target.key not in curl + python
    environment = {**os.environ, "FAISSBASE_API_KEY": target.key}
    (tmp_path / "insert.py").write_text(python)
    with_python = [[sys.executable, str(tmp_path / "insert.py")]] if dimension == 3 else []
    for command in (["bash", "-c", curl], *with_python):
        done(target.http.post(f"/index/{name}/reset"))
        subprocess.run(command, env=environment, check=True, capture_output=True)
        assert done(target.http.get(f"/index/{name}"))["ntotal"] == 2
    tab.page.get_by_role("link", name="Records").click()
    assert tab.ids("Records") == ["first", "second"]


def test_an_index_is_deleted_once_its_name_was_typed(target: Target, opened: Opened) -> None:
    tab = opened(target.running).sign_in(target.key)
    row = tab.row("docs")
    row.wait_for()
    assert row.get_by_role("cell").all_inner_texts()[1:5] == ["4", "3", "cosine", "auto"]
    tab.page.get_by_role("cell", name="KiB").wait_for()
    tab.press("Delete docs")
    delete = tab.page.get_by_role("button", name="Delete it")
    for wrong in ("", "doc", "DOCS", "docs "):
        tab.type("Type its name to delete it", wrong)
        assert delete.is_disabled()
    tab.page.keyboard.press("Enter")
    tab.page.keyboard.press("Escape")
    assert done(target.http.get("/index/docs"))["ntotal"] == 4
    tab.press("Delete docs")
    tab.type("Type its name to delete it", "docs")
    delete.click()
    tab.sees("No index yet")
    assert done(target.http.get("/index")) == {"indexes": []}


def test_the_overview_tells_sizes_and_verifies(target: Target, opened: Opened) -> None:
    done(target.http.post("/index/docs/vectors/delete", json={"ids": ["plain"]}))
    tab = opened(target.running, "#/index/docs/overview").sign_in(target.key)
    tab.sees("1 (25.0 %)")
    tab.sees("nothing: every search is exact")
    tab.press("Verify")
    tab.sees("Everything was read and is as it was written: 3 rows.")
    tab.press("Optimize")
    tab.sees("0 (0 %)")


def test_what_verify_finds_damaged_is_repaired(target: Target, opened: Opened) -> None:
    _, text = new_key(target.running.folder, "acme", "admin")
    done(target.http.post("/index/docs/optimize"))
    id = done(target.http.get("/index/docs"))["id"]
    [vectors] = (target.running.folder / "acme" / id).glob("vectors.*.f32")
    tab = opened(target.running, "#/index/docs/overview").sign_in(text)
    tab.heading("docs")
    with open(vectors, "r+b") as file:
        file.write(b"\x55" * 4)
    tab.press("Verify")
    tab.sees("Damage was found.")
    tab.press("Repair")
    tab.press("Repair it")
    tab.sees("Repaired; verify it again.")
    tab.press("Verify")
    tab.sees("Everything was read and is as it was written")


def test_an_index_that_cannot_be_read_is_repaired_all_the_same(opened: Opened, tmp_path: Path) -> None:
    with Running(made_damaged(tmp_path / "data")) as running:
        tab = opened(running, "#/index/docs/search")
        tab.page.get_by_role("link", name="Overview").click()
        tab.sees("500 corruption")
        tab.press("Verify")
        tab.sees("Damage was found.")
        tab.page.get_by_role("button", name="Repair").last.click()
        tab.press("Repair it")
        tab.press("Open it")
        tab.sees("298 records")


def test_the_recall_of_what_was_asked_is_reported(target: Target, opened: Opened) -> None:
    tab = opened(target.running, "#/index/docs/overview").sign_in(target.key)
    tab.press("Measure recall")
    tab.sees("Nothing was asked of this index by vector")
    for filter in (None, {"kind": "path"}):
        body = {"vector": [1, 2, 3], "k": 2, "filter": filter}
        done(target.http.post("/index/docs/search", json=body))
    tab.press("Measure recall")
    tab.sees("2 of 2 recent questions asked again exactly")
    lines = tab.page.get_by_role("table", name="Recall").locator("tbody tr")
    cells = [line.get_by_role("cell").all_inner_texts() for line in lines.all()]
    assert [(each[0], *each[1:3], each[-1]) for each in cells] == [
        ("10 to 50 %", "1", "1.0000", "met"),
        ("99.9 to 100 %", "1", "1.0000", "met"),
    ]


# ---- keys and backups ----------------------------------------------------------------------------


def may_search(running: Running, key: str) -> bool:
    with running.client(key) as http:
        answer = http.post("/index/docs/search", json={"text": "plain", "k": 1})
    assert answer.status_code in (200, 401, 404)
    return answer.status_code == 200


def shown_key(tab: Console) -> str:
    return str(tab.page.get_by_label("the key", exact=True).inner_text())


def test_a_key_is_made_shown_once_rotated_and_revoked(target: Target, opened: Opened) -> None:
    name = f"shop {HOSTILE}"
    admin, text = new_key(target.running.folder, "acme", "admin")
    tab = opened(target.running, "#/keys").sign_in(text)
    tab.press("New key")
    tab.type("Name", name)
    tab.type("Indexes", "docs, other")
    tab.page.get_by_label("Expires in days").fill("0")
    tab.press("Make it")
    tab.sees("422 invalid_input")
    tab.page.get_by_label("Expires in days").fill("30")
    tab.press("Make it")
    tab.sees("Copy it now")
    for key in ("Escape", "Enter"):
        tab.page.keyboard.press(key)
    first = shown_key(tab)
    assert tab.page.evaluate("getSelection().toString()") == first
    assert may_search(target.running, first)
    tab.press("I have it")
    tab.row(first.split("_")[1]).wait_for()
    assert tab.row(name).get_by_role("cell").all_inner_texts()[1:3] == ["read", "docs, other"]
    assert first not in tab.page.content()
    tab.press(f"Rotate {name}")
    tab.press("Rotate it")
    tab.sees("Copy it now")
    second = shown_key(tab)
    assert [may_search(target.running, each) for each in (first, second)] == [False, True]
    tab.press("I have it")
    tab.row(second.split("_")[1]).wait_for()
    tab.press(f"Revoke {name}")
    tab.press("Revoke it")
    tab.page.get_by_role("button", name=f"Revoke {name}").wait_for(state="detached")
    assert not may_search(target.running, second)
    tab.press(f"Rotate {admin.id}")
    tab.press("Rotate it")
    tab.sees("this tab goes on with the new one")
    tab.press("I have it")
    tab.row("yours").wait_for()
    assert tab.page.evaluate("sessionStorage['faissbase.key']") != text


def test_who_may_not_manage_keys_or_make_backups_is_told(target: Target, opened: Opened) -> None:
    tab = opened(target.running, "#/keys").sign_in(target.key)
    tab.sees("403 access · request ")
    assert tab.page.get_by_role("button", name="New key").count() == 0
    tab.page.get_by_role("link", name="Server").click()
    tab.press("Make a backup")
    tab.sees("this needs a key with the scope 'admin'")


def test_a_backup_is_saved_and_can_be_restored(target: Target, opened: Opened, tmp_path: Path) -> None:
    _, text = new_key(target.running.folder, "acme", "admin")
    tab = opened(target.running, "#/server").sign_in(text)
    with tab.page.expect_download() as download:
        tab.press("Make a backup")
    assert download.value.suggested_filename == "acme.faissbase"
    tab.sees("faissbase restore acme.faissbase --into ./restored")
    restored = faissbase.restore(download.value.path(), tmp_path / "again", tenant="default")
    with faissbase.connect(restored) as db:
        assert db.get_collection("docs").count() == len(RECORDS)


def test_the_first_key_of_a_server_closes_it_and_is_kept_first(opened: Opened, tmp_path: Path) -> None:
    with Running(made(tmp_path / "data")) as running:
        tab = opened(running, "#/keys")
        tab.sees("No key yet")
        tab.press("New key")
        tab.press("Make it")
        tab.sees("Copy it now")
        key = shown_key(tab)
        tab.press("I have it")
        tab.heading("Sign in")
        tab.sign_in(key)
        tab.sees("1 good key")


# ---- records -------------------------------------------------------------------------------------


def test_hostile_records_are_text(target: Target, opened: Opened) -> None:
    tab = opened(target.running, "#/index/docs/records").sign_in(target.key)
    assert tab.ids("Records") == [each["id"] for each in RECORDS]
    tab.sees("<script>alert(2)</script>")
    tab.row("onerror").locator("summary").first.click()
    tab.press(HOSTILE)
    window = tab.window()
    assert window.get_by_role("heading").inner_text() == HOSTILE
    shown = window.inner_text()
    assert f'"n": {LARGE}' in shown
    assert f"evil {HOSTILE}" in shown
    window.get_by_role("button", name="Search like this").click()
    assert len(tab.ids("Hits")) == 3
    assert tab.page.locator("img").count() == 1  # the logo
    assert tab.page.locator("body script").count() == 0


def test_a_page_that_tries_is_stopped_by_the_browser(target: Target, opened: Opened) -> None:
    """The last line of defence, tried by hand: a script in the page cannot make markup of a text."""
    tab = opened(target.running)
    tab.heading("Sign in")
    tries = "try { document.body.innerHTML = '<b>x</b>'; 'done' } catch (error) { error.name }"
    assert tab.page.evaluate(tries) == "TypeError"
    elsewhere = "http://127.0.0.1:1/x.png"
    image = """(src) => new Promise((done) => {
        document.addEventListener("securitypolicyviolation", (event) => done(event.blockedURI));
        document.body.append(Object.assign(document.createElement("img"), { src }));
    })"""
    assert tab.page.evaluate(image, elsewhere) == elsewhere
    assert any("TrustedHTML" in each for each in tab.troubles)
    tab.troubles.clear()
    tab.asked.clear()


@pytest.mark.parametrize("id", [each["id"] for each in RECORDS])
def test_a_record_of_any_id_is_looked_up_and_deleted(target: Target, opened: Opened, id: str) -> None:
    tab = opened(target.running, "#/index/docs/records").sign_in(target.key)
    tab.type("Look up an id", id)
    tab.press("Open")
    tab.window().get_by_role("button", name="Delete").click()
    tab.sees("for good?")
    tab.press("Delete it")
    tab.sees("3 records · page 1")
    assert id not in tab.ids("Records")
    left = [each["id"] for each in done(target.http.get("/index/docs/vectors"))["vectors"]]
    assert left == [each["id"] for each in RECORDS if each["id"] != id]


def test_an_id_that_is_not_there_is_told(target: Target, opened: Opened) -> None:
    tab = opened(target.running, "#/index/docs/records").sign_in(target.key)
    tab.type("Look up an id", HOSTILE + "x")
    tab.press("Open")
    assert tab.window().locator("p").inner_text() == f"There is no record {HOSTILE}x."


def test_a_record_is_changed_and_its_large_numbers_stay(target: Target, opened: Opened) -> None:
    tab = opened(target.running, "#/index/docs/records").sign_in(target.key)
    tab.press(HOSTILE)
    tab.window().get_by_role("button", name="Edit").click()
    text = tab.page.get_by_label("Metadata").input_value()
    tab.page.get_by_label("Metadata").fill(text + "x")
    tab.press("Save")
    tab.sees("the metadata is not JSON")
    tab.page.get_by_label("Metadata").fill(text.replace('"n":', '"added": true, "n":'))
    tab.press("Save")
    tab.window().wait_for(state="detached")
    [found] = done(target.http.post("/index/docs/vectors/get", json={"ids": [HOSTILE]}))["vectors"]
    assert found["metadata"] == {HOSTILE: HOSTILE, "n": LARGE, "added": True}
    assert found["document"] == RECORDS[0]["document"]


def test_a_record_is_added_and_not_over_another(target: Target, opened: Opened) -> None:
    tab = opened(target.running, "#/index/docs/records").sign_in(target.key)
    tab.press("Add a record")
    tab.type("Id", "plain")
    tab.type("Vector", "0.5 0.5\n0.5")
    tab.type("Document", "a new document")
    tab.press("Store it")
    tab.sees("409 already_exists")
    tab.type("Id", "new")
    tab.press("Store it")
    tab.sees("5 records · page 1")
    found = done(target.http.post("/index/docs/vectors/get", json={"ids": ["plain", "new"]}))["vectors"]
    assert [each["document"] for each in found] == ["a plain document", "a new document"]


def test_records_are_shown_page_by_page_and_by_filter(target: Target, opened: Opened) -> None:
    many = [{"id": f"r{i:03}", "values": [1, 2, i], "metadata": {"i": i}} for i in range(60)]
    done(target.http.post("/index", json={"name": "many", "dimension": 3}), 201)
    done(target.http.post("/index/many/vectors", json={"vectors": many}))
    ids = [each["id"] for each in many]
    tab = opened(target.running, "#/index/many/records").sign_in(target.key)
    tab.sees("60 records · page 1")
    assert tab.ids("Records") == ids[:25]
    for page, first in ((2, 25), (3, 50)):
        tab.press("Next")
        tab.sees(f"60 records · page {page}")
        assert tab.ids("Records") == ids[first : first + 25]
    assert tab.page.get_by_role("button", name="Next").is_disabled()
    tab.press("Previous")
    tab.sees("60 records · page 2")
    assert tab.ids("Records") == ids[25:50]
    tab.type("Filter", '{"i": {"$gte": 30}}')
    tab.press("Apply")
    tab.sees("30 records of 60 match · page 1")
    assert tab.ids("Records") == ids[30:55]
    tab.press("Next")
    tab.sees("30 records of 60 match · page 2")
    assert tab.ids("Records") == ids[55:]
    tab.type("Filter", '{"i": {"$no": 1}}')
    tab.press("Apply")
    tab.sees("422 invalid_input")
    assert tab.ids("Records") == ids[55:]


# ---- searches ------------------------------------------------------------------------------------


def test_a_search_by_text_vector_both_and_example(target: Target, opened: Opened) -> None:
    tab = opened(target.running, "#/index/docs/search").sign_in(target.key)
    tab.type("Text", "plain")
    tab.press("Search")
    tab.sees("1 hit")
    assert tab.ids("Hits") == ["plain"]
    tab.choose("Vector")
    tab.type("Vector", "[1, 0.1, 0]")
    tab.sees("3 of 3 numbers.")
    tab.page.get_by_label("Explain").check()
    tab.press("Search")
    tab.sees("How it was searched")
    tab.sees("4 of 4 (100 %)")
    assert tab.ids("Hits")[:2] == ["a/b?c#d", "plain"]
    tab.type("Filter", '{"kind": "path"}')
    tab.press("Search")
    tab.sees("2 of 4 (50.0 %)")
    assert tab.ids("Hits") == ["a/b?c#d", ".."]
    tab.choose("Text and vector")
    tab.type("Filter", "")
    tab.press("Search")
    tab.page.get_by_text("How it was searched").wait_for(state="detached")
    assert tab.ids("Hits")[0] == "plain"
    tab.choose("Like a record")
    tab.type("Id of the record", "plain")
    tab.page.keyboard.press("Enter")
    tab.sees("3 hits")
    assert "plain" not in tab.ids("Hits")
    tab.page.get_by_text("This search as a command").click()
    command = str(tab.page.get_by_label("with curl", exact=True).inner_text())
    environment = {**os.environ, "FAISSBASE_API_KEY": target.key}
    ran = subprocess.run(["bash", "-c", command], env=environment, check=True, capture_output=True)
    assert ran.stdout.count(b'"score"') == 3


def test_what_is_wrong_with_a_search_is_told_and_nothing_typed_is_lost(
    target: Target, opened: Opened
) -> None:
    tab = opened(target.running, "#/index/docs/search").sign_in(target.key)
    tab.choose("Vector")
    wrong = [
        ("[1, 2]", "", "vector: expected 3 values, got 2"),
        ("[1, x, 2]", "", 'the vector has "x", which is no number'),
        ("[1, 2, 3]", "{kind: 1}", "the filter is not JSON: "),
        ("[1, 2, 3]", '{"kind": {"$no": 1}}', "field 'kind': unknown operator '$no'"),
        ("[0, 0, 0]", "", "cosine"),
    ]
    for vector, filter, told in wrong:
        tab.type("Vector", vector)
        tab.type("Filter", filter)
        tab.press("Search")
        tab.page.get_by_role("alert").filter(has_text=told).wait_for()
        is_the_servers = "JSON" not in told and "no number" not in told
        assert ("422 invalid_input · request " in tab.refusal()) == is_the_servers
    tab.page.get_by_role("link", name="Records").click()
    tab.ids("Records")
    tab.page.get_by_role("link", name="Search").click()
    assert tab.page.get_by_role("textbox", name="Vector", exact=True).input_value() == "[0, 0, 0]"


# ---- everybody -----------------------------------------------------------------------------------

PLACES = {
    "": "Indexes",
    "#/index/docs/search": "docs",
    "#/index/docs/records": "docs",
    "#/index/docs/overview": "docs",
    "#/keys": "Keys",
    "#/server": "Server",
}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_narrow_window_shows_all_of_every_page(target: Target, opened: Opened, scheme: str) -> None:
    window = {"viewport": {"width": 360, "height": 700}, "color_scheme": scheme}
    tab = opened(target.running, **window).sign_in(target.key)
    for place, heading in PLACES.items():
        tab.open(place)
        tab.heading(heading)
        tab.page.wait_for_load_state("networkidle")
        assert tab.page.evaluate("document.documentElement.scrollWidth") <= 360, place
    if scheme == "dark":
        colour = tab.page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert sum(map(int, colour[4:-1].split(","))) < 150


def test_every_control_has_a_name_and_the_keyboard_reaches_them(target: Target, opened: Opened) -> None:
    tab = opened(target.running).sign_in(target.key)
    nameless = """[...document.querySelectorAll("a, button, input, select, textarea")].filter((each) =>
        !each.labels?.length && !each.getAttribute("aria-label") && !each.textContent.trim()).length"""
    for place in PLACES:
        tab.open(place)
        tab.page.wait_for_load_state("networkidle")
        assert tab.page.evaluate(nameless) == 0, place
    tab.open("#/index/docs/search")
    tab.heading("docs")
    tab.page.locator(".brand").focus()
    tab.page.keyboard.press("Shift+Tab")
    assert tab.page.evaluate("document.activeElement.textContent") == "Skip to content"
    tab.page.keyboard.press("Enter")
    assert tab.page.evaluate("document.activeElement.id") == "content"
    tab.heading("docs")
    for _ in range(20):
        tab.page.keyboard.press("Tab")
        if tab.page.evaluate("document.activeElement.placeholder") == "words of the documents":
            break
    tab.page.keyboard.type("plain")
    tab.page.keyboard.press("Enter")
    assert tab.ids("Hits") == ["plain"]


def test_the_console_works_below_the_prefix_of_a_proxy(target: Target, opened: Opened) -> None:
    tab = opened(target.running)

    def forward(route: Any) -> None:
        request = route.request
        headers = {name: value for name, value in request.headers.items() if name != "host"}
        url = request.url.replace("/below/", "/")
        answer = httpx.request(request.method, url, headers=headers, content=request.post_data_buffer)
        route.fulfill(status=answer.status_code, headers=dict(answer.headers), body=answer.content)

    tab.asked.clear()
    tab.page.route("**/below/**", forward)
    tab.page.goto(f"{target.running.url}/below/console/#/index/docs/search")
    tab.sign_in(target.key)
    tab.type("Text", "plain")
    tab.press("Search")
    assert tab.ids("Hits") == ["plain"]
    assert [url for url in tab.asked if "/below/" not in url] == []


def test_the_servers_page_lists_its_routes_and_gives_the_document(target: Target, opened: Opened) -> None:
    tab = opened(target.running, "#/server").sign_in(target.key)
    tab.sees("/v1/index/{index}/specialized_search")
    with tab.page.expect_download() as download:
        tab.press("Download openapi.json")
    content = Path(download.value.path()).read_text()
    assert content == target.http.get("/openapi.json").text
