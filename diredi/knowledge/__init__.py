"""Reverse distillation, the knowledge gap, applying gaps, re-distilling students.

`recipe`, `policy`, `gap` and `check` need no torch; `reverse`, `apply`, `redistil` and `jobs` do.
"""
