"""Prognosis of new patients: from their images and a table to what each fitted model says, and whether it may."""
