"""From records to the tables of the results folder."""
