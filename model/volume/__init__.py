"""Volume annotators: networks that see a stack of slices as one volume in the patient."""
