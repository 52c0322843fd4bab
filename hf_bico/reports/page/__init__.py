"""A report as one HTML page: what it shows is reckoned here, how it looks is in `templates/page`."""
