"""Pictures as a reader sees them: every curve is inside, can be told from the others, and nothing covers it."""

import itertools
import os
import re
import threading
import xml.etree.ElementTree

import numpy as np
import pytest
from matplotlib import colors
from matplotlib.figure import Figure
from matplotlib.image import imread

from voxnest.drawing import PICTURES, new_axes, save_figure, series_style, style_axes
from voxnest.errors import ConfigError
from voxnest.evaluation import DimensionResult, EvaluationReport, OperatingPoint, compute_eer, plot_det
from voxnest.zoo.picture import points

DIMS = (8, 16, 32, 64, 128, 192, 256)
SEPARATIONS = (1.5, 2.2, 2.8, 3.2, 3.6, 4, 4.6)


def make_report(separations, *, targets=450, nontargets=4500, model="redimnet-b2", trials="data/trials.txt"):
    """Scores of which the targets' are so many standard deviations higher, for one dimension each."""
    random = np.random.default_rng(0)
    labels = np.arange(targets + nontargets) < targets
    scores = {
        dim: random.standard_normal(len(labels)) + separation * labels
        for dim, separation in zip(DIMS, separations, strict=False)
    }
    results = {
        dim: DimensionResult(*compute_eer(values, labels), {0.01: 1.0}, OperatingPoint(0.5, False, 0, 0))
        for dim, values in scores.items()
    }
    return EvaluationReport(model, trials, targets, nontargets, 10, 1.0, 1.0, results, [], labels, scores)


@pytest.fixture
def draw(monkeypatch, tmp_path):
    """Draw a report; give the figure and its axes."""
    figures = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: (figures.append(self), save(self, *a, **k)))

    def drawn(report, name="det.png"):
        plot_det(report, tmp_path / name)
        return figures[-1], figures[-1].axes[0]

    return drawn


def box(artist):
    return artist.get_window_extent()


def legend_texts(axes):
    return [text.get_text().strip("\u2007") for text in axes.get_legend().get_texts()]


def equal_error_points(axes):
    """Where the markers of the equal error rates are, in fractions of the axes."""
    markers = [line for line in axes.lines if len(line.get_xdata()) == 1]
    pixels = [axes.transData.transform((line.get_xdata()[0], line.get_ydata()[0])) for line in markers]
    return [axes.transAxes.inverted().transform(pixel) for pixel in pixels]


def test_seven_curves_differ_in_dashes_or_marker_and_in_lightness_or_hue(draw):
    _, axes = draw(make_report(SEPARATIONS))
    handles = axes.get_legend().legend_handles
    assert legend_texts(axes)[0].startswith("8-D  EER")
    assert len({handle.get_marker() for handle in handles}) == 7
    for one, other in itertools.pairwise(handles):
        assert one.get_linestyle() != other.get_linestyle() or one._dash_pattern != other._dash_pattern
    assert len({handle.get_color() for handle in handles}) == 7


@pytest.mark.parametrize("number", range(7))
def test_every_colour_is_seen_on_white_in_grey(number):
    red, green, blue = colors.to_rgb(series_style(number)["color"])
    assert 0.299 * red + 0.587 * green + 0.114 * blue < 0.7


@pytest.mark.parametrize(
    ("separations", "note", "corner"),
    [((20,), "EER 0.00%, no errors", (0, 0)), ((-20,), "EER 100.00%, all wrong", (1, 1))],
    ids=["perfect", "inverted"],
)
def test_a_curve_without_errors_and_one_of_nothing_else_are_on_the_edge(draw, separations, note, corner):
    _, axes = draw(make_report(separations))
    assert legend_texts(axes) == [f"8-D  {note}"]
    assert equal_error_points(axes)[0] == pytest.approx(corner, abs=1e-6)
    curve = next(line for line in axes.lines if str(line.get_label()).strip("\u2007").startswith("8-D"))
    (low, high), edge = axes.get_xlim(), axes.get_xlim()[corner[0]]
    assert np.all((curve.get_xdata() == edge) | (curve.get_ydata() == edge))
    assert (curve.get_xdata().min(), curve.get_xdata().max()) == (low, high)
    assert not curve.get_clip_on()


