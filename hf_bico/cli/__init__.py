"""The command line: words in, words out; the only room that prints."""
