"""A report as an HTML page: all of it is there, it asks for nothing, and what comes from outside stays text."""

import json

import pytest
from fuzz.damage import places
from support.pages import assert_asks_for_nothing, assert_can_be_heard, parsed
from support.told import ROLES, check_data, compare_data, maps_data, port_data

from hf_bico import PortError
from hf_bico.reports.page.html import html_of
from hf_bico.reports.page.pictures import Axis

EVIL = "\"><script>alert(1)</script><img src=x onerror=alert(1)>{{ 7 * 7 }}</style></title></pre><!-- \u202e ' `"
MADE = {"port": port_data, "comparison": compare_data, "maps": maps_data, "check": check_data}


@pytest.fixture(scope="module", params=MADE)
def every(request):
    """A page of each kind: its kind, its data and its text."""
    data = MADE[request.param]()
    return request.param, data, html_of(data, "https://hub.example")


def test_a_page_asks_the_network_for_nothing(every):
    kind, _, text = every
    root = assert_asks_for_nothing(text)
    assert kind in root.every("title")[0].text


def test_it_can_be_read_without_eyes(every):
    assert_can_be_heard(parsed(every[2]))


def test_it_ends_with_its_json(every):
    _, data, text = every
    (shown,) = parsed(text).every("pre", class_="data")
    assert json.loads(shown.text) == json.loads(json.dumps(data))


def test_it_says_where_all_came_from(every):
    _, data, text = every
    links = {node.text: node.attrs["href"] for node in parsed(text).every("a", rel="noreferrer")}
    if "lineage" not in data:
        data = {"lineage": {role: data[role] for role in ("source", "target")}}
    for role, origin in data["lineage"].items():
        kind = "datasets/" if role == "dataset" else ""
        assert links[origin["name"]] == f"https://hub.example/{kind}{origin['name']}/tree/{origin['commit']}"


def test_without_a_hub_there_are_no_links():
    assert 'href="http' not in html_of(port_data())


def sections(text: str) -> list[str]:
    return [node.attrs["id"] for node in parsed(text).every("section")]


def test_sections_of_a_port_come_in_the_order_of_a_readers_questions():
    order = "scores answers elsewhere tried layers matching left cost made lineage again json"
    assert sections(html_of(port_data())) == order.split()


def test_every_layer_is_there_and_says_what_became_of_it():
    data = port_data(3)
    data["moved"].append(data["moved"][0] | {"target": "a layer of no block", "source": "its partner"})
    root = parsed(html_of(data))
    cells = {cell.every("b")[0].text: cell for cell in root.every("span", class_="cell")}
    assert list(cells) == [entry["target"] for entry in data["moved"]]
    for entry in data["moved"]:
        lines = [line.text for line in cells[entry["target"]].every("i")]
        assert f"from {entry['source']}" in lines
        for side in ("output", "input"):
            fit = entry[side]
            told = f"rank {fit['rank']} of 384, residual {fit['residual']:.3f}" if fit else "as it is"
            assert f"{side} side: {told}" in lines
        assert f"τ kept: {entry['kept']:.1%}" in lines
        assert "‖τ‖ 0.3" in lines
        assert ("shape 384×384 → 512×512" in lines) == ("of no block" not in entry["target"])
        assert cells[entry["target"]].attrs["tabindex"] == "0"
    assert [head.text for head in root.every("table", class_="grid")[0].every("th", scope="col")] == ["block", *ROLES]


def test_fuller_cells_are_those_whose_maps_fit_better():
    data = port_data(1)
    for entry, residual in zip(data["moved"], (0.0, 0.3, 1.0), strict=False):
        entry |= {side: {"rank": 1, "full": 2, "residual": residual} for side in ("output", "input")}
    found = [cell.attrs["class"].split()[1] for cell in parsed(html_of(data)).every("span", class_="cell")]
    assert found[:3] == ["f10", "f7", "f0"]


def test_the_chosen_pairs_are_framed():
    data = port_data(4)
    root = parsed(html_of(data))
    edges = [(node.attrs["x"], node.attrs["y"]) for node in root.every("rect", class_="heat-edge")]
    assert edges == [(f"{25.0 * source}%", str(26 * target)) for target, source in enumerate([0, 0, 1, 1])]
    strengths = [node.attrs["fill-opacity"] for node in root.every("rect", class_="heat")]
    assert strengths == [f"{1 / (1 + abs(b - a)):.2f}" for b in range(4) for a in range(4)]


