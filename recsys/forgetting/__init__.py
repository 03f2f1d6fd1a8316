"""Datasets and archives without the users who want to be forgotten."""
