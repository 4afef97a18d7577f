"""Errors in four parts, and the name that was meant."""

from limner.readers.errors import did_you_mean


def test_did_you_mean() -> None:
    assert did_you_mean("tresh", ["tile", "threshold", "trash"]) == "Did you mean 'trash'? "
    assert did_you_mean("hd_nmu", iter({"hd_num": 9})) == "Did you mean 'hd_num'? "
    assert did_you_mean("hd_num", ["model", "out"]) == ""
    assert did_you_mean("x", []) == ""
