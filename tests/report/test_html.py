import base64
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from bayeslmm.families import as_family
from bayeslmm.report import html as html_report
from bayeslmm.report.compare import compare
from bayeslmm.report.equation import equation
from bayeslmm.report.html import package_versions, report_html, write_report
from bayeslmm.report.tables import Table

VOID = {"meta", "br", "img", "mspace"}


class Balance(HTMLParser):
    """Collects open tags and everything a browser would fetch."""

    def __init__(self):
        super().__init__()
        self.open, self.links, self.titles = [], [], []

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "h2":
            self.titles.append(data)


@pytest.fixture(scope="module")
def page(fit, post) -> str:
    return report_html(
        fit=fit,
        post=post,
        comparison=compare(fit, post),
        equation=equation(fit.design, as_family("gaussian")),
        code="model = blm.model('a < b')",
        data_name="sleep & study",
        warnings=("the fit is <singular>", "the fit is <singular>"),
    )


@pytest.fixture(scope="module")
def parsed(page) -> Balance:
    parser = Balance()
    parser.feed(page)
    return parser


def test_tags_are_balanced(parsed):
    assert parsed.open == []


def test_nothing_is_loaded_from_elsewhere(page, parsed):
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in parsed.links)
    assert not re.search(r"https?://|@import|url\(|<script|<link", page)


def test_sections_come_in_order_and_are_linked(page, parsed):
    assert parsed.titles == [
        "Model",
        "Side by side",
        "REML fit",
        "Posterior",
        "Posterior predictive check",
        "Sampler",
        "Group effects",
        "Reproduce",
    ]
    anchors = [link[1:] for link in parsed.links if link.startswith("#")]
    assert all(f'id="{anchor}"' in page for anchor in anchors)
    assert len(anchors) == len(parsed.titles)


def test_images_are_png_with_a_description(page):
    images = re.findall(r'<img alt="([^"]+)" width="\d+" src="data:image/png;base64,([^"]+)">', page)
    assert len(images) == 4
    assert all(base64.b64decode(data).startswith(b"\x89PNG") for _, data in images)


def test_text_is_escaped_and_warnings_are_said_once(page):
    assert page.count("the fit is &lt;singular&gt;") == 1
    assert "sleep &amp; study" in page
    assert "blm.model(&#x27;a &lt; b&#x27;)" in page
    assert "<singular>" not in page


def test_report_of_a_fit_alone_has_no_sampler(fit):
    page = report_html(fit=fit)
    assert ">Sampler<" not in page
    assert "Linear mixed model fit by REML" in page
    assert 'class="warnings"' not in page


def test_report_needs_a_result():
    with pytest.raises(ValueError, match="a fit, a posterior or both"):
        report_html()


def test_file_is_written_as_utf8(fit, tmp_path):
    path = write_report(tmp_path / "r.html", fit=fit, priors=Table(fit.parameter_frame()))
    assert path.read_bytes().decode("utf-8").startswith("<!DOCTYPE html>")


def test_traces_show_the_parameters_with_fewest_effective_draws(post, monkeypatch):
    monkeypatch.setattr(html_report, "MOST_TRACES", 2)
    rng = np.random.default_rng(0)
    draws = {name: rng.normal(size=(2, 100)) for name in "abcd"}
    draws["b"] = np.cumsum(draws["b"], axis=1)
    draws["d"] = np.cumsum(draws["d"], axis=1)
    draws["still"] = np.ones((2, 100))
    assert list(html_report._slowest(draws)) == ["b", "d"]


def test_versions_name_what_is_installed():
    assert {"bayeslmm", "numpy", "pandas"} <= set(package_versions())
