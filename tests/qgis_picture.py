"""Draws layers in QGIS without a screen, as its user sees them: for the system's Python, which has `qgis.core`.

    /usr/bin/python3 tests/qgis_picture.py OUT.png WIDTH LAYER…

The first layer is on top, each in the style that its file has, polygons without one as black lines; the extent is that
of the last one. Prints how many features are valid.
"""

import sys

from qgis.core import (  # type: ignore[import-not-found]
    QgsApplication,
    QgsFillSymbol,
    QgsMapRendererSequentialJob,
    QgsMapSettings,
    QgsRasterLayer,
    QgsVectorLayer,
)
from qgis.PyQt.QtCore import QSize  # type: ignore[import-not-found]
from qgis.PyQt.QtGui import QColor  # type: ignore[import-not-found]

application = QgsApplication([], False)
application.initQgis()
out, width, *names = sys.argv[1:]
layers = [QgsRasterLayer(name, name) if ".tif" in name else QgsVectorLayer(name, name, "ogr") for name in names]
if broken := [layer.name() for layer in layers if not layer.isValid()]:
    sys.exit(f"QGIS cannot open {', '.join(broken)}")
for layer in layers:
    if isinstance(layer, QgsVectorLayer) and layer.renderer().type() == "singleSymbol":  # which has no style of its own
        line = {"style": "no", "outline_color": "black", "outline_width": "0.7"}
        layer.renderer().setSymbol(QgsFillSymbol.createSimple(line))
features = [feature for layer in layers if isinstance(layer, QgsVectorLayer) for feature in layer.getFeatures()]
whole = layers[-1].extent()
settings = QgsMapSettings()
settings.setLayers(layers)
settings.setDestinationCrs(layers[-1].crs())
settings.setExtent(whole)
settings.setBackgroundColor(QColor("white"))
settings.setOutputSize(QSize(int(width), round(int(width) * whole.height() / whole.width())))
job = QgsMapRendererSequentialJob(settings)
job.start()
job.waitForFinished()
job.renderedImage().save(out)
valid = sum(feature.geometry().isGeosValid() for feature in features)
sys.stdout.write(f"valid: {valid} of {len(features)}\n")
