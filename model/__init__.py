"""Model: regions become views, views become findings.

This package knows tiles and annotators. It does not know files, formats, coordinate reference systems or engines.
Nothing is imported here, so that `import limner.model` loads neither torch nor onnxruntime.
"""
