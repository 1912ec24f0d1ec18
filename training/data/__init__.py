"""From the files that people have to rows that can be defended: read, cleaned, private, unique, leak-free, all accounted for.

Next: `rows.py`, the values every step takes and gives.
"""
