"""Kinds of manifests of the stages that build a corpus from a dataset."""

#: Selected files of one part of a dataset, by bucket.
SELECTED = "selected"
#: Files of one bucket with their contents and signatures.
CONTENTS = "contents"
