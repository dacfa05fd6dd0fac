"""Many runs of one config: which they are, how they are run, and what is made of them."""
