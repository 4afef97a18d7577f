"""DICOM studies: files are grouped into series and stacks of slices; only a sandboxed process parses and decodes them.

Nothing is imported here. Only `header` and `pixels` import pydicom, and they run in the sandboxed process.
"""
