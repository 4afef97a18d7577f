"""Reports: tables, maps and pictures of findings, in formats that other programs open."""
