"""Tables on disk, their summaries, the workbook and the page."""
