"""Methods texts as people read them."""

import re

from bids_inpaint.dataset.description import methods_file, write_methods
from bids_inpaint.reports.citations import bibliography, methods_of, readable


def test_every_work_has_its_authors_year_and_place():
    works = bibliography()
    assert works["nipype"].label == "Gorgolewski et al. 2011"
    assert works["spm12"].label == "Ashburner and Friston 2005"
    assert works["orbes2018"].text.startswith("Orbes-Arteaga M., Cardoso M. J., Sørensen L.")
    # two works of one year are told apart
    labels = [work.label for work in works.values()]
    assert len(set(labels)) == len(labels)
    for work in works.values():
        assert not re.search(r"[{}\\]", work.text)


def test_no_key_is_left_and_nothing_is_run():
    text = "As in @manjon2020 [compare @n4; @spm12], *fast* <b>.\n\nIt is [@unknown]."
    paragraphs, references = readable(text)
    first, second = map(str, paragraphs)
    assert first == (
        "As in Manjón et al. 2020 (compare Tustison et al. 2010; Ashburner and Friston 2005), <em>fast</em> "
        "&lt;b&gt;."
    )
    assert second == "It is (unknown)."
    assert [work.label[:8] for work in references] == ["Ashburne", "Manjón e", "Tustison"]


def test_each_run_keeps_its_own_text(tmp_path):
    write_methods(tmp_path, "a-1", {"sub-01": "First [@n4].", "sub-02": "Other."})
    write_methods(tmp_path, "b-2", {"sub-03": "Later."})
    assert "Later" in (tmp_path / "logs/CITATION.md").read_text()
    assert "First" in (tmp_path / "logs/a-1/CITATION.md").read_text()
    assert "Other" in methods_file(tmp_path, "a-1", "sub-02").read_text()
    runs = {"sub-01": "a-1", "sub-02": "a-1", "sub-03": "b-2", "sub-04": "b-2", "sub-05": "gone"}
    shown = methods_of(tmp_path, runs)
    # what no run tells has the newest text
    assert [text.images for text in shown] == [["sub-03", "sub-04", "sub-05"], ["sub-01"], ["sub-02"]]
    assert "First (Tustison et al. 2010)." in str(shown[1].paragraphs[-1])
    assert "n4" not in [work.label for work in shown[0].references]
