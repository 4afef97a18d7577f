"""The overview picture of an image, with its findings."""
