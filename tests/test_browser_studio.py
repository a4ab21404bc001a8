"""The whole way in a real Chromium, from a photo to what is kept, with pictures of every step; reloads, stops and wrong
files on the way.

DREAMPOSE_SHOTS=docs/tour scripts/test tests/test_browser_studio.py      # the pictures of docs/tour.md, anew
"""

from __future__ import annotations

import io
import json
import os
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Page, expect
from test_browser import (  # noqa: F401
    LIVE,
    SECONDS,
    SIZES,
    browser,
    download,
    field,
    lengthen,
    mini_server,
    open_page,
    pick,
    result_files,
    run,
    set_options,
    tiny_server,
    wait_for_frames,
    wait_for_state,
    wait_for_state_failed,
    wait_until_playing,
)

from dreampose_core.media import probe_video, write_png
from dreampose_core.poses import read_poses
from dreampose_core.settings import EXAMPLES
from dreampose_core.synthetic import HELD_OUT, Figure, render_clip

pytestmark = pytest.mark.browser

NOW = "#dp-status .dp-stage-now"
FRAMES = 24
SMALL_TEXT = """() => {
  const small = [], walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement, box = element.getBoundingClientRect();
    if (walker.currentNode.data.trim() && box.width && box.height && !element.closest("script, style, svg, noscript")
        && getComputedStyle(element).visibility === "visible" && parseFloat(getComputedStyle(element).fontSize) < 12)
      small.push(walker.currentNode.data.trim());
  }
  return small;
}"""

Shoot = Callable[..., None]


