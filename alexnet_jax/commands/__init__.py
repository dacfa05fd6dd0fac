"""The verbs of `alexnet`, one file each: flags in, one library call out."""
