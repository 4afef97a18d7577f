"""Variables of NetCDF files: read by name, as bands where they share a grid, and refused in HDF5."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from limner.readers.contract import ExpectedImage, check_reader, scan_with
from limner.readers.files import is_remote, split_variable
from limner.readers.raster.scene import SceneReader
from limner.readers.registry import open_image, scan
from scipy.io import netcdf_file

GRID = ("y", "x")


@pytest.fixture
def variables(tmp_path: Path) -> str:
    """Two variables on one grid, one on a coarser grid, and one of three times; each has its place in its values."""
    path = tmp_path / "products 1" / "two.nc"
    path.parent.mkdir()
    with netcdf_file(path, "w") as file:
        sizes = {"y": 6, "x": 8, "yc": 3, "xc": 4, "time": 3}
        for axis, size in sizes.items():
            file.createDimension(axis, size)
            centres = file.createVariable(axis, "f8", (axis,))
            step = 10.0 * 8 / (sizes["x"] if axis in GRID else sizes["xc"])
            centres[:] = 5e5 + step / 2 + (step if axis.startswith("x") else -step) * np.arange(size)
            if axis != "time":
                centres.units, centres.standard_name = "m", f"projection_{axis[0]}_coordinate"
        for at, (name, axes) in enumerate(
            {"red": GRID, "nir": GRID, "depth": ("yc", "xc"), "wind": ("time", *GRID)}.items(), start=1
        ):
            shape = tuple(sizes[axis] for axis in axes)
            file.createVariable(name, "i2", axes)[:] = 1000 * at + np.arange(np.prod(shape)).reshape(shape)
        file.variables["red"].scale_factor, file.variables["red"].add_offset = 1e-4, -0.1
    return str(path)


def channels(path: str, **options: str) -> list[tuple[str, Sequence[str]]]:
    """The id and the names of the channels of each image, of one input."""
    (row,) = scan([path], options)
    assert row.status == "read", row.reason
    return [(info.id, [one.name for one in info.channels]) for info in row.infos]


def test_variables_that_share_a_grid_are_bands(variables: str) -> None:
    found = sorted(channels(variables))
    assert found == [("two", ["red", "nir"]), ("two-depth", ["depth"]), ("two-wind", ["1", "2", "3"])]
    (row,) = scan([variables], {})
    red = row.infos[0].channels[0]
    assert (red.scale, red.offset) == (pytest.approx(1e-4), pytest.approx(-0.1))
    native = np.stack([1000 + np.arange(48).reshape(6, 8), 2000 + np.arange(48).reshape(6, 8)], axis=2)
    with open_image(row.infos[0]) as image:
        pixels, valid = image.read(row.infos[0].box, row.infos[0].size)
    assert valid.all()
    assert np.array_equal(pixels, native)
    with open_image(row.infos[0], ["nir"]) as image:
        assert np.array_equal(image.read(row.infos[0].box, row.infos[0].size)[0][..., 0], native[..., 1])


def test_the_reader_keeps_its_contract_on_variables(variables: str) -> None:
    native = np.stack([n + np.arange(48).reshape(6, 8) for n in (1000, 2000)], axis=2).astype(np.int16)
    check_reader(SceneReader(), variables, ExpectedImage(native, np.ones((6, 8), bool)))


@pytest.mark.parametrize("form", ['NETCDF:"{}":{}', "netcdf:{}:{}"])
def test_a_variable_is_read_by_its_name(variables: str, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    monkeypatch.chdir(Path(variables).parent)
    for file in (variables, "two.nc"):
        assert channels(form.format(file, "nir")) == [("two-nir", ["nir"])]
        assert channels(form.format(file, "wind")) == [("two-wind", ["1", "2", "3"])]
    rows = scan([variables, form.format(variables, "nir"), form.format(variables, "red")], {})
    assert [row.status for row in rows] == ["read"] * 3  # none is a part of another


def test_another_variable_is_refused_with_the_list(variables: str) -> None:
    (row,) = scan([f"NETCDF:{variables}:nir2"], {})
    assert row.status == "failed"
    assert all(word in row.reason for word in ("red", "nir", "depth", "wind", "Did you mean 'nir'"))


def test_the_file_of_a_variable_is_checked_like_any_other(tmp_path: Path) -> None:
    (tmp_path / "a.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(500))
    (tmp_path / "a.txt").write_text("no raster")
    for name, says in {
        f"HDF5:{tmp_path}/a.h5://group/red": "HDF5 or NetCDF 4 is not supported",
        f'NETCDF:"{tmp_path}/a.h5":red': f"""gdal_translate 'NETCDF:"{tmp_path}/a.h5":red' OUT.tif""",
        f"NETCDF:{tmp_path}/a.txt:red": "must be recognised by an installed reader",
        f"NETCDF:{tmp_path}:red": "must be a regular file",
        "NETCDF:/dev/zero:red": "must be a regular file",
        "NETCDF:/dev/none.nc:red": "must be a readable file",
    }.items():
        (row,) = scan([name], {})
        assert (row.status, says in row.reason) == ("failed", True), row.reason


@pytest.mark.parametrize("variable", ["NETCDF:a.nc:red", 'HDF5:"a.h5"://b/red', "hdf5:/data/a.h5://red"])
def test_a_variable_of_a_local_file_is_no_address(variable: str) -> None:
    assert not is_remote(variable)


@pytest.mark.parametrize("variable", ["NETCDF:https://a.org/b.nc:red", 'NETCDF:"/vsicurl/https://a.org/b.nc":red'])
def test_a_variable_of_a_remote_file_is_remote(variable: str) -> None:
    assert is_remote(variable)
    assert split_variable(variable)[1] == "red"


def test_images_that_are_no_variables_keep_their_names(tmp_path: Path) -> None:
    assert [split_variable(name) for name in ("a.tif", "C:/a.tif", "s3://a/b.nc")] == [
        (name, "") for name in ("a.tif", "C:/a.tif", "s3://a/b.nc")
    ]
    with netcdf_file(tmp_path / "a.nc", "w") as file:
        for axis, size in zip(GRID, (2, 3), strict=True):
            file.createDimension(axis, size)
        file.createVariable("red", "f4", GRID)[:] = 1
    assert channels(str(tmp_path / "a.nc")) == [("a", ["red"])]
    (row,) = scan([str(tmp_path / "a.nc")], {})
    assert any("from the last row" in note for note in row.infos[0].notes)  # GDAL has turned them over
    assert channels(f"NETCDF:{tmp_path / 'a.nc'}:red", bands="blue") == [("a", ["blue"])]
    assert scan_with(SceneReader(), str(tmp_path / "a.nc"), {})[0].reader == "raster"