def test_dots_and_whiskers_lie_where_the_scores_are():
    """All on one axis, in the order of the table, and the port's row stands out."""
    data = port_data()
    root = parsed(html_of(data))
    rows = root.every("section", id="scores")[0].every("tbody")[0].every("tr")
    scores = [data["evaluation"][name] for name in ("source", "zero_shot", "naive", "bico", "ported")]
    places = [float(row.every("circle")[0].attrs["cx"][:-1]) for row in rows]
    least, most = min(each["low"] for each in scores), max(each["high"] for each in scores)
    for score, place, row in zip(scores, places, rows, strict=True):
        assert place == pytest.approx(4 + 92 * (score["value"] - least) / (most - least), abs=0.02)
        low, high = (float(row.every("line", class_="whisker")[0].attrs[x][:-1]) for x in ("x1", "x2"))
        assert low < place < high
        assert f"{score['value']:.1%}" in row.text
    assert ["marked" in row.attrs.get("class", "") for row in rows] == [False] * 4 + [True]


def test_a_score_on_another_scale_is_not_drawn_on_it():
    data = port_data()
    data["evaluation"] |= {"comparable": False, "recovered": None}
    rows = parsed(html_of(data)).every("section", id="scores")[0].every("tbody")[0].every("tr")
    assert [len(row.every("circle")) for row in rows] == [0, 1, 1, 1, 1]


def test_answers_that_changed_are_told():
    """Against others, class by class with those that gained most first, and on other datasets."""
    root = parsed(html_of(port_data()))
    paired, classes = root.every("section", id="answers")[0].every("tbody")
    zero = float(paired.every("line", class_="start")[0].attrs["x1"][:-1])
    for row, name, certain in zip(paired.every("tr"), ("without the port", "own base"), ("yes", "no"), strict=True):
        assert name in row.every("th")[0].text
        assert certain in [cell.text for cell in row.every("td")]
        assert (float(row.every("circle")[0].attrs["cx"][:-1]) > zero) == (certain == "yes")
    assert [row.every("th")[0].text for row in classes.every("tr")] == ["square", "circle"]
    assert "25%75%+50 points" in classes.text
    assert "1 of 2 classes gained, 1 lost." in root.text
    (row,) = root.every("section", id="elsewhere")[0].every("tbody")[0].every("tr")
    assert "60.0%50.0%+37.0 points" in row.text


def test_what_auto_took_stands_out():
    rows = parsed(html_of(port_data())).every("section", id="tried")[0].every("tbody")[0].every("tr")
    assert [row.every("th")[0].text for row in rows] == ["the new base without a port", "naive", "theseus", "bico"]
    assert [row.attrs.get("class") for row in rows] == [None, None, None, "marked"]
    assert "it needs images" in rows[2].text


def test_the_winner_of_a_comparison_stands_out_and_every_gap_is_drawn_against_n():
    data = compare_data()
    root = parsed(html_of(data))
    (row,) = root.every("tr", class_="marked")
    assert row.text.startswith("weighted1100")
    (chart,) = [svg for svg in root.every("svg") if "against N" in svg.attrs.get("aria-label", "")]
    told = [title.text for title in chart.every("title")]
    assert len(told) == 2 * 3
    assert "weighted, N = 100: 80% ± 3" in told
    (best,) = chart.every("g", class_="strong")
    heights = [float(point.attrs["y"]) for point in best.every("svg")]
    assert heights[0] > heights[1]  # more samples, more of the gap
    assert "it needs images" in root.text
    assert "the gap to the source's own score" in root.text and "gain of" not in root.text
    data["reference"]["what"] = "the target's own fine-tune"
    own = parsed(html_of(data)).text.split("</style>")[-1]
    assert "the gain of the target's own fine-tune" in own and "the gap" not in own
    assert "against N" not in html_of(compare_data((100,)))


@pytest.mark.parametrize("kind", MADE)
def test_texts_from_outside_stay_texts(kind):
    """Whatever text a report holds is put in place of every text in it; keys too."""
    data = MADE[kind]()
    known = {"kind", "form", "metric", "word", "citation"}
    for *way, key in list(places(data)):
        holder = data
        for step in way:
            holder = holder[step]
        if isinstance(holder[key], str) and key not in known | {"created", "hf_bico"}:
            holder[key] += EVIL
    if kind in ("port", "comparison"):
        data["method" if kind == "port" else "methods"] |= {EVIL: {EVIL: EVIL}}
    text = html_of(data, "https://hub.example")
    root = assert_asks_for_nothing(text)
    assert_can_be_heard(root)
    assert "<script" not in text
    assert "\u202e" not in text
    assert "49" not in root.every("h1")[0].text
    assert EVIL.split("\u202e")[0] in root.every("h1")[0].text
    links = root.every("a", rel="noreferrer")
    assert not links  # no name is that of a repo now


