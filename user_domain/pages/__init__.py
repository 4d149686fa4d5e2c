"""The site's web pages, which its user domain serves inside the site. No picture leaves it."""
