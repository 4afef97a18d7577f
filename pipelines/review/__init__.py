"""A person's review of a run: a log of events beside it, their joint decisions, and what is made of them."""
