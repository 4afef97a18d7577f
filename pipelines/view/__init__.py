"""Shows a run in a browser: a server on this machine that reads tiles of the images as they are asked for."""
