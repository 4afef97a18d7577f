"""`python -m limner` is the command `limner`."""

from limner.pipelines.cli.main import main

main()
