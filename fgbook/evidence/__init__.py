"""From a row of a paper to a record and a verdict."""
