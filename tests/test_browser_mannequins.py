"""A motion made by hand, in a real Chromium: made, seen, kept, used.

scripts/test tests/test_browser_mannequins.py
"""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Page, expect
from test_browser import (  # noqa: F401
    SECONDS,
    SIZES,
    Server,
    browser,
    download,
    open_page,
    pick,
    run,
    set_options,
    tiny_server,
    wait_for_state,
)

from dreampose_core.media import probe_video
from dreampose_core.poses import read_poses

pytestmark = pytest.mark.browser


def tab(page: Page, name: str) -> None:
    page.get_by_role("tab", name=name).click()


def choose(page: Page, motion: str, seconds: float) -> None:
    page.locator("#dp-make-motion input").click()
    page.get_by_role("option", name=motion, exact=True).click()
    number = page.locator("#dp-make-seconds input[type=number]")
    number.fill(str(seconds))
    number.press("Tab")


def fits(page: Page, size: str) -> bool:
    return page.evaluate("document.documentElement.scrollWidth") <= SIZES[size]["width"]


@pytest.mark.parametrize("size", [pytest.param("laptop", marks=pytest.mark.slow), "phone"])
def test_a_motion_is_made_seen_kept_and_used(tiny_server: Server, open_page, tmp_path: Path, size: str):  # noqa: F811
    page = open_page(tiny_server, size)
    pick(page, motion=2)
    tab(page, "Make a motion")
    expect(page.locator("#dp-use")).to_be_disabled()
    choose(page, "Wave", 1.5)
    page.locator("#dp-make").click()
    expect(page.locator("#dp-made-result video")).to_be_visible(timeout=90 * SECONDS)
    page.wait_for_function("document.querySelector('#dp-made-result video').videoWidth == 256")
    expect(page.locator("#dp-made-result")).to_contain_text("30 frames at 20 fps")
    assert fits(page, size)
    with page.expect_download() as event:
        page.locator("#dp-made-download a").click()
    event.value.save_as(tmp_path / event.value.suggested_filename)
    [saved] = tmp_path.glob("dreampose-*.npz")
    assert len(read_poses(saved)) == 30 and read_poses(saved).charts == "mannequin"

    page.locator("#dp-use").click()
    expect(page.locator("#dp-motion strong")).to_be_visible()
    expect(page.locator("#dp-motion strong")).to_have_text("Wave, made by hand, 1.5 s")
    expect(page.locator("#dp-motions .thumbnail-item.selected")).to_have_count(0)
    expect(page.locator("#dp-photo img")).to_be_visible()  # the photo that was chosen before is still there
    set_options(page, "Skip", Steps=1)
    run(page)
    wait_for_state(page, "done")
    assert probe_video(download(page, tmp_path)).num_frames == 30 and fits(page, size)

    pick(page, person=None, motion=0)  # another takes its place
    expect(page.locator("#dp-motion strong")).not_to_contain_text("by hand")
    tab(page, "Make a motion")
    expect(page.locator("#dp-made-result video")).to_be_visible()  # still there
