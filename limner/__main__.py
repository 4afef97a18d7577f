"""`python -m limner` runs the command `limner`."""

from limner.pipelines.cli.start import main

main()
