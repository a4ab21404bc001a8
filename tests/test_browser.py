"""The page in a real Chromium: pick, run, watch, reload, stop, keep. The server is `python app.py`, as a user starts
it.

scripts/test tests/test_browser.py
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from dreampose_core.media import probe_video, write_png, write_video
from dreampose_core.settings import EXAMPLES, MINI, REPOSITORY
from dreampose_core.synthetic import HELD_OUT, Figure, render_clip

pytestmark = pytest.mark.browser

APP = REPOSITORY / "app.py"
SECONDS = 1000  # Playwright counts milliseconds
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--autoplay-policy=no-user-gesture-required",
)
SIZES = {"laptop": {"width": 1280, "height": 800}, "phone": {"width": 390, "height": 844}}
LIVE = "#dp-live video"


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    expect.set_options(timeout=60 * SECONDS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(FLAGS))
        yield browser
        browser.close()


class Server:
    """`python app.py` with a data folder of its own."""

    def __init__(self, home: Path, model: Path):
        self.home, self.model = home, model
        self.start("0")

    def start(self, port: str) -> None:
        home, model = self.home, self.model
        environment = {name: value for name, value in os.environ.items() if not name.startswith("DREAMPOSE_")}
        self.log = open(home.with_suffix(".log"), "a+")
        self.process = subprocess.Popen(
            [sys.executable, str(APP), "--port", port, "--model", str(model), "--device", "cpu"],
            cwd=REPOSITORY,
            env=environment | {"DREAMPOSE_HOME": str(home)},
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
        )
        line = self.process.stdout.readline()
        assert (found := re.search(r"http://127\.0\.0\.1:\d+", line)), f"the server said {line!r} and {self.stop()}"
        self.url = found[0]

    def kill_and_start_again(self) -> None:
        """The same server again, after SIGKILL."""
        self.process.kill()
        self.process.wait()
        self.log.close()
        self.start(self.url.rpartition(":")[2])

    def stop(self) -> str:
        """Ends the server and returns what it wrote to stderr."""
        self.process.terminate()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.seek(0)
        said = self.log.read()
        self.log.close()
        return said


@pytest.fixture(scope="module")
def tiny_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose model is tiny and random: quick, and its pictures mean nothing."""
    from tiny import make_tiny_model

    folder = tmp_path_factory.mktemp("tiny")
    make_tiny_model(folder / "model")
    server = Server(folder / "home", folder / "model")
    yield server
    said = server.stop()
    assert "Traceback" not in said and "ERROR" not in said, said


