"""Names the versions of prepared datasets; the version folder is called like its version."""

# Photographs are resized by Pillow. In the first version cykooz-resizer did that, which has no wheels for ARM Linux.
VERSION = '2.0.0'
FIRST_VERSION = '1.0.0'  # stays that of the embedded dataset, which is drawn at its size
VERSIONS = (VERSION, FIRST_VERSION)  # all that are read, the newest first
