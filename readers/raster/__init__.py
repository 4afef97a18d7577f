"""Raster maps: GeoTIFF and other GDAL formats, virtual rasters, and scenes made of one file per band."""
