"""The page is one file, and agrees with the Python code on what both write down."""

import re

from jax_s6.predict import digit
from jax_s6.report.page import ASSETS


def test_the_page_is_one_small_file_without_links(page_file):
    text = page_file.read_text()
    assert len(text.encode()) < 5_000_000 and "{{" not in text.split("<script>")[0]
    assert not re.search(r"(src|href)\s*=\s*[\"'](?!data:)", text) and "url(" not in text
    assert "Permission is hereby granted" in (ASSETS / "uPlot.LICENSE").read_text()


def test_drawings_are_prepared_with_the_numbers_of_predict():
    script = (ASSETS / "network.js").read_text()
    assert f"> {digit.MIN_INK}" in script and f"{digit.BOX} / Math.max" in script
    assert len(script.splitlines()) < 80
