"""The page in a real Chromium: from first sight to a finished video, and what may go wrong on the way. The server is
`python app.py`, as a user starts it.

scripts/test tests/test_browser.py
DREAMPOSE_SHOTS=docs/tour scripts/test tests/test_browser.py      # with mini; takes the pictures of docs/tour.md
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from drawn import drawn_clip
from playwright.sync_api import Browser, Page, expect, sync_playwright

from dreampose_core.media import probe_video, write_png, write_video
from dreampose_core.poses.renderings import MAGIC_ANIMATE
from dreampose_core.settings import MINI
from dreampose_core.synthetic import HELD_OUT
from tests.serving import Server, kill, running_server
from tests.tiny import make_tiny_model

pytestmark = pytest.mark.browser

SECONDS = 1000  # Playwright counts milliseconds
FLAGS = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync".split()
FLAGS += ["--disable-background-networking", "--disable-component-update"]
SIZES = {"laptop": {"width": 1280, "height": 800}, "phone": {"width": 390, "height": 844}}
SHOWN = "mini" if "DREAMPOSE_SHOTS" in os.environ else "tiny"
MAX_SHIFT, MAX_BYTES = 0.1, 1_600_000
# What plays on the stage, one after the other, in `seen`.
WATCH_STAGE = """seen = []; new MutationObserver(() => {
  const player = document.querySelector(".player:not([hidden])");
  const caption = document.querySelector(".caption")?.textContent ?? "";
  const now = caption.startsWith("Quick preview") ? "preview" : player?.src.startsWith("blob:") ? "stream" : "video";
  if (player && seen.at(-1) !== now) seen.push(now);
}).observe(document.querySelector("#stage"), {subtree: true, childList: true, attributes: true, characterData: true})"""
# Cumulative layout shift, without Gradio's own loading sign.
WATCH_SHIFT = """
window.shift = 0;
new PerformanceObserver((list) => {
  for (const entry of list.getEntries())
    if (entry.sources.some(({ node }) => (node?.parentElement ?? node)?.closest?.("#main, #header")))
      shift += entry.value;
}).observe({ type: "layout-shift", buffered: true });
"""


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    expect.set_options(timeout=120 * SECONDS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module", params=[SHOWN])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with the shipped model, or with a tiny random one: quick, and its pictures mean nothing."""
    folder = tmp_path_factory.mktemp(request.param)
    model = MINI if request.param == "mini" else make_tiny_model(folder / "model")
    with running_server(folder / "home", model, estimator="body") as server:
        yield server


@pytest.fixture
def open_page(browser: Browser, server: Server) -> Iterator[Callable[..., Page]]:
    """open_page(size, **how): the page in a browser profile of its own. Nothing may be asked of any other machine, and
    nothing may go wrong in a script."""
    contexts, wrong = [], []

    def open_one(size: str = "laptop", clock: bool = False, **how) -> Page:
        context = browser.new_context(**{"viewport": SIZES[size], "accept_downloads": True} | how)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(180 * SECONDS)
        if clock:
            page.clock.install()
        page.add_init_script(WATCH_SHIFT)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda r: None if r.url.startswith((server.url, "data:", "blob:")) else wrong.append(r.url))
        page.goto(server.url)
        expect(page.locator(".stage .player")).to_be_visible()
        expect(page.locator("#run")).to_be_visible()
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert not wrong


