"""What people look at: a page in the browser, a live view in a notebook."""
