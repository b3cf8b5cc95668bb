"""Makes packages.tsv from the package index of a Debian machine.

Run `apt-get -o Acquire::Languages=en update` first (the long descriptions are in the English translation), then
`python examples/packages/make_data.py`. Two runs on the same index write the same file.
"""

import argparse
import collections
import csv
import re
import subprocess
from pathlib import Path

HERE = Path(__file__).parent
COLUMNS = ["name", "section", "size", "description", "tags"]

# Parts of programs, not programs.
DULL_SECTIONS = """
libs libdevel oldlibs debug doc localization metapackages tasks introspection kernel fonts perl haskell rust golang
javascript java ruby gnu-r php ocaml lisp cli-mono zope
"""
DULL_NAME = re.compile(
    r"^(lib(?!reoffice)|task-|education-|node-|golang-|linux-|gir1\.2-|forensics-|med-|debian-|ruby-|gcc-|g\+\+-|gnat-|gdc-|gobjc|gm2-|cpp-|"
    r"binutils-|llvm-|clang-|fpc-|lazarus-|lcl-|firmware-|hunspell-|aspell-|myspell-|mythes-|hyphen-|wireless-regdb|elpa-|vim-|asterisk-|"
    r"openstack-|texlive-|postgresql-|dkms|r-)"
    r"|-(data|dev|dbg|dbgsym|doc|docs|common|plugins?|perl|l10n|dkms|examples|headers|extras?|modules?|source|core|base|bin|tests?|"
    r"all|full|meta|java|help|module-.*|i18n|lang|themes?|backend-.*|plugin-.*|cross.*|dummy|runtime|nox|tiny|cli-.*|assets|levels|music|maps|"
    r"resources|helper|wordlist|support|gtk|gnome|kde|qt|sysv|udeb|agent.*|driver.*|mysql|pgsql|sqlite3?)$"
)
DULL_TEXT = re.compile(
    r"transitional|dummy package|metapackage|meta-package|debug symbols|for cross compil|development files",
    re.IGNORECASE,
)

# Tag facets that say what a program is for; the others describe how it is made.
USEFUL_FACETS = (
    "admin biology devel field game hardware mail network office science security sound use video web works-with"
)
DULL_TAGS = {"devel::library", "devel::packaging", "works-with::TODO", "field::TODO"}


def fields(stanza: str) -> dict[str, str]:
    """The fields of one stanza; continuation lines are joined by newlines."""
    found: dict[str, str] = {}
    key = ""
    for line in stanza.splitlines():
        if line.startswith(" "):
            found[key] += "\n" + line[1:]
        elif ":" in line:
            key, value = line.split(":", 1)
            found[key] = value.strip()
    return found


def all_tags(package: dict[str, str]) -> list[str]:
    return [tag.strip() for tag in package.get("Tag", "").split(",") if tag.strip()]


def useful_tags(package: dict[str, str]) -> list[str]:
    return [
        t
        for t in all_tags(package)
        if t.split("::")[0] in USEFUL_FACETS.split() and t not in DULL_TAGS and "TODO" not in t
    ]


def mentions(packages: list[dict[str, str]]) -> collections.Counter[str]:
    """The number of sources that depend on each package: the index's only hint of popularity."""
    sources: dict[str, set[str]] = collections.defaultdict(set)
    for package in packages:
        source = package.get("Source", package["Package"]).split()[0]
        for key in ("Depends", "Recommends", "Suggests", "Enhances"):
            for clause in re.split(r"[,|]", package.get(key, "")):
                if words := clause.split():
                    sources[words[0].split(":")[0]].add(source)
    return collections.Counter({name: len(users) for name, users in sources.items()})


def is_program(package: dict[str, str]) -> bool:
    tags = all_tags(package)
    if DULL_NAME.search(package["Package"]) or DULL_TEXT.search(package["Description"]):
        return False
    if "role::program" in tags and (
        "scope::application" in tags or "scope::utility" in tags or "devel::debugger" in tags
    ):
        return True
    section = package["Section"].split("/")[-1]
    if section == "python":  # mostly modules: keep only packages that call themselves programs
        return re.search(r"debugger|editor|shell|IDE|profiler|linter", package["Description"]) is not None
    return section not in DULL_SECTIONS.split()


def rank(package: dict[str, str], known: collections.Counter[str]) -> float:
    """Ranks well-described and frequently mentioned programs first."""
    tags = all_tags(package)
    program = "role::program" in tags
    return (
        min(known[package["Package"]], 12)
        + 4 * (program or "x11::application" in tags)
        + 2 * ("scope::application" in tags)
        + 2 * ("interface::graphical" in tags)
        + min(len(useful_tags(package)), 4)
    )


def long_descriptions(names: list[str]) -> dict[str, str]:
    """name -> the long description, in paragraphs."""
    text = subprocess.run(
        ["apt-cache", "-o", "Acquire::Languages=en", "show", "--no-all-versions", *names],
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=True,
    ).stdout
    found: dict[str, str] = {}
    for stanza in text.split("\n\n"):
        package = fields(stanza)
        body = package.get("Description-en", package.get("Description", ""))
        if "Package" in package and "\n" in body:
            found[package["Package"]] = body.split("\n", 1)[1]
    return found


def describe(summary: str, body: str, limit: int) -> str:
    """The short description and the start of the long one, at most `limit` characters, cut between words."""
    body = " ".join(line for line in body.splitlines() if line.strip() not in {"", "."})
    body = re.sub(r"\S*(://|@)\S*", "", body)  # drop addresses
    text = " ".join(f"{summary}. {body}".split()) if body else " ".join(summary.split())
    return text if len(text) <= limit else text[: limit + 1].rsplit(" ", 1)[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=4000)
    parser.add_argument("--description", type=int, default=190, help="longest description, in characters")
    options = parser.parse_args()

    index = subprocess.run(
        ["apt-cache", "dumpavail"], capture_output=True, text=True, encoding="utf-8", check=True
    ).stdout
    by_name = {p["Package"]: p for p in map(fields, index.split("\n\n")) if "Package" in p and "Description" in p}
    known = mentions(list(by_name.values()))
    programs = [p for p in by_name.values() if is_program(p)]
    programs.sort(key=lambda p: (-rank(p, known), p["Package"]))
    chosen = sorted(programs[: options.count], key=lambda p: p["Package"])
    bodies = long_descriptions([p["Package"] for p in chosen])

    with open(HERE / "packages.tsv", "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t", quoting=csv.QUOTE_NONE, quotechar=None, lineterminator="\n")
        writer.writerow(COLUMNS)
        for package in chosen:
            summary = package["Description"].splitlines()[0]
            description = describe(summary, bodies.get(package["Package"], ""), options.description).replace("\t", " ")
            row = [package["Package"], package["Section"].split("/")[-1], package["Installed-Size"]]
            writer.writerow([*row, description, " ".join(useful_tags(package))])
    print(f"{len(chosen)} packages of {len(programs)} programs, of {len(by_name)} packages")


if __name__ == "__main__":
    main()
