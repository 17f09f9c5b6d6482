"""Genotypes are read and written as AutoSpeech writes them, never evaluated, and a wrong one gets one clear line."""

import json
from pathlib import Path

import pytest

from voxnest.errors import ConfigError
from voxnest.models.autospeech import PAPER
from voxnest.models.genotype import EXAMPLE, Genotype


def test_text_of_the_original_is_written_as_it_was_read(golden: Path) -> None:
    cases = json.loads((golden / "autospeech-genotypes.json").read_text(encoding="utf-8"))["cases"]
    texts = [case["genotype"] for case in cases] + [PAPER, EXAMPLE]
    assert len(texts) > 10
    assert [str(Genotype.parse(text)) for text in texts] == texts


def test_a_genotype_says_what_each_node_adds_up() -> None:
    genotype = Genotype.parse(PAPER)
    edges, concat = genotype.cell(reduction=True)
    assert (edges[2], edges[-1]) == (("dil_conv_5x5", 2), ("dil_conv_5x5", 2))
    assert list(concat) == [2, 3, 4, 5]
    assert genotype.cell(reduction=False)[0][0] == ("dil_conv_5x5", 1)


def test_layout_of_the_text_does_not_matter_and_equal_genotypes_are_equal() -> None:
    spread = PAPER.replace(", ", " ,\n  ").replace("range(2 ,\n  6)", "[2, 3, 4, 5]")
    assert Genotype.parse(spread) == Genotype.parse(PAPER)
    assert str(Genotype.parse(spread)) == PAPER
    assert len({Genotype.parse(spread), Genotype.parse(PAPER)}) == 1


def test_nodes_that_are_not_in_a_row_stay_a_list() -> None:
    text = PAPER.replace("normal_concat=range(2, 6)", "normal_concat=[5, 3]")
    assert str(Genotype.parse(text)) == text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "cannot be read from '' (expected a text such as Genotype(normal=["),
        ("Genotype", "'Genotype' (expected a text such as"),
        ("genotype()", "'genotype()' (expected a text such as"),
        ("\0", ""),
        (PAPER[:-1], "cannot be read from \"(normal=[('dil_conv_5x5', 1)"),
        (PAPER + " x", "cannot be read from 'x' (expected"),
        ("(" * 5000, "cannot be read from '((((("),
        ("-" * 100_000 + "1", "'-----"),
        ("__import__('os').system('false')", "\"__import__('os').system('false')\" (expected"),
        ("Genotype(**everything)", "a field without its name (expected"),
        ("Genotype([], range(2, 6), [], range(2, 6))", "a field without its name (expected"),
        ("Genotype()", "no normal, normal_concat, reduce, reduce_concat (expected the fields normal"),
        (PAPER.replace("reduce=", "reduces="), "field 'reduces' (expected 'reduce'?"),
        (PAPER.replace("reduce=", "normal="), "field 'normal' twice (expected each field once)"),
        (PAPER.replace("('dil_conv_5x5', 1)", "open('x')", 1), "normal=\"[open('x'), ('dil_conv_3x3', 0)"),
        (PAPER.replace("('dil_conv_5x5', 1), ", "", 1), "normal: 7 edges (expected a list of ('operation', node), two"),
        ("Genotype(normal=[], normal_concat=[2], reduce=[], reduce_concat=[2])", "normal: 0 edges (expected"),
        (PAPER.replace("reduce=[", "reduce=5, x=[").replace(", x=", "").replace("5[", "{}, rest=["), "field 'rest'"),
        (PAPER.replace("('dil_conv_5x5', 1)", "'dil_conv_5x5'", 1), "edge 1 of normal: 'dil_conv_5x5' (expected ('o"),
        (PAPER.replace("('dil_conv_5x5', 1)", "('dil_conv_5x5', '1')", 1), "edge 1 of normal: "),
        (PAPER.replace("('dil_conv_5x5', 1)", "('dil_conv_5x5', True)", 1), "edge 1 of normal: "),
        (PAPER.replace("('dil_conv_5x5', 1)", "('dil_conv_5x5', 1.0)", 1), "edge 1 of normal: "),
        (PAPER.replace("('dil_conv_5x5', 1)", "('dil_conv_5x5', 1, 2)", 1), "edge 1 of normal: "),
        (PAPER.replace("sep_conv_3x3", "sep_conv_3x4", 1), "edge 4 of normal: operation 'sep_conv_3x4' (expected 'sep"),
        (PAPER.replace("dil_conv_5x5', 1", "dil_conv_5x5', 2", 1), "edge 1 of normal: no node 2 before it (expected a"),
        (PAPER.replace("dil_conv_5x5', 1", "dil_conv_5x5', -1", 1), "edge 1 of normal: no node -1 before it"),
        (PAPER.replace("dil_conv_5x5', 4", "dil_conv_5x5', 5"), "edge 7 of reduce: no node 5 before it (expected a n"),
        (PAPER.replace("range(2, 6)", "range(2, 7)", 1), "normal_concat=range(2, 7) (expected nodes from 2 to 5, each"),
        (PAPER.replace("range(2, 6)", "range(2, 6.0)", 1), "normal_concat="),
        (PAPER.replace("range(2, 6)", "range(2, 9**9**9)", 1), "normal_concat='range(2, 9 ** 9 ** 9)' (expected range"),
        (PAPER.replace("range(2, 6)", f"range(2, {10**30})", 1), "normal_concat=range(2, 1000000"),
        (PAPER.replace("range(2, 6)", "range(6, 2)", 1), "normal_concat=range(6, 2) (expected"),
        (PAPER.replace("range(2, 6)", "[1, 2]", 1), "normal_concat=[1, 2] (expected"),
        (PAPER.replace("range(2, 6)", "[2, 2]", 1), "normal_concat=[2, 2] (expected"),
        (PAPER.replace("range(2, 6)", "'2'", 1), "normal_concat='2' (expected"),
    ],
)
def test_a_wrong_genotype_gets_one_clear_line(text: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Genotype.parse(text)
    line = str(caught.value)
    assert line.startswith(f"genotype: {says}"), line
    assert "\n" not in line
    assert len(line) < 400
