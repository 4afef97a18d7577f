"""Models in the field's own formats, read as they are: nothing is converted, and what does not fit is refused."""
