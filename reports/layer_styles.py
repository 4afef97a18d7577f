"""Styles of a vector layer with a fill per label: QML for QGIS, and SLD by OGC Symbology Encoding 1.1 for others."""

import html
from collections.abc import Sequence
from typing import Final

from .csv_safety import clean_text
from .palette import Palette, rgb

_OPACITY: Final = 0.4
_OUTLINE_MM: Final = 0.4
_OUTLINE_PX: Final = 1.5


def qml(labels: Sequence[str], palette: Palette) -> str:
    """A QGIS layer style: a fill for each value of the field `label`."""
    categories = "".join(
        f'<category render="true" symbol="{place}" value="{_escaped(label)}" label="{_escaped(label)}"/>'
        for place, label in enumerate(labels)
    )
    symbols = "".join(_symbol(place, rgb(palette[label])) for place, label in enumerate(labels))
    return (
        '<!DOCTYPE qgis PUBLIC "http://mrcc.com/qgis.dtd" "SYSTEM"><qgis version="3.22" styleCategories="Symbology">'
        '<renderer-v2 type="categorizedSymbol" attr="label" forceraster="0" symbollevels="0" enableorderby="0">'
        f"<categories>{categories}</categories><symbols>{symbols}</symbols></renderer-v2></qgis>"
    )


def _symbol(place: int, colour: tuple[int, int, int]) -> str:
    red, green, blue = colour
    settings = {
        "color": f"{red},{green},{blue},{round(_OPACITY * 255)}",
        "outline_color": f"{red},{green},{blue},255",
        "outline_style": "solid",
        "outline_width": str(_OUTLINE_MM),
        "outline_width_unit": "MM",
        "style": "solid",
    }
    properties = "".join(f'<prop k="{key}" v="{value}"/>' for key, value in settings.items())
    return (
        f'<symbol type="fill" name="{place}" alpha="1" clip_to_extent="1" force_rhr="0">'
        f'<layer class="SimpleFill" enabled="1" locked="0" pass="0">{properties}</layer></symbol>'
    )


def sld(layer: str, labels: Sequence[str], palette: Palette) -> str:
    """A styled layer descriptor 1.1: a rule for each value of the field `label`."""
    rules = "".join(_rule(label, palette[label]) for label in labels)
    return (
        '<?xml version="1.0" encoding="UTF-8"?>'
        '<StyledLayerDescriptor version="1.1.0" xmlns="http://www.opengis.net/sld"'
        ' xmlns:se="http://www.opengis.net/se" xmlns:ogc="http://www.opengis.net/ogc"'
        ' xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:schemaLocation="http://www.opengis.net/sld'
        ' http://schemas.opengis.net/sld/1.1.0/StyledLayerDescriptor.xsd">'
        f"<NamedLayer><se:Name>{_escaped(layer)}</se:Name><UserStyle><se:Name>{_escaped(layer)}</se:Name>"
        f"<se:FeatureTypeStyle>{rules}</se:FeatureTypeStyle></UserStyle></NamedLayer></StyledLayerDescriptor>"
    )


def _rule(label: str, colour: str) -> str:
    name = _escaped(label)
    return (
        f"<se:Rule><se:Name>{name}</se:Name><se:Description><se:Title>{name}</se:Title></se:Description>"
        "<ogc:Filter><ogc:PropertyIsEqualTo><ogc:PropertyName>label</ogc:PropertyName>"
        f"<ogc:Literal>{name}</ogc:Literal></ogc:PropertyIsEqualTo></ogc:Filter><se:PolygonSymbolizer>"
        f'<se:Fill><se:SvgParameter name="fill">{colour}</se:SvgParameter>'
        f'<se:SvgParameter name="fill-opacity">{_OPACITY}</se:SvgParameter></se:Fill>'
        f'<se:Stroke><se:SvgParameter name="stroke">{colour}</se:SvgParameter>'
        f'<se:SvgParameter name="stroke-width">{_OUTLINE_PX}</se:SvgParameter></se:Stroke>'
        "</se:PolygonSymbolizer></se:Rule>"
    )


def _escaped(text: str) -> str:
    return html.escape(clean_text(text))