@pytest.fixture
def shoot(tmp_path: Path) -> Callable[[Page, str], None]:
    """shoot(page, name): a picture of the window, NAME.jpg, in the folder DREAMPOSE_SHOTS."""
    folder = Path(os.environ.get("DREAMPOSE_SHOTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)

    def one(page: Page, name: str) -> None:
        page.wait_for_timeout(400)  # what has just come into view is still being drawn
        page.screenshot(path=folder / f"{name}.jpg", type="jpeg", quality=80)

    return one


def wait_for_state(page: Page, *states: str) -> None:
    """Waits until the stage shows a job in one of these states."""
    page.wait_for_function(
        "states => states.includes(document.querySelector('.stage')?.dataset.state)",
        arg=list(states),
        timeout=180 * SECONDS,
    )


def wait_until_playing(page: Page) -> None:
    page.wait_for_function("document.querySelector('.stage .player')?.currentTime > 0.1", timeout=120 * SECONDS)


def run(page: Page, *states: str) -> None:
    """Presses the button and waits for the job's end."""
    expect(page.locator("#run")).to_be_enabled()
    before = page.locator(".stage").get_attribute("data-job")
    page.click("#run")
    page.wait_for_function("before => document.querySelector('.stage').dataset.job !== before", arg=before)
    wait_for_state(page, *(states or ("done",)))


def choose(page: Page, person: str = "bela", motion: str | None = None, frames: str = "0:12") -> None:
    """Chooses examples, a few frames and no fine-tuning, and waits for their preview."""
    page.click("#advanced button")
    page.locator("#advanced").get_by_label("None", exact=True).last.check()
    page.locator("#advanced").get_by_label("Frames").fill(frames)
    page.click(f'#people [data-name="{person}"]')
    if motion:
        page.click(f'#motions [data-name="{motion}"]')
    expect(page.locator("#run")).to_be_enabled()
    expect(page.locator(".caption")).to_contain_text("Quick preview")


def act(page: Page, words: str, number: int = 0) -> None:
    """Chooses from the menu of a video in the library."""
    page.locator(".videos .menu summary").nth(number).click()
    page.locator(".videos .menu").nth(number).get_by_text(words).click()


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A photo, a clip of another person, renderings of it in known and unknown colours, and files that are none."""
    folder = tmp_path_factory.mktemp("own")
    photo, _ = drawn_clip(HELD_OUT + 4, "idle", 1, (320, 256))
    frames, poses = drawn_clip(HELD_OUT + 5, "wave", 12, (320, 256))
    write_png(photo[0], folder / "photo.png")
    write_png(np.full((320, 256, 3), (40, 160, 60), np.uint8), folder / "green.png")
    two = np.concatenate([photo[0], frames[0]], 1)
    write_png(two, folder / "two.png")
    write_video(iter(frames), folder / "wave.mp4", 10)
    write_video(iter(MAGIC_ANIMATE.colours[poses.parts]), folder / "rendering.mp4", 10)
    other = np.random.default_rng(0).integers(0, 256, (25, 3)).astype(np.uint8)
    write_video(iter(other[poses.parts]), folder / "colours.mp4", 10)
    (folder / "broken.png").write_bytes(b"no picture")
    (folder / "broken.mp4").write_bytes(b"no video")
    return folder


def give(page: Page, place: str, file: Path) -> None:
    """Chooses a file as a visitor does: a click, then the browser's dialog."""
    with page.expect_file_chooser() as chooser:
        page.locator(place).click()
    chooser.value.set_files(file)


@pytest.mark.parametrize("size", SIZES)
def test_first_sight(open_page, shoot, size: str):
    """An example plays; all up to the button is there without scrolling; nothing moves while it loads."""
    page = open_page(size)
    wait_until_playing(page)
    shoot(page, f"{size}-1-first")
    expect(page.locator("#run")).to_be_disabled()
    expect(page.locator("#run")).to_have_text("Add a photo")
    assert page.locator("#run").bounding_box()["y"] + 40 <= SIZES[size]["height"]
    assert page.evaluate("document.documentElement.scrollWidth") == SIZES[size]["width"]
    assert page.evaluate("shift") <= MAX_SHIFT
    loaded = "performance.getEntriesByType('resource').reduce((sum, entry) => sum + entry.transferSize, 0)"
    assert page.evaluate(loaded) <= MAX_BYTES
    empty = (
        "[...document.querySelectorAll('.empty')].filter((e) => e.offsetParent && e.closest('#form, #stage')).length"
    )
    assert page.evaluate(empty) == 0


def test_one_press_plays_a_ready_made_video_and_fills_the_form(open_page):
    page = open_page()
    page.locator("#pairs button").first.click()
    expect(page.locator(".caption")).to_have_text("Example: Ada, arms")
    wait_until_playing(page)
    expect(page.locator("#photo img")).to_be_visible()
    expect(page.locator('#motions [aria-checked="true"]')).to_have_attribute("data-name", "arms")
    expect(page.locator("#run")).to_be_enabled()


@pytest.mark.parametrize(
    ("server", "size"),
    [pytest.param("mini", "laptop", marks=pytest.mark.slow), (SHOWN, "phone"), (SHOWN, "laptop")],
    indirect=["server"],
)
def test_two_presses_make_a_video(open_page, shoot, size: str, tmp_path: Path):
    """A person and the button: preview, stream, video; it is kept, found after a reload, downloaded and deleted."""
    page = open_page(size)
    page.click('#people [data-name="bela"]')
    expect(page.locator(".caption")).to_contain_text("Quick preview")
    wait_until_playing(page)
    shoot(page, f"{size}-2-preview")
    page.evaluate(WATCH_STAGE)
    before = page.locator(".stage").get_attribute("data-job")
    page.click("#run")
    page.wait_for_function("before => document.querySelector('.stage').dataset.job !== before", arg=before)
    made = "document.querySelector('.stage').dataset.state === 'done'"
    page.wait_for_function(made + " || document.querySelector('.veil .detail').textContent.match(/Frame \\d\\d/)")
    shoot(page, f"{size}-3-frames")
    wait_for_state(page, "done")
    wait_until_playing(page)
    shoot(page, f"{size}-4-done")
    assert page.evaluate("seen")[:2] == ["preview", "stream"], "the preview goes on until the stream begins"
    assert page.locator(".player").evaluate("v => v.muted && v.loop && v.playsInline")
    link = page.locator(".stage .download")
    expect(link).to_contain_text(re.compile(r"Download \d+ × \d+, [\d.]+ MB"))
    with page.expect_download() as download:
        link.click()
    assert download.value.suggested_filename == "bela-fashion.mp4"
    download.value.save_as(tmp_path / "saved.mp4")
    assert probe_video(tmp_path / "saved.mp4").num_frames == 100
    page.click(".more summary")
    for name in ("GIF", "Side by side (MP4)", "Frames (ZIP)", "Motion (NPZ)", "Settings (JSON)"):
        found = page.request.get(page.get_by_role("link", name=name).evaluate("a => a.href"))
        assert found.ok and found.body()
    page.reload()
    wait_until_playing(page)
    expect(page.locator(".stage")).to_have_attribute("data-state", "done")
    expect(page.locator("#photo img")).to_be_visible()
    page.once("dialog", lambda dialog: dialog.accept("My dance"))
    act(page, "Rename")
    expect(page.locator(".videos strong")).to_have_text("My dance")
    page.locator(".videos").scroll_into_view_if_needed()
    shoot(page, f"{size}-5-library")
    page.once("dialog", lambda dialog: dialog.accept())
    act(page, "Delete")
    expect(page.locator(".videos li")).to_have_count(0)
    expect(page.locator(".caption")).to_have_text("Deleted")
    expect(page.locator(".stage .download")).to_be_hidden()


def test_links_are_asked_for_again_before_they_expire(open_page):
    page = open_page(clock=True)
    choose(page, motion="arms")
    run(page)
    before = page.locator(".stage .download").get_attribute("href")
    page.wait_for_timeout(1100)  # links carry the second in which they expire
    page.clock.fast_forward("06:00")
    expect(page.locator(".stage .download")).not_to_have_attribute("href", before)


@pytest.mark.parametrize("size", SIZES)
def test_an_own_photo_and_clip(open_page, shoot, own: Path, size: str):
    page = open_page(size)
    page.evaluate("shift = 0")
    give(page, "#photo", own / "photo.png")
    expect(page.locator(".caption")).to_have_text("The person found in your photo")
    expect(page.locator("#run")).to_have_text("Tick the box: they agreed")
    assert page.evaluate("shift") <= MAX_SHIFT / 2
    shoot(page, f"{size}-6-own")
    give(page, "#motion-file", own / "wave.mp4")
    expect(page.locator("#motion-file")).to_have_text("Your motion: wave.mp4")
    expect(page.locator('#motions [aria-checked="true"]')).to_have_count(0)
    page.check("#consent input")
    expect(page.locator(".caption")).to_contain_text("Quick preview")
    run(page)
    expect(page.locator(".stage .download")).to_have_attribute("download", "photo-wave.mp4")


def test_a_rendering_is_a_motion(open_page, own: Path):
    """Its joints move the example's own body; one in unknown colours is read as pictures, with a notice."""
    page = open_page()
    choose(page)
    give(page, "#motion-file", own / "rendering.mp4")
    expect(page.locator("#motion-file")).to_have_text("Your motion: rendering.mp4")
    expect(page.locator(".caption")).to_contain_text("Quick preview")
    assert not page.locator(".problem").text_content()
    run(page)
    expect(page.locator(".stage .download")).to_have_attribute("download", "bela-rendering.mp4")
    give(page, "#motion-file", own / "colours.mp4")
    expect(page.locator(".hints, .problem").filter(has_text="colours.mp4")).not_to_have_count(0)


def test_what_cannot_be_used_is_said_and_goes_when_it_changes(open_page, own: Path):
    page = open_page()
    problem, button = page.locator(".problem"), page.locator("#run")
    give(page, "#photo", own / "green.png")
    expect(problem).to_have_text(re.compile("^No person was found in the photo"))
    expect(button).to_be_disabled()
    page.click('#people [data-name="ada"]')
    expect(problem).to_have_text("")
    expect(button).to_be_enabled()
    give(page, "#motion-file", own / "broken.mp4")
    expect(problem).to_contain_text("broken.mp4")
    expect(button).to_be_disabled()
    page.click('#motions [data-name="arms"]')
    expect(problem).to_have_text("")
    expect(button).to_be_enabled()
    page.locator("#photo button[aria-label*=lear], #photo button[aria-label*=emove]").first.click()
    give(page, "#photo", own / "broken.png")
    expect(problem).to_contain_text("broken.png")


def test_the_other_person_is_found_where_the_photo_is_clicked(open_page, own: Path):
    page = open_page()
    give(page, "#photo", own / "two.png")
    expect(page.locator(".caption")).to_have_text("The person found in your photo")
    first = page.locator(".picture").get_attribute("src")
    for share in (0.2, 0.8):
        box = page.locator("#photo img").bounding_box()
        page.mouse.click(box["x"] + share * box["width"], box["y"] + box["height"] / 2)
        page.wait_for_function("before => document.querySelector('.picture').src !== before", arg=first)
    page.click("#advanced button")
    expect(page.locator("#advanced").get_by_label("Person")).not_to_have_value("")


def test_a_motion_is_drawn_to_order(open_page):
    page = open_page()
    choose(page, "emil")
    page.click("#custom button")
    page.locator("#custom").get_by_label("number input for Seconds").fill("1")
    page.click("#draw")
    expect(page.locator("#motion-file")).to_have_text("Your motion: walk")
    expect(page.locator(".caption")).to_contain_text("Quick preview")
    run(page)


def test_stop_keeps_what_is_there_and_another_tab_shows_it(open_page, server: Server):
    page = open_page()
    choose(page, motion="fashion", frames="0:50")
    page.locator("#advanced").get_by_label("number input for Loops").fill("10")
    page.keyboard.press("Tab")
    expect(page.locator("#run")).to_be_enabled()
    page.click("#run")
    page.wait_for_function("document.querySelector('.veil .detail').textContent.match(/Frame \\d\\d/)")
    assert "Frame" in page.title()
    tab = page.context.new_page()
    tab.goto(server.url)
    wait_for_state(tab, "running")
    tab.locator("#pairs button").first.click()
    expect(tab.locator("#header .now")).to_contain_text("Your video: frame")
    tab.locator("#header .now button").click()
    wait_for_state(tab, "running")
    tab.close()
    page.reload()
    wait_for_state(page, "running")
    expect(page.locator("#photo img")).to_be_visible()
    page.click(".stop")
    wait_for_state(page, "cancelled")
    expect(page.locator(".headline")).to_have_text("Stopped")
    expect(page.locator(".detail")).to_have_text(re.compile(r"\d+ frames are kept"))
    expect(page.locator(".stage .download")).to_contain_text(re.compile(r"[\d.]+ MB"))
    expect(page.locator("#run")).to_be_enabled()


def test_a_page_finds_its_job_when_the_web_process_was_killed(open_page, server: Server):
    page = open_page()
    choose(page, motion="fashion", frames="0:50")
    page.click("#run")
    wait_for_state(page, "running")
    kill(server.web_pid)
    wait_for_state(page, "done")
    wait_until_playing(page)


def test_fine_tuning_afterwards_compare_and_a_saved_person(open_page, shoot):
    page = open_page()
    choose(page, "dana", "arms")
    run(page)
    page.click(".tune")
    page.wait_for_function("document.querySelector('.veil .headline').textContent.startsWith('Fine-tuning')")
    shoot(page, "laptop-7-tuning")
    wait_for_state(page, "done")
    page.click(".facts summary")
    expect(page.locator(".facts .loss")).to_be_visible()
    expect(page.locator(".videos li")).to_have_count(2)
    act(page, "Compare", 1)
    page.wait_for_function("document.querySelector('.second').currentTime > 0.1")
    page.locator(".divide").fill("30")
    shoot(page, "laptop-8-compare")
    page.locator(".persons .open").first.click()
    expect(page.locator("#photo img")).to_be_visible()
    act(page, "Use its photo")
    expect(page.locator("#motion-file")).to_have_text("Your motion")
    expect(page.locator("#run")).to_be_enabled()


def test_the_keyboard_is_enough(open_page):
    page = open_page()
    page.locator('#people [data-name="ada"]').focus()
    page.keyboard.press("Enter")
    expect(page.locator("#run")).to_be_enabled()
    for _ in range(40):
        page.keyboard.press("Tab")
        focused = page.evaluate("document.activeElement.id || document.activeElement.dataset.name || ''")
        if focused == "run":
            break
    assert focused == "run"
    assert (
        page.evaluate(
            "getComputedStyle(document.activeElement).outlineStyle + getComputedStyle(document.activeElement).boxShadow"
        )
        != "nonenone"
    )
    page.keyboard.press("Enter")
    wait_for_state(page, "queued", "running", "done")


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("dark", {"color_scheme": "dark"}),
        ("still", {"reduced_motion": "reduce"}),
        ("zoomed", {"viewport": {"width": 640, "height": 400}, "device_scale_factor": 2}),
    ],
)
def test_other_ways_to_look(open_page, shoot, name: str, how: dict):
    page = open_page(**how)
    shoot(page, f"laptop-9-{name}")
    width = how.get("viewport", SIZES["laptop"])["width"]
    assert page.evaluate("document.documentElement.scrollWidth") == width
    page.locator("#motions button").first.hover()
    assert page.locator("#motions video").count() == (0 if name == "still" else 1)
