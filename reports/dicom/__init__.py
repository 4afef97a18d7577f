"""Reports as DICOM objects of the patient's study, for a PACS: only where `--reports` names them."""
