"""Many runs in one go: which they are and what they take (``grid``, ``pace``), several
at a time (``pool``), and what became of them (``report``).
"""

PARENT = "FGBOOK_PARENT"
"""Variable by which a process is told the number of the one that it shall end with."""