@pytest.fixture(scope="module")
def mini_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with the shipped model."""
    server = Server(tmp_path_factory.mktemp("mini") / "home", MINI)
    yield server
    said = server.stop()
    assert "Traceback" not in said and "ERROR" not in said, said


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Callable[..., Page]]:
    """open_page(server, size): the page in a browser profile of its own; nothing may be asked of any other machine."""
    contexts, foreign = [], []

    def open_one(server: Server, size: str = "laptop") -> Page:
        context = browser.new_context(viewport=SIZES[size], accept_downloads=True)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(60 * SECONDS)
        page.on(
            "request",
            lambda request: (
                None if request.url.startswith((server.url, "data:", "blob:")) else foreign.append(request.url)
            ),
        )
        page.goto(server.url)
        expect(page.locator("#dp-run")).to_be_visible()
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert not foreign, "the page must work without any other server"


def pick(page: Page, person: int | None = 0, motion: int | None = 0) -> None:
    """Chooses an example person and a shipped motion by their places."""
    if person is not None:
        page.locator("#dp-people .thumbnail-item").nth(person).click()
        expect(page.locator("#dp-photo img")).to_be_visible()
    if motion is not None:
        page.locator("#dp-motions .thumbnail-item").nth(motion).click()
        expect(page.locator("#dp-motion strong")).to_be_visible()


def set_options(page: Page, recipe: str | None = None, **numbers: int) -> None:
    """Sets the recipe by its label, and numbers under Advanced by theirs ("Steps", ...)."""
    if recipe:
        page.locator("#dp-recipe").get_by_label(recipe, exact=True).check()
    if numbers and not field(page, "Steps").is_visible():
        page.locator("#dp-advanced").get_by_role("button", name="Advanced").click()
    for name, value in numbers.items():
        field(page, name.replace("_", " ")).fill(str(value))


def lengthen(page: Page, times: int = 15) -> None:
    """Shows the motion so often that its job is still at work when the test wants to stop it."""
    loops = page.locator("#dp-edit").get_by_label(re.compile(r"^\s*Loops"))
    if not loops.is_visible():
        page.get_by_role("button", name="Change the motion").click()
    loops.fill(str(times))


def field(page: Page, label: str) -> Locator:
    """The field under Advanced whose label starts so; what follows is its explanation."""
    return page.locator("#dp-advanced").get_by_label(re.compile(rf"^\s*{label}"))


def run(page: Page) -> None:
    """Presses Run and waits until the page shows the new job."""
    before = page.evaluate("document.querySelector('#dp-status .dp-card')?.dataset.job ?? null")
    page.locator("#dp-run").click()
    page.wait_for_function(
        "before => (document.querySelector('#dp-status .dp-card')?.dataset.job ?? before) !== before", arg=before
    )


def wait_for_state(page: Page, state: str, minutes: float = 5) -> None:
    """Waits until the job is in `state`; a job that failed says why."""
    page.wait_for_function(
        "state => [state, 'failed', 'cancelled'].includes(document.querySelector('#dp-status "
        ".dp-card')?.dataset.state)",
        arg=state,
        timeout=minutes * 60 * SECONDS,
    )
    card = page.locator("#dp-status .dp-card")
    assert card.get_attribute("data-state") == state, page.locator("#dp-status").inner_text()


def wait_for_frames(page: Page, minutes: float = 5) -> None:
    """Waits until some frames are finished and the job still runs."""
    page.wait_for_function(
        "() => { const job = document.querySelector('#dp-status .dp-card')?.dataset; return job && (+job.frames > 0 "
        "|| ['done', 'failed', 'cancelled'].includes(job.state)) }",
        timeout=minutes * 60 * SECONDS,
    )
    card = page.locator("#dp-status .dp-card")
    assert card.get_attribute("data-state") == "running", page.locator("#dp-status").inner_text()


def wait_until_playing(page: Page, past_s: float = 0.3, minutes: float = 5) -> float:
    """Waits until the streaming player's playhead is past `past_s` seconds; returns where it is."""
    page.wait_for_function(
        "([player, past]) => document.querySelector(player)?.currentTime > past || document.querySelector('#dp-status "
        ".dp-card').dataset.state === 'failed'",
        arg=[LIVE, past_s],
        timeout=minutes * 60 * SECONDS,
    )
    return page.evaluate("player => document.querySelector(player)?.currentTime ?? 0", LIVE)


def download(page: Page, folder: Path) -> Path:
    """Presses the download button; the saved file."""
    with page.expect_download() as event:
        page.locator("#dp-download a.dp-download").click()
    path = folder / event.value.suggested_filename
    event.value.save_as(path)
    return path


def num_poses(motion: int) -> int:
    from dreampose_core.poses import read_poses

    return len(read_poses(sorted((EXAMPLES / "motions").glob("*.npz"))[motion]))


def result_files(server: Server) -> set[bytes]:
    return {path.read_bytes() for path in (server.home / "jobs").glob("*/result.mp4")}


# -- with a tiny random model ------------------------------------------------------------------------------------------


def test_frames_play_while_they_are_made(tiny_server: Server, open_page, tmp_path: Path):
    page = open_page(tiny_server, "phone")
    pick(page)
    set_options(page, "Skip", Steps=250)
    run(page)
    assert wait_until_playing(page) > 0, page.locator("#dp-status").inner_text()
    assert page.locator("#dp-status .dp-card").get_attribute("data-state") == "running", (
        "the first chunk played only when all was done"
    )
    picture = (
        "player => { const c = document.createElement('canvas'); c.width = c.height = 32;"
        " c.getContext('2d').drawImage(document.querySelector(player), 0, 0, 32, 32); return c.toDataURL() }"
    )
    first_time, first_picture = wait_until_playing(page), page.evaluate(picture, LIVE)
    assert wait_until_playing(page, first_time + 1.0) > first_time + 1.0
    assert page.evaluate(picture, LIVE) != first_picture
    wait_for_state(page, "done")
    saved = download(page, tmp_path)
    assert re.fullmatch(r"dreampose-[0-9a-f]{8}\.mp4", saved.name)
    assert saved.read_bytes() in result_files(tiny_server)
    assert probe_video(saved).num_frames == num_poses(0)
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= SIZES["phone"]["width"], "the page is wider than the phone"


