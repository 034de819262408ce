"""The two documents' printed figures beside ours: what to train, what was trained, and the page that shows both."""
