"""DICOM studies: files become series, series become stacks, and a limited process alone decodes them.

Nothing is imported here. Only `header` and `pixels` import pydicom, and they run in the limited process.
"""