def test_an_open_page_finds_its_job_again_when_the_server_was_killed(tiny_server: Server, open_page):
    page = open_page(tiny_server)
    pick(page)
    set_options(page, "Skip", Steps=40)
    lengthen(page, 10)
    run(page)
    wait_for_frames(page)
    before = int(page.locator("#dp-status .dp-card").get_attribute("data-frames"))
    page.evaluate("() => { window.before = true }")
    tiny_server.kill_and_start_again()
    page.wait_for_function("() => !window.before", timeout=120 * SECONDS)  # nobody pressed reload
    page.wait_for_function(
        "before => +(document.querySelector('#dp-status .dp-card')?.dataset.frames ?? -1) > before",
        arg=before,
        timeout=180 * SECONDS,
    )
    page.locator("#dp-stop").click()
    page.wait_for_function(
        "() => ['cancelled', 'done'].includes(document.querySelector('#dp-status .dp-card')?.dataset.state)",
        timeout=120 * SECONDS,
    )


def test_a_second_job_waits_and_says_its_place(tiny_server: Server, open_page):
    first, second = open_page(tiny_server), open_page(tiny_server)
    for page in (first, second):
        pick(page)
        lengthen(page)
        set_options(page, "Skip", Steps=250)
        run(page)
    expect(second.locator("#dp-status")).to_contain_text("Place 1", timeout=60 * SECONDS)
    expect(second.locator("#dp-shelf .dp-item")).to_have_count(1)  # its own job is the only one it knows
    first.locator("#dp-stop").click()
    wait_for_state(first, "cancelled", minutes=0.5)
    wait_for_state(second, "running", minutes=1)
    second.locator("#dp-stop").click()
    wait_for_state(second, "cancelled", minutes=0.5)


def test_bad_uploads_show_their_sentence_and_it_stays(tiny_server: Server, open_page, tmp_path: Path):
    page = open_page(tiny_server)
    page.locator("#dp-run").click()
    expect(page.locator("#dp-message [role=alert]")).to_contain_text("Choose a photo")

    (tmp_path / "holiday.png").write_bytes(b"this is no picture")
    page.locator("#dp-photo input[type=file]").set_input_files(tmp_path / "holiday.png")
    expect(page.locator("#dp-photo img")).to_be_attached()
    pick(page, person=None)
    set_options(page, "Skip")
    page.locator("#dp-run").click()
    expect(page.locator("#dp-message [role=alert]")).to_contain_text("the person in the photo agreed")
    page.locator("#dp-consent").get_by_role("checkbox").check()
    run(page)
    wait_for_state_failed(page, "holiday.png")
    expect(page.locator("#dp-message [role=alert]")).to_have_count(0)

    (tmp_path / "dance.npz").write_bytes(b"PK\x03\x04 this is no sequence")
    pick(page, motion=None)
    page.get_by_role("button", name="Your own motion").click()
    page.locator("#dp-motion-file input[type=file]").set_input_files(tmp_path / "dance.npz")
    expect(page.locator("#dp-motion")).to_contain_text("dance.npz")
    expect(page.locator("#dp-motions .thumbnail-item.selected")).to_have_count(0)
    run(page)
    wait_for_state_failed(page, "dance.npz")
    page.reload()
    wait_for_state_failed(page, "dance.npz")  # one sentence, still there


def test_a_photo_is_looked_at_and_a_video_previewed_before_anything_is_made(
    tiny_server: Server, open_page, tmp_path: Path
):
    rgb, _ = render_clip(Figure.from_seed(HELD_OUT), "wave", 8, (160, 128), fps=8.0)
    write_video(rgb.numpy(), tmp_path / "wave.mp4", 8.0)
    write_png(rgb[0].numpy(), tmp_path / "anna.png")
    page = open_page(tiny_server, "phone")
    page.locator("#dp-photo input[type=file]").set_input_files(tmp_path / "anna.png")
    expect(page.locator("#dp-look img")).to_be_visible(timeout=90 * SECONDS)
    page.locator("#dp-consent").get_by_role("checkbox").check()
    page.get_by_role("button", name="Your own motion").click()
    page.locator("#dp-motion-file input[type=file]").set_input_files(tmp_path / "wave.mp4")
    expect(page.locator("#dp-motion")).to_contain_text("wave.mp4")
    page.locator("#dp-preview").click()
    expect(page.locator("#dp-preview-result video")).to_be_visible(timeout=90 * SECONDS)
    expect(page.locator("#dp-preview-result")).to_contain_text(
        "The motion: 8 frames at 8 fps, 160 x 128, estimated from a video"
    )
    page.wait_for_function("document.querySelector('#dp-preview-result video').videoWidth == 3 * 256")
    assert page.evaluate("document.documentElement.scrollWidth") <= SIZES["phone"]["width"]
    expect(page.locator("#dp-shelf .dp-item")).to_have_count(0)  # previews are no jobs to come back to
    page.get_by_role("button", name="Change the motion").click()
    page.locator("#dp-edit").get_by_label("Frames", exact=False).first.fill("3:5")
    set_options(page, "Skip", Steps=1)
    run(page)
    wait_for_state(page, "done")
    assert probe_video(download(page, tmp_path)).num_frames == 2


