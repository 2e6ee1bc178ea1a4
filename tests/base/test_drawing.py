"""Pictures: names in every script, and signs that are no formulas, in what every stage draws by."""

import io
import warnings

import numpy as np
import pytest
from matplotlib import font_manager
from matplotlib.figure import Figure
from PIL import Image

from mlops_nb.base.artifacts import KINDS
from mlops_nb.base.drawing import _BOXES, _families, _fit, drawn

NAMES = {"ko": "나이와 월급", "zh": "年龄与收入", "zh-Hant": "臺灣體重", "ja": "年齢（カタカナ・ひらがな）", "money": "Price ($) vs cost ($)", "formula": r"a_b^2 \frac{ $x$ }"}


def plot(name):
    """A figure that has a name at every place where names stand."""
    figure = Figure(figsize=(8, 4), dpi=60, layout="constrained")
    left, right = figure.subplots(1, 2)
    left.barh([name, "b"], [1, 2], label=name)
    left.set(title=name, xlabel=name, ylabel=name)
    left.legend(title=name)
    right.annotate(name, (0.5, 0.5), weight="bold")
    right.set_xticks([0, 1], [name, name], rotation=30, style="italic")
    figure.suptitle(name, weight=600)
    return figure


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_names_are_drawn_and_nothing_is_said(name, caplog):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = plot(name)
        picture = KINDS["Figure"].dump(figure)
    assert caplog.text == ""
    assert not _fit([figure.text(0, 0, name)])  # a font for each of its characters
    assert picture != KINDS["Figure"].dump(plot("x" * len(name)))


def ink(text):
    figure = Figure(figsize=(6, 1), dpi=60)
    figure.text(0.05, 0.5, text, fontsize=20)
    return np.asarray(Image.open(io.BytesIO(drawn(figure))).convert("L")) < 128


def test_characters_differ_where_boxes_would_be_alike():
    shapes = {ink(c).tobytes() for c in "나이월급年龄收入齢臺"}
    assert len(shapes) == 10


def test_fonts_that_are_gone_or_damaged_are_passed_over(tmp_path, monkeypatch):
    (tmp_path / "damaged.ttf").write_bytes(b"no font")
    gone = [font_manager.FontEntry(fname=str(tmp_path / name), name=name) for name in ("gone.ttf", "damaged.ttf")]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", [*gone, *font_manager.fontManager.ttflist])
    _families.cache_clear()
    assert drawn(plot("\U0010fffd 나"))
    _families.cache_clear()


def test_what_no_font_has_is_said_below():
    unknown = "\U0010fffd"  # a private character of the last plane
    figure = plot(unknown)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        picture = drawn(figure)
    tall, plain = (Image.open(io.BytesIO(p)).size for p in (picture, drawn(plot("x"))))
    assert tall[1] > plain[1] and _BOXES not in [t.get_text() for t in figure.texts]
    assert drawn(figure) == picture  # the note is no part of the figure


def test_powers_of_ten_stay_powers():
    figure = Figure(figsize=(3, 2))
    axes = figure.subplots()
    axes.plot([1, 10, 1000], [1, 2, 3])
    axes.set(xscale="log", xlabel="$")
    drawn(figure)
    label = next(t for t in axes.get_xticklabels() if "mathdefault" in t.get_text())
    assert label.get_parse_math() and not axes.xaxis.label.get_parse_math()