@pytest.fixture
def shoot(tmp_path: Path) -> Shoot:
    """shoot(page, name, at): a picture of the window with the element `at` in its upper part, NAME.jpg."""
    folder = Path(os.environ.get("DREAMPOSE_SHOTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)

    def one(page: Page, name: str, at: str = "body") -> None:
        page.locator(at).first.evaluate(
            "(e) => scrollTo({top: e.getBoundingClientRect().top + scrollY - 24, behavior: 'instant'})"
        )
        page.wait_for_timeout(400)  # what has just come into view is still being drawn
        page.screenshot(path=folder / f"{name}.jpg", type="jpeg", quality=80)

    return one


def act(page: Page, do: str, number: int = 0) -> None:
    """Presses a button of the shelf or below the video; says yes where it asks."""
    page.locator(f"[data-do={do}]").nth(number).click()


def wait_for_stage(page: Page, words: str) -> None:
    """Waits until the job is in the stage; one that has passed it was too quick for the test."""
    page.wait_for_function(
        "words => document.querySelector('#dp-status .dp-stage-now')?.textContent === words"
        " || ['done', 'failed', 'cancelled'].includes(document.querySelector('#dp-status .dp-card')?.dataset.state)",
        arg=words,
        timeout=180 * SECONDS,
    )
    expect(page.locator(NOW)).to_have_text(words, timeout=SECONDS)


def content(page: Page, href: str) -> bytes:
    answer = page.request.get(page.url.rstrip("/") + "/" + href)
    assert answer.ok, (href, answer.status)
    return answer.body()


def playing(page: Page, videos: str, number: int) -> None:
    """Until so many videos play; Chromium may pause what started by itself while the machine is busy, and a person
    would press play."""
    moving = "v.currentTime > 0.2 || (v.paused && v.play().catch(() => 0), false)"
    page.wait_for_function(
        f"[...document.querySelectorAll('{videos}')].filter((v) => {moving}).length == {number}", timeout=120 * SECONDS
    )


@pytest.mark.parametrize(
    ("server", "size"), [pytest.param("mini_server", "laptop", marks=pytest.mark.slow), ("tiny_server", "phone")]
)
def test_the_whole_way(request: pytest.FixtureRequest, open_page, shoot: Shoot, tmp_path: Path, server: str, size: str):  # noqa: F811
    server, own = request.getfixturevalue(server), size == "phone"
    page, wrong = open_page(server, size), []
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("response", lambda answer: wrong.append(f"{answer.status} {answer.url}") if answer.status >= 400 else None)
    page.on("dialog", lambda dialog: dialog.accept("Anna walks" if dialog.type == "prompt" else None))
    shoot(page, f"{size}-1-page")

    # 1. the person
    if own:
        rgb, _ = render_clip(Figure.from_seed(HELD_OUT + 3), "idle", 1, (320, 256))
        write_png(rgb[0].numpy()[:250], tmp_path / "anna.png")
        page.locator("#dp-photo input[type=file]").set_input_files(tmp_path / "anna.png")
        expect(page.locator("#dp-look")).to_contain_text(
            "outside the photo, so the model will invent", timeout=90 * SECONDS
        )
        page.locator("#dp-consent").get_by_role(
            "checkbox"
        ).check()  # a photo that has just come takes the tick of the last one away
        page.get_by_role("button", name="Adjust the frame").click()
        before = page.locator("#dp-look img").get_attribute("src")
        nearer, looked = (
            page.locator("#dp-frame").get_by_label(re.compile("Nearer")).first,
            page.locator("#dp-look img"),
        )
        nearer.fill("1.2")
        nearer.press("Tab")
        expect(looked).not_to_have_attribute("src", before, timeout=90 * SECONDS)
    else:
        pick(page, person=0, motion=None)
        expect(page.locator("#dp-look img")).to_be_visible(timeout=90 * SECONDS)
        expect(page.locator("#dp-look")).to_contain_text("Coloured is the person")
    shoot(page, f"{size}-2-person", "#dp-photo")

    # 2. the motion
    pick(page, person=None, motion=0)
    page.get_by_role("button", name="Change the motion").click()
    page.locator("#dp-frames textarea, #dp-frames input").first.fill(f"0:{FRAMES}")
    page.locator("#dp-preview").click()
    expect(page.locator("#dp-preview-result video")).to_be_visible(timeout=90 * SECONDS)
    playing(page, "#dp-preview-result video", 1)
    shoot(page, f"{size}-3-motion", "#dp-motions" if own else "#dp-tabs")
    shoot(page, f"{size}-4-preview", "#dp-preview")

    # 3. make it
    set_options(page, "Learn this person first", Steps=24 if own else 3)
    shoot(page, f"{size}-5-make", "#dp-recipe")
    run(page)

    # 4. watch
    wait_for_stage(page, "Learn person")
    page.wait_for_function("document.querySelector('#dp-losses polyline')?.points.length > 20", timeout=300 * SECONDS)
    shoot(page, f"{size}-6-learning", "#dp-watch")
    time = wait_until_playing(page, minutes=15)
    assert wait_until_playing(page, time + 0.3) > time
    shoot(page, f"{size}-7-frames", "#dp-watch")
    wait_for_state(page, "done", minutes=15)

    # 5. keep
    expect(page.locator("#dp-result video")).to_be_visible()
    page.wait_for_function("document.querySelector('#dp-result video').readyState > 1")
    shoot(page, f"{size}-8-keep", "#dp-watch")
    saved = download(page, tmp_path)
    assert saved.read_bytes() in result_files(server) and probe_video(saved).num_frames == FRAMES
    kept = {link.inner_text(): content(page, link.get_attribute("href")) for link in page.locator(".dp-things a").all()}
    assert list(kept) == ["Side by side", "GIF", "Frames", "Motion", "Settings"]
    assert (
        kept["Side by side"][4:8] == b"ftyp"
        and kept["GIF"][:3] == b"GIF"
        and json.loads(kept["Settings"])["num_frames"] == FRAMES
    )
    assert len(zipfile.ZipFile(io.BytesIO(kept["Frames"])).namelist()) == FRAMES
    (tmp_path / "motion.npz").write_bytes(kept["Motion"])
    assert np.array_equal(
        read_poses(tmp_path / "motion.npz").parts, read_poses(sorted((EXAMPLES / "motions").glob("*.npz"))[0]).parts
    )

    # 6. the shelf
    act(page, "rename")
    expect(page.locator("#dp-shelf .dp-item strong").first).to_have_text("Anna walks")
    if own:
        set_options(page, "Skip", Steps=2)
        run(page)
    else:
        first = page.locator("#dp-status .dp-card").get_attribute("data-job")
        act(page, "better")
        expect(page.locator("#dp-status .dp-card")).not_to_have_attribute("data-job", first)
    wait_for_state(page, "done", minutes=10)
    act(page, "compare")
    playing(page, ".dp-compare video", 2)
    page.wait_for_timeout(3 * SECONDS)  # it stays when the watch of the last one has said its last word
    slider = page.locator(".dp-compare input")
    slider.focus()
    slider.press("ArrowRight")
    assert page.locator(".dp-compare > div").evaluate("(e) => e.style.getPropertyValue('--cut')") == "51%"
    shoot(page, f"{size}-9-compare", "#dp-compared")
    shoot(page, f"{size}-10-yours", "#dp-shelf")
    learned = content(page, page.locator("#dp-shelf a[download]").get_attribute("href"))
    assert "subject.json" in zipfile.ZipFile(io.BytesIO(learned)).namelist()

    # 7. again, from there
    act(page, "again", 1)
    expect(page.locator("#dp-motion strong")).to_have_text("the motion of that video")
    expect(page.locator("#dp-consent").get_by_role("checkbox")).to_be_checked()
    act(page, "use")
    pick(page, person=None, motion=2)
    set_options(page, Steps=1)
    run(page)
    wait_for_state(page, "done", minutes=10)
    expect(page.locator("#dp-shelf [data-do=forget]")).to_have_count(1)  # nothing was learned anew
    if own:
        assert page.evaluate("document.documentElement.scrollWidth") <= SIZES["phone"]["width"], (
            "the page is wider than the phone"
        )
    assert page.evaluate(SMALL_TEXT) == []

    # 8. and gone
    page.wait_for_timeout(3 * SECONDS)  # as above
    for left in (2, 1, 0):
        act(page, "delete")
        expect(page.locator("#dp-shelf [data-do=delete]")).to_have_count(left)
        if left:  # the next one is shown now
            page.wait_for_function(
                "() => { const [card, video] = [document.querySelector('#dp-status .dp-card')?.dataset, "
                "document.querySelector('#dp-result video')]; return card && video?.readyState > 1 && "
                "video.src.includes(card.job) && document.querySelector('#dp-shelf [aria-current] "
                "[data-do=delete]')?.dataset.id === card.job }"
            )
    page.wait_for_function("[...document.querySelectorAll('#dp-shelf img')].every((image) => image.complete)")
    act(page, "forget")
    expect(page.locator("#dp-shelf .dp-item")).to_have_count(0)
    expect(page.locator("#dp-status .dp-card")).to_have_count(0)
    assert wrong == []
    owner_jobs = [
        path
        for path in (server.home / "jobs").iterdir()
        if (path / "result.json").exists() and saved.read_bytes() == (path / "result.mp4").read_bytes()
    ]
    assert owner_jobs == [], "deleted is deleted"


def test_the_other_panels(mini_server, open_page, shoot: Shoot):  # noqa: F811
    page = open_page(mini_server)
    page.get_by_role("button", name="About this server").click()
    expect(page.locator("#dp-server-text")).to_contain_text("drawn by this program")
    page.wait_for_timeout(500)
    shoot(page, "laptop-12-about", "#dp-server")
    for words in ("mini", "videos 3 days", "30 days after its last use", "MIT", "did not agree"):
        expect(page.locator("#dp-server-text")).to_contain_text(words)
    page.get_by_role("tab", name="Make a motion").click()
    page.locator("#dp-make").click()
    expect(page.locator("#dp-made-result video")).to_be_visible(timeout=120 * SECONDS)
    shoot(page, "laptop-11-mannequin", "#dp-tabs")


@pytest.mark.parametrize("dark", [False, True])
def test_words_can_be_read(tiny_server, open_page, shoot: Shoot, dark: bool):  # noqa: F811
    """Contrast of at least 4.5 (WCAG AA) for the page's own words, in light and dark."""
    page = open_page(tiny_server)
    if dark:
        page.goto(tiny_server.url + "/?__theme=dark")
        expect(page.locator("#dp-run")).to_be_visible()
    expect(page.locator("#dp-pace p")).to_be_visible()
    for button in ("#dp-preview", "#dp-run"):  # once the browser is known
        expect(page.locator(button)).to_be_enabled()
    page.wait_for_function("!document.getAnimations().some((a) => a instanceof CSSTransition)")
    low = page.evaluate(CONTRAST)
    assert low == [], low
    if dark:
        shoot(page, "laptop-13-dark")


CONTRAST = """() => {
  const channels = (colour) => {
    const [r, g, b, a = 1] = colour.match(/[\\d.]+/g).map(Number);
    return [r, g, b, a];
  };
  const over = (top, below) => [0, 1, 2].map((i) => top[i] * top[3] + below[i] * (1 - top[3]));
  const light = (colour) => {
    const [r, g, b] = colour.map((v) => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const low = [];
  for (const element of document.querySelectorAll("h1, h2, h3, p, label span, .dp-quiet, button, summary, strong")) {
    const style = getComputedStyle(element), box = element.getBoundingClientRect();
    const own = [...element.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
    if (!own || !box.width || !box.height || element.disabled || element.closest("[disabled]")) continue;
    const layers = [];
    for (let e = element; e; e = e.parentElement) {
      if (getComputedStyle(e).backgroundImage !== "none") { layers.length = 0; break; }
      layers.push(channels(getComputedStyle(e).backgroundColor));
      if (layers.at(-1)[3] === 1) break;
    }
    if (!layers.length || layers.at(-1)[3] !== 1) continue;
    let ground = layers.pop().slice(0, 3);
    while (layers.length) ground = over(layers.pop(), ground);
    const [a, b] = [light(over(channels(style.color), ground)), light(ground)].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) low.push(`${ratio.toFixed(1)}: ${element.textContent.trim().slice(0, 40)}`);
  }
  return low;
}"""


@pytest.mark.slow
def test_a_reload_in_each_stage_finds_the_job(tiny_server, open_page):  # noqa: F811
    page, other = open_page(tiny_server), open_page(tiny_server, "phone")
    pick(other)
    set_options(other, "Skip", Steps=250)
    lengthen(other, 10)
    run(other)
    wait_for_frames(other)
    pick(page, person=2)
    set_options(page, "Learn this person first", Steps=12)
    lengthen(page, 6)
    run(page)
    job = page.locator("#dp-status .dp-card").get_attribute("data-job")

    def reload(words: str) -> None:
        page.reload()
        expect(page.locator(f"#dp-status .dp-card[data-job='{job}']")).to_contain_text(words)
        expect(page.locator("#dp-shelf [data-do=delete]")).to_have_count(1)

    expect(page.locator("#dp-status")).to_contain_text("Place 1")
    reload("Place 1")
    other.locator("#dp-stop").click()
    wait_for_state(other, "cancelled", minutes=1)
    for stage in ("Learn person", "Make frames", "Write video"):
        wait_for_stage(page, stage)
        reload(stage)
        if stage == "Make frames":
            assert wait_until_playing(page) > 0  # chunks are played again from the first
    wait_for_state(page, "done")
    reload("Your video is ready")
    expect(page.locator("#dp-result video")).to_be_visible()


@pytest.mark.slow
def test_stop_in_each_stage(tiny_server, open_page):  # noqa: F811
    page, other = open_page(tiny_server), open_page(tiny_server)
    for each, person in ((other, 3), (page, 4)):
        pick(each, person=person)
        lengthen(each, 6)
    set_options(other, "Skip", Steps=250)
    run(other)
    set_options(page, "Learn this person first", Steps=12)
    run(page)
    expect(page.locator("#dp-status")).to_contain_text("Place 1")
    page.locator("#dp-stop").click()  # while it waits
    wait_for_state(page, "cancelled", minutes=0.5)
    expect(page.locator("#dp-download a")).to_have_count(0)
    other.locator("#dp-stop").click()
    wait_for_state(other, "cancelled", minutes=1)
    for stage in ("Learn person", "Make frames", "Write video"):
        run(page)
        wait_for_stage(page, stage)
        page.locator("#dp-stop").click()
        page.wait_for_function(
            "() => ['cancelled', 'done'].includes(document.querySelector('#dp-status .dp-card')?.dataset.state)",
            timeout=60 * SECONDS,
        )
        state = page.locator("#dp-status .dp-card").get_attribute("data-state")
        assert state == "cancelled" or stage == "Write video", (
            "only the video may have been written before the click came"
        )
        expect(page.locator("#dp-stop")).to_be_hidden()
    expect(page.locator("#dp-result video")).to_be_visible()  # what was made of it is there
    if state == "cancelled":
        expect(page.locator("#dp-shelf .dp-item[aria-current]")).to_contain_text("Stopped")


@pytest.mark.slow
def test_wrong_files_in_each_input(tiny_server, open_page, tmp_path: Path):  # noqa: F811
    (tmp_path / "notes.txt").write_text("no picture, no motion")
    (tmp_path / "evil.pkl").write_bytes(b"\x80\x04K*.")
    (tmp_path / "empty.png").write_bytes(b"")
    page = open_page(tiny_server)
    page.get_by_role("button", name="DensePose of the photo").click()
    page.get_by_role("button", name="Your own motion").click()
    set_options(page, "Skip", Steps=1)
    for name in ("notes.txt", "evil.pkl", "empty.png"):
        pick(page)
        page.locator("#dp-photo-poses").get_by_role("button", name=re.compile("Clear|Remove")).first.click()
        page.locator("#dp-photo-poses input[type=file]").set_input_files(tmp_path / name)
        expect(page.locator("#dp-look [role=alert]")).to_contain_text(
            name, timeout=60 * SECONDS
        )  # said at once, beside the photo
        run(page)
        wait_for_state_failed(page, name)
        pick(page, motion=None)
        page.locator("#dp-motion-file input[type=file]").set_input_files(tmp_path / name)
        expect(page.locator("#dp-motion")).to_contain_text(name)
        page.locator("#dp-preview").click()
        expect(page.locator("#dp-preview-result [role=alert]")).to_contain_text(name, timeout=60 * SECONDS)
        run(page)
        wait_for_state_failed(page, name)
