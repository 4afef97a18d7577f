"""Objects: what is made of the areas of a class map after they are joined, on the pixels that they were traced from."""
