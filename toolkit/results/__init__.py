"""The stored tables, their summaries, the workbook and the page."""
