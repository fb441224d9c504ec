"""Makes a C header of text files: embed-text.py OUTPUT FILE..."""
import pathlib
import sys


def quote(line):
    return '\t"' + line.replace("\\", "\\\\").replace('"', '\\"') + '\\n"'


output, *sources = sys.argv[1:]
with open(output, "w", encoding="utf-8") as header:
    header.write("#pragma once\n")
    for source in map(pathlib.Path, sources):
        name = source.stem.replace(".", "_").lower() + "_text"
        lines = source.read_text(encoding="utf-8").splitlines()
        header.write(f"\nstatic const char {name}[] =\n")
        header.write("\n".join(map(quote, lines)) + ";\n")
