"""Archives: what there is to tag, the row of one unit, and the books that must close."""