def test_a_page_of_a_large_model_is_small():
    text = html_of(port_data(48))
    assert len(text.encode()) < 1_000_000
    assert text.count('class="cell') == 48 * 7


def test_a_layer_of_many_experts_is_one_cell():
    data = port_data(1)
    sites, entries = [], []
    for expert in range(100):
        for role in ("MLP up", "MLP down"):
            sites.append({"role": f"expert {expert} {role}", "source": [4, 4], "target": [4, 4]})
            name = f"block 0 expert {expert} {role}"
            entries.append(data["moved"][0] | {"source": name, "target": name})
    data["layers"][0]["sites"], data["moved"] = sites, entries
    root = parsed(html_of(data))
    assert len(root.every("span", class_="cell")) == 2
    assert "100 layers, on average:" in root.text
    assert "block 0 expert 73 MLP up" in root.text


@pytest.mark.parametrize(
    ("gone", "section"),
    [("evaluation", None), ("verdict", None), ("matching", "matching"), ("command", "again"), ("estimate", None)],
)
def test_what_exists_is_shown(gone, section):
    """Live ports and older schemas have less."""
    data = port_data(schema=3)
    data.pop(gone, None)
    text = html_of(data)
    gone_too = {"answers", "elsewhere"} if gone == "evaluation" else {section}
    assert sections(text) == [each for each in sections(html_of(port_data())) if each not in gone_too]
    assert_can_be_heard(parsed(text))
    if gone == "evaluation":
        assert "No scores were measured" in text


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ({}, "no report"),
        ({"a": 1}, "no report"),
        ({"schema": 4, "verdict": {}}, "lineage"),
        (port_data(schema=99), "schema 99"),
        (port_data(moved=3), "moved"),
        (port_data(lineage={}), "source"),
        (compare_data() | {"summary": [{"method": "bico"}]}, "alpha"),
        ({"schema": 9, "maps": []}, "schema 9"),
    ],
)
def test_what_is_no_report_is_one_line(data, why):
    with pytest.raises(PortError, match=why):
        html_of(data)


def test_a_metric_that_nobody_knows_is_one_line():
    data = port_data()
    data["evaluation"] = json.loads(json.dumps(data["evaluation"]).replace("accuracy", "luck"))
    with pytest.raises(PortError, match="luck"):
        html_of(data)


@pytest.mark.parametrize("number", ["nan", "-inf", 1e200])
def test_numbers_that_nothing_can_be_reckoned_with_are_one_line(number):
    """A text may stand for a number, for one that JSON has none of too."""
    data = port_data()
    data["moved"][0]["kept"] = number
    with pytest.raises(PortError, match="where a number belongs"):
        html_of(data)


def test_damaged_matrices_are_shown_as_far_as_they_go():
    data = port_data(3)
    data["matching"]["cka"][""] = [[0.5], [], [2.0, -1.0, 0.25]]
    data["matching"]["paths"][""] = [7, -1, 2, 5]
    root = parsed(html_of(data))
    assert [node.attrs["fill-opacity"] for node in root.every("rect", class_="heat")] == [
        "0.50",
        "1.00",
        "0.00",
        "0.25",
    ]
    assert len(root.every("rect", class_="heat-edge")) == 1


@pytest.mark.parametrize("values", [[], [3.0], [0.1, 0.1], [-1e308, 1e308], [1e-320, 2e-320], [0, 2**127]])
def test_an_axis_holds_any_numbers(values):
    axis = Axis.over(values)
    assert all(0 <= axis.at(value) <= 100 for value in values)
    assert all(0 <= tick.at <= 100 for tick in axis.ticks(str))


def test_axes_have_round_steps():
    assert [tick.label for tick in Axis(0.13, 0.92).ticks("{:.0%}".format, 5)] == ["20%", "40%", "60%", "80%"]
    assert Axis(0, 10).steps(5) == [0, 2, 4, 6, 8, 10]
