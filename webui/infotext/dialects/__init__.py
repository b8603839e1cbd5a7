"""Readers for the metadata of other programs. Each turns it into AUTOMATIC1111's keys; what has no key there is kept
under its own name and shown.

`read(value)` takes a decoded JSON object and answers None when it is not of that dialect.
"""
