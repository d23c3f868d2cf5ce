"""Discharge letters as PDF: words placed on pages, in the order and at the places a test asks for.

printed.letter()   labelled lines one under the other       printed.form()    labels left, values right, drawn apart
printed.columns()  patient and doctors side by side         printed.scan()    an image without words
printed.locked()   a password is needed to open it          printed.pages()   any words at any places
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Sequence

from relay.model import Patient, Person
from tests.letters import AUTHOR, MARTIN, ODETTE, PARAGRAPH, labelled_lines

Word = tuple[float, float, str]  # points from the left and from the bottom of an A4 page, words

_PAD = bytes.fromhex(
    "28BF4E5E4E758A4164004E56FFFA01082E2E00B6D0683E802F0CA9FE6453697A"
)  # ISO 32000-1, 7.6.3.3


def _string(words: str) -> bytes:
    """A literal string in WinAnsiEncoding."""
    content = words.encode("cp1252", "replace")
    return b"(" + content.replace(b"\\", b"\\\\").replace(b"(", b"\\(").replace(b")", b"\\)") + b")"


def assembled(objects: Sequence[bytes], trailer: bytes = b"") -> bytes:
    """A PDF of numbered objects, the first being the catalogue."""
    out = bytearray(b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n")
    places = []
    for number, content in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj%s\nendobj\n" % (number, content)
    start = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    out += b"".join(b"%010d 00000 n \n" % place for place in places)
    out += b"trailer<</Size %d/Root 1 0 R%s>>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, trailer, start)
    return bytes(out)


def pages(*layouts: Sequence[Word], size: float = 10, catalogue: bytes = b"") -> bytes:
    """One page for each layout, its words in the order given. `catalogue` adds entries to the catalogue."""
    kids = b" ".join(b"%d 0 R" % (4 + 2 * number) for number in range(len(layouts)))
    objects = [
        b"<</Type/Catalog/Pages 2 0 R%s>>" % catalogue,
        b"<</Type/Pages/Kids[%s]/Count %d>>" % (kids, len(layouts)),
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica/Encoding/WinAnsiEncoding>>",
    ]
    for number, layout in enumerate(layouts):
        shown = b"\n".join(
            b"BT /F1 %g Tf 1 0 0 1 %g %g Tm %s Tj ET" % (size, x, y, _string(words)) for x, y, words in layout
        )
        objects.append(
            b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 595 842]/Contents %d 0 R/Resources<</Font<</F1 3 0 R>>>>>>"
            % (5 + 2 * number)
        )
        packed = zlib.compress(shown)
        objects.append(b"<</Filter/FlateDecode/Length %d>>stream\n%s\nendstream" % (len(packed), packed))
    return assembled(objects)


def lines(text: str, *, left: float = 60, top: float = 780, step: float = 14) -> list[Word]:
    """The lines of a text one under the other."""
    return [(left, top - step * n, line) for n, line in enumerate(text.split("\n")) if line.strip()]


def _prose(top: float) -> list[Word]:
    words, rows, row = PARAGRAPH.split(), [], ""
    for word in words:
        if len(row) + len(word) > 90:
            rows.append(row)
            row = ""
        row = f"{row} {word}".strip()
    return lines("\n".join([*rows, row]), top=top)


def letter(patient: Patient = ODETTE, gp: Person | None = MARTIN, *, pages_of_annex: int = 0) -> bytes:
    """A letter of labelled lines, as text processors print it."""
    head = f"CHR d'Exemple\n\n{labelled_lines(patient, gp)}\nCher confrère,"
    annex = [lines("Annexe : résultats\nHémoglobine : 12,4 g/dL\nKaliémie : 4,1 mmol/L")] * pages_of_annex
    return pages([*lines(head), *_prose(540)], *annex)


def form(patient: Patient = ODETTE, gp: Person | None = MARTIN) -> bytes:
    """A form: every label drawn first, then every value in a column of its own, as report tools do."""
    rows = [line.split(" : ", 1) for line in labelled_lines(patient, gp).splitlines()]
    labels = [(60.0, 780.0 - 16 * n, f"{label} :") for n, (label, _) in enumerate(rows)]
    values = [(230.0, 780.0 - 16 * n, value) for n, (_, value) in enumerate(rows)]
    return pages([*labels, *values, *_prose(500)])


def columns(patient: Patient = ODETTE, gp: Person | None = MARTIN, *, author_rpps: bool = True) -> bytes:
    """The hospital's doctor on the left, patient and GP on the right, drawn row by row as tables are."""
    left = ["Lettre de liaison à la sortie", "", f"Médecin responsable : Dr {AUTHOR.name}",
            f"RPPS : {AUTHOR.rpps}" if author_rpps else "", "Service : Cardiologie", "Date de sortie : 01/12/2026 14:00",
            "N° de séjour : S-2026-004217"]  # fmt: skip
    born = f"{patient.birth_date:%d/%m/%Y}" if patient.birth_date else ""
    right = [f"Patient : {patient.birth_name} {' '.join(patient.given_names)}", f"Né(e) le : {born}",
             f"Médecin traitant : Dr {gp.given_name} {gp.family_name}" if gp else "",
             f"RPPS : {gp.rpps}" if gp and gp.rpps else "", f"INS : {patient.ins}", f"Sexe : {patient.sex}"]  # fmt: skip
    placed: list[Word] = []
    for n in range(max(len(left), len(right))):
        placed += [
            (x, 780.0 - 14 * n, side[n])
            for x, side in ((60.0, left), (320.0, right))
            if n < len(side) and side[n]
        ]
    return pages([*placed, *_prose(600)])


