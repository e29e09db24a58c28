"""Reads untrusted XML: entities are not expanded, and nothing external is fetched."""

from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

from mobiledets_tf.data.formats.collecting import Damaged


def root_of(path: Path) -> Element:
    """Parses an XML file and returns its root element.

    Raises:
      Damaged: the file cannot be read, is not XML, or declares entities.
    """
    from defusedxml import DefusedXmlException
    from defusedxml.ElementTree import fromstring

    try:
        return fromstring(path.read_bytes())
    except OSError as error:
        raise Damaged(f"cannot be read: {error.strerror}") from error
    except DefusedXmlException as error:
        what = type(error).__name__
        raise Damaged(f"declares entities or external files, which are not allowed ({what})") from error
    except ParseError as error:
        raise Damaged(f"is not valid XML: {error}") from error
    except (ValueError, LookupError, RecursionError) as error:  # e.g. an unknown or wrong encoding
        raise Damaged(f"is not valid XML: {error}") from error


def root_tag(path: Path) -> str:
    """Returns the first tag of a file without reading all of it, or '' if there is none."""
    try:
        with open(path, "rb") as file:
            head = file.read(4096)
    except OSError:
        return ""
    for part in head.split(b"<")[1:]:
        if part[:1] not in b"?!" and part:
            return part.replace(b"/", b" ").replace(b">", b" ").split()[0].decode("ascii", "replace")
    return ""


def text_of(element: Element | None, path: str) -> str | None:
    """Returns the stripped text of the descendant at `path`, or None if there is none."""
    found = element.find(path) if element is not None else None
    return found.text.strip() if found is not None and found.text else None
