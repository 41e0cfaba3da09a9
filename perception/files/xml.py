"""XML files of any origin: no entities, no document types of their own, a bounded number of elements."""

from __future__ import annotations

from pathlib import Path
from xml.etree.ElementTree import Element, TreeBuilder, indent, tostring
from xml.parsers import expat

from perception.errors import AnySenseError, DataError
from perception.files.limits import MAX_TEXT_BYTES, MAX_XML_ELEMENTS
from perception.files.text import printable, read_bytes
from perception.files.writing import write_bytes


def read_xml(
    path: str | Path, *, limit: int = MAX_TEXT_BYTES, error: type[AnySenseError] = DataError
) -> Element:
    """The root element of an XML file.

    A `<!DOCTYPE name>` is let pass.  One that declares anything is not: entities are how a small file
    grows without bound.

    Raises:
        AnySenseError: of the class `error`: it is missing, no XML (the line is named), declares
            entities, or has more than `MAX_XML_ELEMENTS` elements.
    """
    content = read_bytes(path, limit=limit, error=error)
    builder = TreeBuilder()
    parser = expat.ParserCreate()
    parser.buffer_text = True
    count = 0

    def refused(what: str) -> AnySenseError:
        return error(what, where=f"{path}:{parser.CurrentLineNumber}")

    def doctype(name: str, system: str | None, public: str | None, own: bool) -> None:
        if own:
            raise refused("XML with a document type of its own is not read")

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal count
        count += 1
        if count > MAX_XML_ELEMENTS:
            raise refused(f"XML of more than {MAX_XML_ELEMENTS} elements")
        builder.start(tag, attributes)

    parser.StartDoctypeDeclHandler = doctype
    parser.StartElementHandler = start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    try:
        parser.Parse(content, True)
    except expat.ExpatError as problem:
        reason = expat.ErrorString(problem.code)
        raise error(f"not XML: {reason}", where=f"{path}:{problem.lineno}") from problem
    except (ValueError, LookupError) as problem:  # an encoding that Python does not have
        raise error(f"not XML: {problem}", where=str(path)) from problem
    root: Element = builder.close()
    return root


def write_xml(path: str | Path, root: Element, *, error: type[AnySenseError] = DataError) -> None:
    """Write an element as an XML file, indented, whole or not at all.

    Raises:
        AnySenseError: of the class `error`: a text has a character that XML cannot hold, or the place
            cannot be written.
    """
    for element in root.iter():
        for text in (*element.attrib.values(), element.text or ""):
            if not text.replace("\n", " ").isprintable():
                raise error(f"'{printable(text)[:80]}' cannot be written as XML", where=str(path))
    indent(root)
    write_bytes(path, tostring(root, encoding="utf-8", xml_declaration=True) + b"\n", error=error)
