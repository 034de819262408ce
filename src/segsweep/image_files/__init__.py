"""Open image and mask files, which may be damaged or hostile."""
