"""Which codec decodes which transfer syntax: a pinned order, since lossy pictures differ between codecs.

All are permissively licensed: python-gdcm (Apache-2.0), pylibjpeg with openjpeg and rle (MIT), pyjpegls (MIT), Pillow
(MIT-CMU). pylibjpeg-libjpeg, which alone reads 12-bit extended JPEG, is GPL-3.0: used, last, where a person has
installed it.
"""

from importlib.metadata import PackageNotFoundError, version

_RLE = "1.2.840.10008.1.2.5"
_JPEG = "1.2.840.10008.1.2.4."
_NATIVE = {"1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"}

ORDER: dict[str, tuple[tuple[str, str], ...]] = {
    _RLE: (("pylibjpeg", "pylibjpeg-rle"), ("pydicom", "pydicom")),
    **{
        f"{_JPEG}{n}": (("gdcm", "python-gdcm"), ("pillow", "pillow"), ("pylibjpeg", "pylibjpeg-libjpeg"))
        for n in (50, 51)
    },
    **{f"{_JPEG}{n}": (("gdcm", "python-gdcm"), ("pylibjpeg", "pylibjpeg-libjpeg")) for n in (57, 70)},
    **{f"{_JPEG}{n}": (("pyjpegls", "pyjpegls"), ("gdcm", "python-gdcm")) for n in (80, 81)},
    **{
        f"{_JPEG}{n}": (("pylibjpeg", "pylibjpeg-openjpeg"), ("gdcm", "python-gdcm"), ("pillow", "pillow"))
        for n in (90, 91)
    },
    **{f"{_JPEG}{n}": (("pylibjpeg", "pylibjpeg-openjpeg"),) for n in (201, 202, 203)},
}
"""Transfer syntax UID → (pydicom's plug-in, the package that does the work), in the order in which they are tried."""


def plugins(syntax: str) -> list[str]:
    """Installed codecs for a transfer syntax as pydicom names them, in order; [""] where it is not compressed."""
    return [""] if syntax in _NATIVE else [plugin for plugin, package in ORDER.get(syntax, ()) if _version(package)]


def decoders(syntax: str) -> list[str]:
    """The same with their packages and versions, for the record; "native" where it is not compressed."""
    if syntax in _NATIVE:
        return ["native"]
    found = [(package, _version(package)) for _, package in ORDER.get(syntax, ())]
    return [f"{package} {number}" for package, number in found if number]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
