"""What the manifests of the stages that make a corpus out of a dataset say that their folders hold."""

#: Files of one part of a dataset that are wanted, by bucket.
SELECTED = "selected"
#: Files of one bucket with their contents, and their signatures.
CONTENTS = "contents"