def wait_for_state_failed(page: Page, words: str) -> None:
    sentence = page.locator("#dp-status [role=alert]")
    expect(sentence).to_contain_text(words, timeout=60 * SECONDS)
    assert sentence.inner_text().count("\n") == 0 and "Traceback" not in sentence.inner_text()


def test_an_example_brings_its_densepose_and_an_own_photo_takes_it_away(tiny_server: Server, open_page):
    page = open_page(tiny_server)
    page.get_by_role("button", name="DensePose of the photo").click()
    pick(page, person=0, motion=None)
    expect(page.locator("#dp-photo-poses")).to_contain_text(".poses")
    page.locator("#dp-consent").get_by_role("checkbox").check()
    page.locator("#dp-photo").get_by_role("button", name="Remove Image").click()
    expect(page.locator("#dp-photo-poses")).not_to_contain_text(".poses")
    expect(
        page.locator("#dp-consent").get_by_role("checkbox")
    ).not_to_be_checked()  # who agreed to one photo did not agree to the next
    page.locator("#dp-photo input[type=file]").set_input_files(sorted((EXAMPLES / "people").glob("*.png"))[0])
    expect(page.locator("#dp-photo img")).to_be_visible()
    expect(page.locator("#dp-people .thumbnail-item.selected")).to_have_count(0)
    expect(page.locator("#dp-photo-poses")).not_to_contain_text(".poses")
    pick(page, person=1, motion=None)
    expect(page.locator("#dp-photo-poses")).to_contain_text(".poses")


def test_more_photos_are_of_the_person_who_is_chosen(tiny_server: Server, open_page, tmp_path: Path):
    page = open_page(tiny_server, "phone")
    more, examples = page.locator("#dp-more-photos"), sorted((EXAMPLES / "people").glob("*.png"))
    pick(page)
    page.get_by_role("button", name="More photos of the same person").click()
    more.locator("input[type=file]").set_input_files(examples[1:3])
    expect(more).to_contain_text(examples[1].stem)
    expect(more).to_contain_text(examples[2].stem)
    set_options(page, "Skip", Steps=1)
    page.locator("#dp-consent").get_by_role("checkbox").check()  # they are files, not examples
    run(page)
    wait_for_state(page, "done")
    expect(page.locator("#dp-status .dp-notices")).to_contain_text("Only the first photo was used")
    newest = max((tiny_server.home / "jobs").glob("*/request.json"), key=lambda path: path.stat().st_mtime)
    assert [upload["name"] for upload in json.loads(newest.read_text())["more_images"]] == [
        path.name for path in examples[1:3]
    ]
    pick(page, person=1, motion=None)
    expect(more).not_to_contain_text(examples[2].stem)
    page.locator("#dp-shelf").get_by_role("button", name="Again").first.click()
    expect(more).to_contain_text("photo_3")
    page.locator("#dp-photo").get_by_role("button", name="Remove Image").click()
    page.locator("#dp-photo input[type=file]").set_input_files(examples[0])
    expect(more).not_to_contain_text("photo_3")
    assert page.evaluate("document.documentElement.scrollWidth") <= SIZES["phone"]["width"]


@pytest.mark.slow
def test_what_it_costs_is_known_as_soon_as_one_was_made(mini_server: Server, open_page):
    page = open_page(mini_server)
    expect(page.locator("#dp-pace")).to_contain_text("not known yet")
    pick(page)
    set_options(page, "Skip")
    run(page)
    wait_for_state(page, "done")
    expect(page.locator("#dp-pace")).to_contain_text(
        re.compile(r"Measured on this server \(\w+\): 60 frames about \d+ s, with at most")
    )


def test_random_seed_shows_the_seed_that_is_used(tiny_server: Server, open_page):
    page = open_page(tiny_server)
    pick(page)
    set_options(page, "Skip", Steps=1)
    page.get_by_role("button", name="Random seed").click()
    seed = field(page, "Seed")
    expect(seed).not_to_have_value("0")
    run(page)
    wait_for_state(page, "done")
    newest = max((tiny_server.home / "jobs").glob("*/result.json"), key=lambda path: path.stat().st_mtime)
    assert f'"seed": {seed.input_value()}' in json.dumps(json.loads(newest.read_text()))
