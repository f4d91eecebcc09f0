"""The page for people who would rather look than read, and its pictures. `page.write` makes them."""
