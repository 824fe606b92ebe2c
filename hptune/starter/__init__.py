"""Starter configs for what a user has: data looked at without loading them, code read without running it."""
