"""Reports for people: HTML pages that show everything in one file, offline, and run nothing."""