def test_a_useless_model_is_drawn_from_side_to_side(draw):
    _, axes = draw(make_report((0,)))
    assert equal_error_points(axes)[0] == pytest.approx((0.5, 0.5), abs=0.1)
    assert axes.get_xlim()[0] < -1.6 < 1.6 < axes.get_xlim()[1]


@pytest.mark.parametrize("targets", [1, 2, 450])
@pytest.mark.parametrize("separations", [(20,), (-20,), (0,), (20, -20), SEPARATIONS, (-20, -2, 0, 2, 3, 4, 20)])
def test_every_equal_error_rate_is_in_the_picture_and_nothing_covers_anything(draw, separations, targets):
    figure, axes = draw(make_report(separations, targets=targets, nontargets=2 * targets))
    for point in equal_error_points(axes):
        assert all(-1e-6 <= value <= 1 + 1e-6 for value in point)
    assert axes.get_xlim()[0] < axes.get_xlim()[1]
    assert not box(axes.get_legend()).overlaps(box(axes))
    shown = [box(axes.get_legend()), box(axes.xaxis.label), box(axes.yaxis.label)]
    for inside in shown:
        assert figure.bbox.x0 <= inside.x0 < inside.x1 <= figure.bbox.x1
        assert figure.bbox.y0 <= inside.y0 < inside.y1 <= figure.bbox.y1
    labels = [box(label) for label in axes.get_xticklabels()]
    assert all(one.x1 < other.x0 for one, other in itertools.pairwise(labels))


@pytest.mark.parametrize("name", ["x" * 80, "runs/" + "long/" * 60 + "best.safetensors", "a$b$_{c}$", "模型"])
def test_a_title_of_any_kind_is_inside_the_picture_as_it_was_given(draw, name):
    figure, axes = draw(make_report((3,), model=name, trials=name + ".txt"))
    title = axes.get_title("left")
    assert title == name if len(name) <= 80 else (title[:9] == name[:9] and title[-9:] == name[-9:] and "…" in title)
    for text in (axes._left_title, axes.texts[0]):
        assert box(text).x1 <= figure.bbox.x1
        assert not text.get_parse_math()
    _, usual = draw(make_report((3,)))
    assert box(axes).width == pytest.approx(box(usual).width, rel=0.02)


def test_half_a_million_trials_make_a_small_drawing(draw, tmp_path):
    report = make_report((1, 2, 3, 4, 5, 6, 7), targets=290_000, nontargets=290_000)
    draw(report, "det.svg")
    assert (tmp_path / "det.svg").stat().st_size < 300_000


@pytest.mark.parametrize("suffix", PICTURES)
def test_the_ending_chooses_the_format_and_the_same_picture_gives_the_same_bytes(tmp_path, suffix):
    for name in ("one", "two"):
        plot_det(make_report((2, 3)), tmp_path / f"{name}{suffix}")
    content = (tmp_path / f"one{suffix}").read_bytes()
    assert content == (tmp_path / f"two{suffix}").read_bytes()
    if suffix == ".svg":
        assert xml.etree.ElementTree.fromstring(content).tag.endswith("svg")
    else:
        assert content.startswith({".png": b"\x89PNG", ".pdf": b"%PDF"}[suffix])


def test_another_ending_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=re.escape("det.jpg: ends in .jpg (expected a name that ends in .png")):
        plot_det(make_report((2,)), tmp_path / "det.jpg")
    assert not list(tmp_path.iterdir())


def test_a_pipe_gets_a_png_and_stays_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    received = []
    reader = threading.Thread(target=lambda: received.append((tmp_path / "pipe").read_bytes()), daemon=True)
    reader.start()
    plot_det(make_report((2,)), tmp_path / "pipe")
    reader.join(timeout=10)
    assert received[0].startswith(b"\x89PNG")
    assert (tmp_path / "pipe").is_fifo()


def test_a_picture_is_white_around(tmp_path):
    figure, axes = new_axes(3, 2)
    style_axes(axes, x="x", y="y", title="a title much too long for such a small picture", subtitle="")
    save_figure(figure, tmp_path / "a.png")
    picture = imread(tmp_path / "a.png")
    edges = [picture[0], picture[-1], picture[:, 0], picture[:, -1]]
    assert all((edge == 1).all() for edge in edges)


def test_families_of_models_differ_in_marker_too():
    found = {(point.colour, point.marker) for point in points()}
    assert len({marker for _, marker in found}) == len(found) == 3
