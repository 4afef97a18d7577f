"""The codecs of each transfer syntax, in a fixed order, since decoded lossy pixels differ between codecs.

All are permissively licensed: python-gdcm (Apache-2.0), pylibjpeg with openjpeg and rle (MIT), pyjpegls (MIT), Pillow
(MIT-CMU). pylibjpeg-libjpeg, the only one that reads 12-bit extended JPEG, is GPL-3.0: it is used last, where the user
has installed it.
"""

from importlib.metadata import PackageNotFoundError, version

_NATIVE = {"1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"}
_JPEG = "1.2.840.10008.1.2.4."
_GDCM, _PILLOW, _LIBJPEG = ("gdcm", "python-gdcm"), ("pillow", "pillow"), ("pylibjpeg", "pylibjpeg-libjpeg")
_OPENJPEG, _JPEGLS = ("pylibjpeg", "pylibjpeg-openjpeg"), ("pyjpegls", "pyjpegls")

CODECS: dict[str, tuple[tuple[str, str], ...]] = {
    "1.2.840.10008.1.2.5": (("pylibjpeg", "pylibjpeg-rle"), ("pydicom", "pydicom")),
    **dict.fromkeys((f"{_JPEG}50", f"{_JPEG}51"), (_GDCM, _PILLOW, _LIBJPEG)),
    **dict.fromkeys((f"{_JPEG}57", f"{_JPEG}70"), (_GDCM, _LIBJPEG)),
    **dict.fromkeys((f"{_JPEG}80", f"{_JPEG}81"), (_JPEGLS, _GDCM)),
    **dict.fromkeys((f"{_JPEG}90", f"{_JPEG}91"), (_OPENJPEG, _GDCM, _PILLOW)),
    **dict.fromkeys((f"{_JPEG}201", f"{_JPEG}202", f"{_JPEG}203"), (_OPENJPEG,)),
}
"""Transfer syntax UID → (pydicom's plug-in, the package behind it), in the order in which they are tried."""


def plugins(syntax: str) -> list[str]:
    """Installed codecs of a transfer syntax by pydicom's names, in order; [""] where it is not compressed."""
    return [""] if syntax in _NATIVE else [plugin for plugin, package in CODECS.get(syntax, ()) if _version(package)]


def codec_versions(syntax: str) -> list[str]:
    """The same as packages with versions; ["native"] where it is not compressed."""
    if syntax in _NATIVE:
        return ["native"]
    found = [(package, _version(package)) for _, package in CODECS.get(syntax, ())]
    return [f"{package} {number}" for package, number in found if number]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
