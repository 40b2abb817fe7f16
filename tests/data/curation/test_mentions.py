"""Captions that name one of some words."""

import pickle
import unicodedata

import pytest

from moviegen_core.errors import UsageError
from moviegen_data.curation import Clip
from moviegen_data.curation.stages.mentions import Mentions


def said(caption, **settings):
    stage = pickle.loads(pickle.dumps(Mentions(**settings)))
    return stage.apply(Clip(key="a", source="a.mp4", caption=caption), None)


@pytest.mark.parametrize(
    ("caption", "found"),
    [
        ("A man's hat lies on a chair.", ["man"]),
        ("A man’s hat", ["man"]),
        ("Two WOMEN and a child, both smiling; the women wave", ["women", "child", "smiling"]),
        ("A man-made lake near the Isle of Mankind", None),
        ("The womanizer's manual", None),
        ("A dog runs over a field", None),
        ("(people)", ["people"]),
    ],
)
def test_words_count_whole(caption, found):
    clip = said(caption)
    assert clip.annotations.get("mentions") == found
    assert (clip.drop is None) == (found is not None)


def test_terms_of_ones_own(tmp_path):
    file = tmp_path / "terms.txt"
    file.write_text("# of sport\n\ntable tennis\ntable\nC++ (the language)  # regular expressions mean nothing here\n")
    assert said("He plays table  tennis on a table", terms=str(file)).annotations["mentions"] == ["table tennis", "table"]
    assert said("Writing C++ (the language)", terms=str(file)).drop is None
    drop = said("A cat", terms=["dog", "dog", "horse"]).drop
    assert (drop.reason, drop.measured, drop.wanted) == ("mentions none", "A cat", "one of 2 terms")


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_letters_with_accents_count_in_either_form(form):
    caption = unicodedata.normalize(form, "Ein Café")
    for term in ("NFC", "NFD"):
        assert said(caption, terms=[unicodedata.normalize(term, "café")]).annotations["mentions"] == ["café"]
    assert said(caption, terms=["cafe"]).drop is not None


def test_a_line_ends_where_a_keyboard_ends_it(tmp_path):
    (tmp_path / "terms.txt").write_text("ice\u2028cream\r\ncake\n")
    assert Mentions(terms=str(tmp_path / "terms.txt")).terms == ["ice\u2028cream", "cake"]


def test_what_it_cannot_look_at_is_an_error(tmp_path):
    with pytest.raises(UsageError, match="the clip a has none"):
        said("")
    with pytest.raises(UsageError, match="the nearest list is 'people'"):
        Mentions(terms="poeple")
    with pytest.raises(UsageError, match="no text in it"):
        Mentions(terms=[" "])
    with pytest.raises(UsageError, match="cannot be read as text"):
        Mentions(terms=str(tmp_path))
    for name in ("a\0b", "~nobody-of-this-name/terms.txt"):
        with pytest.raises(UsageError, match="cannot be read as text"):
            Mentions(terms=name)
    (tmp_path / "latin.txt").write_bytes("Müller".encode("latin-1"))
    with pytest.raises(UsageError, match="cannot be read as text"):
        Mentions(terms=str(tmp_path / "latin.txt"))
