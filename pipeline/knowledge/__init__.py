"""What the resources say: texts, taxonomy, rules, lexicon; loaded, checked and reloaded together."""
