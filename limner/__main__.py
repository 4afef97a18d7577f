"""`python -m limner` runs the command `limner`."""

from limner.pipelines.cli.main import main

main()
