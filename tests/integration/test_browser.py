"""The report's page in a real browser: charts drawn, tables sort, nothing wider than the screen, no error."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from support.simulated import grid, study

from analysis import effects, figures, page
from analysis.study import analyse

CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium: apt-get install chromium"),
]
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip
SCREENS = {"phone": {"width": 390, "height": 844}, "desk": {"width": 1440, "height": 900}}
WILD = "<b>bold</b> & <img src=x onerror=console.error(1)>"


def written(rows: pd.DataFrame, path: Path, name: str = "study", **options: Any) -> Path:
    """The page of these rows, learning curves included."""
    rows = rows.assign(run_id=[f"run{n}" for n in range(len(rows))])
    steps = pd.DataFrame({"step": [10, 20, 30], "part": [0.3, 0.6, 1.0]})
    points = rows[["run_id", "test_accuracy"]].merge(steps, how="cross")
    points["validation_accuracy"] = points["test_accuracy"] * points["part"]
    verdict = analyse(rows, name=name, **options)
    text, _ = page.render(verdict, effects.pairs(rows), figures.band_table(points, rows, verdict))
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    whole = study(
        grid(width=[1, 4, 16], depth=[1, 3], batch_norm=[False, True], learning_rate=[0.01, 0.1]), 8,
        lambda cell: 0.0 if cell["batch_norm"] else 4 / cell["width"] ** 2,
    )  # fmt: skip
    small = pd.concat([study([{"dataset": one}], 8) for one in ("mnist5k", WILD)])
    many = study(grid(width=[1, 2, 4, 8], depth=[1, 2], batch_norm=[False, True], steps=range(1, 201)), 2)
    return {
        "whole": written(whole, folder / "whole.html", declared={"tune": ["learning_rate"]}),
        "small": written(small, folder / "small.html", name=WILD),
        "many": written(many, folder / "many.html"),
    }


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=FLAGS)
        yield running
        running.close()


@pytest.fixture
def opened(browser: Any) -> Iterator[Any]:
    """Opens a page; whatever the browser complains of or asks of a network fails the test at its end."""
    contexts, wrong = [], []

    def open_page(path: Path, **options: Any) -> Any:
        context = browser.new_context(**options)
        contexts.append(context)
        tab = context.new_page()
        tab.on("console", lambda message: wrong.append(message.text) if message.type in ("error", "warning") else None)
        tab.on("pageerror", lambda error: wrong.append(str(error)))
        tab.on(
            "request", lambda sent: None if sent.url.startswith(("file:", "data:", "blob:")) else wrong.append(sent.url)
        )
        tab.goto(path.as_uri())
        tab.wait_for_function("document.querySelectorAll('#effect .scatterlayer .trace').length > 0")
        return tab

    yield open_page
    for context in contexts:
        context.close()
    assert wrong == []


def column(tab: Any, name: str) -> list[str]:
    place = tab.locator("#cells th").all_inner_texts().index(name)
    return list(tab.locator(f"#cells tbody tr td:nth-child({place + 1})").all_inner_texts())


@pytest.mark.parametrize("screen", SCREENS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["whole", "small", "many"])
def test_the_page_fits_its_screen_and_draws_every_chart(
    opened: Any, pages: dict[str, Path], name: str, scheme: str, screen: str
) -> None:
    tab = opened(pages[name], viewport=SCREENS[screen], color_scheme=scheme)
    assert tab.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    charts = tab.locator(".chart")
    assert charts.count() == {"whole": 6, "small": 4, "many": 4}[name]
    for chart in charts.all():
        assert chart.locator(".main-svg").count() > 0
        assert chart.locator(".main-svg").first.bounding_box()["width"] <= SCREENS[screen]["width"]
    if name != "small":
        assert tab.locator("#heat .heatmaplayer .hm").count() == 2
    ground = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, ground[4:-1].split(","))) > 3 * 128) == (scheme == "light")
    ink = tab.locator("#effect .xtick text").first.evaluate("(text) => text.style.fill")
    assert (sum(map(int, ink[4:-1].split(","))) < 3 * 128) == (scheme == "light")


def test_a_heading_sorts_the_table_up_and_down(opened: Any, pages: dict[str, Path]) -> None:
    tab = opened(pages["whole"])
    heading = tab.locator("#cells th", has_text="effect")
    for way in ("ascending", "descending"):
        heading.locator("button").click()
        assert heading.get_attribute("aria-sort") == way
        effects = [float(text.replace("\N{MINUS SIGN}", "-")) for text in column(tab, "effect")]
        assert len(effects) == 24 and effects == sorted(effects, reverse=way == "descending")
    tab.locator("#cells-controls select").select_option("matters")
    assert set(column(tab, "verdict")) == {"● matters"}


def test_pointing_at_a_cell_says_its_pairs_interval_and_accuracies(opened: Any, pages: dict[str, Path]) -> None:
    tab = opened(pages["whole"], viewport=SCREENS["desk"])
    tab.locator("#effect").scroll_into_view_if_needed()
    mark = tab.locator("#effect .scatterlayer .point").first.bounding_box()
    tab.mouse.move(mark["x"] + mark["width"] / 2, mark["y"] + mark["height"] / 2)
    tab.wait_for_selector("#effect .hoverlayer .hovertext")
    said = tab.locator("#effect .hoverlayer").text_content()
    for part in ("n = 8 pairs", "95 % interval", "with bias", "without", "effect"):
        assert part in said


def test_what_is_drawn_follows_the_settings_chosen(opened: Any, pages: dict[str, Path]) -> None:
    tab = opened(pages["whole"])
    assert "width" in tab.locator("#effect .xtitle").text_content()
    tab.locator("#controls select").first.select_option("depth")
    tab.wait_for_function("document.querySelector('#effect .xtitle').textContent.startsWith('depth')")
    first = tab.locator("#curves .scatterlayer path.js-line").last.get_attribute("d")
    tab.locator("#curves-controls select").select_option("5")
    tab.wait_for_function(
        "(old) => [...document.querySelectorAll('#curves .scatterlayer path.js-line')].at(-1)"
        ".getAttribute('d') !== old",
        arg=first,
    )
    assert tab.locator("#tuned tbody tr").count() == 12


def test_changing_between_light_and_dark_draws_again(opened: Any, pages: dict[str, Path]) -> None:
    tab = opened(pages["small"], color_scheme="light")
    before = tab.locator("#effect .xtick text").first.evaluate("(text) => text.style.fill")
    tab.emulate_media(color_scheme="dark")
    tab.wait_for_function("(old) => document.querySelector('#effect .xtick text').style.fill !== old", arg=before)


def test_many_cells_are_shown_as_groups_and_the_page_says_so(opened: Any, pages: dict[str, Path]) -> None:
    tab = opened(pages["many"])
    assert "3,200 cells" in tab.locator(".answer").inner_text()
    assert column(tab, "cells") == ["200"] * 16


def test_names_are_shown_as_text(opened: Any, pages: dict[str, Path]) -> None:
    tab = opened(pages["small"])
    assert tab.locator("h1").inner_text().startswith(WILD)
    assert WILD in column(tab, "dataset")
    assert WILD in tab.locator("#effect .xtick").all_text_contents() or tab.locator("img").count() == 0