def scan() -> bytes:
    """A page that is one image."""
    pixels = zlib.compress(bytes(range(256)) * 4)
    image = b"<</Type/XObject/Subtype/Image/Width 32/Height 32/ColorSpace/DeviceGray/BitsPerComponent 8"
    shown = b"q 595 0 0 842 0 0 cm /I1 Do Q"
    return assembled([
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 595 842]/Contents 4 0 R/Resources<</XObject<</I1 5 0 R>>>>>>",
        b"<</Length %d>>stream\n%s\nendstream" % (len(shown), shown),
        b"%s/Filter/FlateDecode/Length %d>>stream\n%s\nendstream" % (image, len(pixels), pixels),
    ])  # fmt: skip


def bomb(commands: bytes) -> bytes:
    """A small file whose one page is `commands` once it is unpacked."""
    packed = zlib.compress(commands, 9)
    return assembled([
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 595 842]/Contents 4 0 R/Resources<</Font<</F1 5 0 R>>>>>>",
        b"<</Filter/FlateDecode/Length %d>>stream\n%s\nendstream" % (len(packed), packed),
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
    ])  # fmt: skip


def nested_forms(levels: int = 7, times: int = 200) -> bytes:
    """A page that draws a form, which draws another so many times, and so on: `times` to the power of `levels` words."""
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 595 842]/Contents 4 0 R/Resources<</XObject<</X 5 0 R>>>>>>",
        b"<</Length 6>>stream\n/X Do \nendstream",
    ]
    for level in range(levels):
        shown = b"/X Do " * times if level < levels - 1 else b"BT (A) Tj ET"
        inner = b"/Resources<</XObject<</X %d 0 R>>>>" % (len(objects) + 2)
        objects.append(
            b"<</Type/XObject/Subtype/Form/BBox[0 0 9 9]%s/Length %d>>stream\n%s\nendstream"
            % (inner, len(shown), shown)
        )
    return assembled(objects)


def _rc4(key: bytes, content: bytes) -> bytes:
    state, j, out = list(range(256)), 0, bytearray()
    for i in range(256):
        j = (j + state[i] + key[i % len(key)]) % 256
        state[i], state[j] = state[j], state[i]
    i = j = 0
    for byte in content:
        i = (i + 1) % 256
        j = (j + state[i]) % 256
        state[i], state[j] = state[j], state[i]
        out.append(byte ^ state[(state[i] + state[j]) % 256])
    return bytes(out)


def locked(password: str = "odette") -> bytes:
    """A PDF that opens with a password only (standard security handler, revision 2); "" locks nothing but printing."""
    user = (password.encode() + _PAD)[:32]
    owner = _rc4(hashlib.md5((b"owner" + _PAD)[:32]).digest()[:5], user)
    rights, mark = struct.pack("<i", -4), b"0123456789abcdef"
    key = hashlib.md5(user + owner + rights + mark).digest()[:5]
    shown = b"\n".join(
        b"BT /F1 10 Tf 1 0 0 1 %g %g Tm %s Tj ET" % (x, y, _string(words))
        for x, y, words in lines(labelled_lines(ODETTE, MARTIN))
    )
    own = hashlib.md5(key + (4).to_bytes(3, "little") + b"\0\0").digest()[:10]
    shown = _rc4(own, shown)
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 595 842]/Contents 4 0 R/Resources<</Font<</F1 5 0 R>>>>>>",
        b"<</Length %d>>stream\n%s\nendstream" % (len(shown), shown),
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica/Encoding/WinAnsiEncoding>>",
    ]
    secret = b"/Encrypt<</Filter/Standard/V 1/R 2/Length 40/O<%s>/U<%s>/P -4>>/ID[<%s><%s>]" % (
        owner.hex().encode(), _rc4(key, _PAD).hex().encode(), mark.hex().encode(), mark.hex().encode(),
    )  # fmt: skip
    return assembled(objects, secret)
