"""What `paper_tables.py` is made of: a file of tables, its plan, its fine-tunes, its runs, and its pages."""
