"""`python -m limner` is the command `limner`."""

from limner.pipelines.cli import main

main()
