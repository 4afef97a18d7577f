"""Errors in four parts, and the name that was meant."""

from limner.readers.errors import nearest


def test_the_name_that_is_most_like_the_one_given_is_offered() -> None:
    assert nearest("tresh", ["tile", "threshold", "trash"]) == "Did you mean 'trash'? "
    assert nearest("hd_nmu", iter({"hd_num": 9})) == "Did you mean 'hd_num'? "
    assert nearest("hd_num", ["model", "out"]) == ""
    assert nearest("x", []) == ""
