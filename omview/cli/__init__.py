"""The command line: one file for each family of verbs, loaded only when its verb is used."""
