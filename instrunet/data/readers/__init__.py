"""One file a corpus (or a kin of them): a folder of labelled sound to the rows of a manifest."""
