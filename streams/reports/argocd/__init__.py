"""Tells whether Argo CD has deployed a revision, from what its Application says; only ever reads."""
