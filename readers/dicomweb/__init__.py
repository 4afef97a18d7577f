"""DICOMweb servers: studies as inputs, and results that are sent back."""
