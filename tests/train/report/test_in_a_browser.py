"""The report in headless Chromium: it plays, complains of nothing, asks for nothing, fits a phone, and opens fast."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("jinja2", reason="the extra `report` is not installed")
pytest.importorskip("jsonschema", reason="the extra `report` is not installed")
pytest.importorskip("vl_convert", reason="the extra `report` is not installed")

from train.report.page import LARGEST, write_report

LONGEST = 2.0  # seconds
READY = "document.querySelector('#texts-list .pair') && document.querySelector('#panel-a .cell')"


@pytest.fixture(scope="module")
def report(browser, make_folder, tmp_path_factory) -> Path:
    return write_report(make_folder(tmp_path_factory.mktemp("results")))


@pytest.fixture
def opened(browser, report):
    browser.window(1440)
    browser.open(report)
    browser.wait("document.querySelector('.chart svg') && document.querySelector('#panel-a .cell')")
    yield browser
    assert browser.complaints() == []
    assert browser.requests() == []


def text(browser, selector: str) -> str:
    return browser.evaluate(f"document.querySelector({selector!r}).textContent")


def count(browser, selector: str) -> int:
    return browser.evaluate(f"document.querySelectorAll({selector!r}).length")


def test_charts_are_drawn_once_they_are_near(opened):
    assert opened.evaluate("document.querySelector('.chart svg').getBoundingClientRect().width") > 800
    for place in range(count(opened, ".chart")):
        opened.evaluate(f"document.querySelectorAll('.chart')[{place}].scrollIntoView()")
        opened.wait(f"document.querySelectorAll('.chart')[{place}].querySelector('svg')")


def test_texts_stand_side_by_side_with_what_the_checker_says(opened):
    assert count(opened, "#texts-list .pair") == 10
    assert count(opened, "#texts-list .pair .side") == 20
    assert count(opened, "#texts-list mark") > 0
    words = opened.evaluate(
        "[...document.querySelectorAll('#texts-list .right, #texts-list .wrong')].map((e) => e.textContent)"
    )
    assert set(words) == {"✓ right", "✗ wrong"}
    first = text(opened, "#texts-list .prompt")
    opened.click("#texts-after")
    assert text(opened, "#texts-list .prompt") != first
    opened.evaluate("(() => {const f = document.querySelector('#texts-controls [name=filter]'); f.value = 'lost';"
                    " f.dispatchEvent(new Event('change', {bubbles: true}))})()")  # fmt: skip
    shown = opened.evaluate("[...document.querySelectorAll('#texts-list .side header')].map((e) => e.textContent)")
    assert all(("wrong" if place % 2 == 0 else "right") in one for place, one in enumerate(shown))


def test_rounds_are_played_by_keys_and_by_mouse(opened):
    assert text(opened, "#at").startswith("round 0 of ")
    assert count(opened, "#panel-a .cell.done") == 0
    opened.click("#forward")
    assert count(opened, "#panel-a .cell.new") > 0
    opened.click("#panel-a h3")
    opened.press("ArrowRight")
    assert text(opened, "#at").startswith("round 2 of ")
    opened.press("End")
    most = int(text(opened, "#at").split()[-1])
    assert text(opened, "#at") == f"round {most} of {most}"
    assert count(opened, "#panel-a .cell.masked") == 0
    assert count(opened, "#panel-a .cell.past") == 4
    opened.press("Home")
    opened.press(" ")
    opened.wait("document.getElementById('at').textContent.startsWith('round 1 of ')")
    opened.press(" ")
    assert text(opened, "#play") == "play"
    prompt = text(opened, "#replay-prompt")
    opened.press("n")
    assert text(opened, "#replay-prompt") != prompt
    opened.press("p")
    assert text(opened, "#replay-prompt") == prompt


def test_a_position_tells_confidence_risk_and_reason(opened):
    opened.click("#last")
    opened.click("#panel-a .cell.done")
    told = text(opened, "#panel-a .detail")
    assert told.startswith("position 0: “")
    assert "confidence 0." in told
    assert "risk 0." in told
    assert " in round " in told
    opened.press("ArrowDown")
    assert text(opened, "#panel-a .detail").startswith("position 1: ")


def test_drafts_and_branches_are_shown(opened):
    opened.evaluate("(() => {const f = document.querySelector('#replay-controls [name=b]'); f.value = 'verified';"
                    " f.dispatchEvent(new Event('change', {bubbles: true}))})()")  # fmt: skip
    opened.click("#forward")
    assert count(opened, "#panel-b .cell.draft") == 1
    assert "canvases share the next forward" in text(opened, "#panel-a .branches")
    assert count(opened, "#panel-a .branches .kept") == 1


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [390, 1440])
def test_nothing_runs_over_the_side_and_the_theme_is_the_systems(browser, report, width, dark):
    browser.window(width, dark=dark)
    browser.open(report)
    browser.wait("document.querySelector('#panel-a .cell')")
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    light = browser.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert light != dark
    browser.click("#theme")
    assert (browser.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)") == dark
    assert browser.complaints() == []


def test_500_prompts_of_8_arms_open_in_two_seconds_and_weigh_less_than_5_mb(browser, make_folder, tmp_path):
    file = write_report(make_folder(tmp_path, prompts=500, replays=100))
    assert file.stat().st_size < LARGEST
    browser.window(1440)
    assert browser.open(file, READY) < LONGEST
    assert browser.complaints() == []
