"""Write one of each letter to a folder, to look at or to mail: `python -m tests.letters FOLDER`."""

import sys
from pathlib import Path

from tests import letters
from tests.letters import hl7, hprim, ldl, truths, wards

FILES = {
    "xdm_n3.eml": letters.xdm_mail(),
    "xdm_n1.eml": letters.xdm_mail(level=1),
    "cda_bare.eml": letters.cda_mail(),
    "cda_n3.xml": letters.cda(),
    "IHE_XDM.zip": letters.xdm(),
    "text_qp.eml": letters.text_mail(),
    "text_latin1.eml": letters.text_mail(encoding="8bit", charset="iso-8859-1"),
    "text_html.eml": letters.text_mail(html_only=True, encoding="base64"),
    "text_no_gp.eml": letters.text_mail(gp=None),
    "reply_ok.eml": letters.reply("OK", to_message_id="<v1.a.b.c.d@relais45.mssante.fr>"),
    "automatic.eml": letters.automatic(),
    "dsn.eml": letters.dsn(original_message_id="<v1.a.b.c.d@relais45.mssante.fr>"),
    "mdn.eml": letters.mdn(original_message_id="<v1.a.b.c.d@relais45.mssante.fr>"),
    "ko_902.eml": letters.ko(original=letters.xdm()),
    **{name: letter.content for name, letter in (hl7.LETTERS | hprim.LETTERS).items()},
    **{name: letter.content for name, letter in (ldl.LETTERS | truths.FHIR | truths.PDF).items()},
    **{f"ward_{mail.name}.eml": mail.raw for mail in wards.MAILS.values()},
}

folder = Path(sys.argv[1])
folder.mkdir(parents=True, exist_ok=True)
for name, content in FILES.items():
    (folder / name).write_bytes(content)
