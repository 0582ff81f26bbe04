"""What the raw files of the freelance system say: which rows are good, which are refused and by which rule.

Nothing here comes from Millpond: CSV is read by a grammar of its own, amounts and dates by the forms that people write, and the rules
are those of the system's description.

    freelance_files.py change FOLDER OUT.ndjson SHARE   writes each profile anew: SHARE of them on a mission today, the others free
    freelance_files.py extra FOLDER                     adds invoice files with every form of the description and every kind of fault
"""
import collections
import datetime
import decimal
import json
import pathlib
import re
import sys

FIELD = rb'[ \t]*(?:"(?:[^"]|"")*"[ \t]*|[^",\r\n \t][^,\r\n]*|)'
ROW = re.compile(rb"(" + FIELD + rb"(?:," + FIELD + rb")*)(?:\r?\n|$)")
CELL = re.compile(rb'[ \t]*"((?:[^"]|"")*)"[ \t]*|[ \t]*([^,]*)')
AMOUNT = re.compile(r"(?:€ ?)?(-?)(\d{1,3}(?:[ \u00a0\u202f']\d{3})+|\d+)(?:[.,](\d{1,2}))? ?(?:€|EUR|€/jour)?")
MONTHS = {"Jan": 1, "Feb": 2, "Mar": 3, "Apr": 4, "May": 5, "Jun": 6, "Jul": 7, "Aug": 8, "Sep": 9, "Oct": 10, "Nov": 11, "Dec": 12,
          "octobre": 10, "janvier": 1, "août": 8}
INVOICE = ("facture", "id_freelance", "freelance", "montant", "date")


def amount(text):
    """The amount that somebody wrote, or None."""
    found = AMOUNT.fullmatch(text.strip())
    if not found:
        return None
    sign, whole, cents = found.groups()
    value = decimal.Decimal(re.sub(r"\D", "", whole)) + decimal.Decimal((cents or "0").ljust(2, "0")) / 100
    return -value if sign else value


def date(text):
    """The day that somebody wrote (the first of a month without one), or None."""
    text = text.strip()
    for form, order in ((r"(\d{4})-(\d\d)-(\d\d)", "ymd"), (r"(\d{1,2})[/.](\d{1,2})[/.](\d{4})", "dmy")):
        found = re.fullmatch(form, text)
        if found:
            parts = dict(zip(order, map(int, found.groups())))
            try:
                return datetime.date(parts["y"], parts["m"], parts["d"])
            except ValueError:
                return None
    found = re.fullmatch(r"(\w+)[- ](\d{4})", text)
    return datetime.date(int(found[2]), MONTHS[found[1]], 1) if found and found[1] in MONTHS else None


def iso(text):
    try:
        return datetime.date.fromisoformat(text) if re.fullmatch(r"\d{4}-\d\d-\d\d", text) else None
    except ValueError:
        return None


def csv_rows(data):
    """(line, raw, fields or None) of each row that is not blank; a row whose quotes do not close is its first line."""
    at, line = 0, 1
    while at < len(data):
        end = data.find(b"\n", at)
        end = len(data) if end < 0 else end + 1
        found = ROW.match(data, at)
        raw, stop = (found[1], found.end()) if found else (data[at:end].rstrip(b"\r\n"), end)
        if raw or not found:
            yield line, raw, cells(raw) if found else None
        line += data.count(b"\n", at, stop)
        at = stop


def cells(raw):
    found, at = [], 0
    while True:
        cell = CELL.match(raw, at)
        found.append((cell[1].replace(b'""', b'"') if cell[1] is not None else cell[2].strip(b" \t")).decode())
        at = cell.end() + 1
        if at > len(raw):
            return found


def invoice(fields, names):
    """(rule, row): the rule that an invoice breaks, or None, and what it says."""
    if fields is None:
        return "quotes", None
    if len(fields) != len(names):
        return "fields", None
    said = {name: text or None for name, text in zip(names, fields)}
    if any(said[name] is None for name in INVOICE):
        return "required", None
    row = {name: said.get(name) for name in ("facture", "freelance", "mission", "competence")}
    for name in ("id_freelance", "jours"):
        text = said.get(name)
        if text is not None and not re.fullmatch(r"-?\d+", text):
            return "type", None
        row[name] = None if text is None else int(text)
    for name in ("echeance", "paiement"):
        row[name] = None if said.get(name) is None else iso(said[name])
        if row[name] is None and said.get(name) is not None:
            return "type", None
    row["montant"], row["emise"] = amount(said["montant"]), date(said["date"])
    if row["montant"] is None or row["emise"] is None:
        return "required", None
    if row["montant"] <= 0:
        return "montant_positif", None
    if not 1 <= row["id_freelance"] <= 1000:
        return "freelance_connu", None
    if row["jours"] is not None and row["jours"] <= 0:
        return "jours_positifs", None
    if not 2000 <= row["emise"].year < 2100:
        return "date_plausible", None
    if row["paiement"] is not None and row["paiement"] < row["emise"]:
        return "paiement_apres_facture", None
    return None, row


def profile(line):
    try:
        said = json.loads(line)
    except ValueError:
        return "json", None
    if not isinstance(said, dict):
        return "not_object", None
    wanted = {"id": int, "nom": str, "email": str, "compétences": list, "tarif_jour": str}
    for name, kind in wanted.items():
        if said.get(name) is None:
            return "required", None
        if not isinstance(said[name], kind):
            return "type", None
    row = {"id": said["id"], "nom": said["nom"], "prenom": said.get("prénom"), "email": said["email"].strip(" ").lower(),
           "competences": ";".join(said["compétences"]), "tarif_jour": amount(said["tarif_jour"])}
    row |= {name: said.get(name) for name in ("disponible", "ville", "domaine", "mission")}
    row |= {name: said.get(name) and iso(said[name]) for name in ("mission_debut", "mission_fin")}
    if row["tarif_jour"] is None:
        return "required", None
    rules = (("id_positif", row["id"] > 0), ("nom_present", row["nom"].strip(" ") != ""),
             ("email_valide", bool(re.search(r"^[^@ ]+@[^@ ]+[.][^@ ]+$", row["email"]))), ("tarif_positif", row["tarif_jour"] > 0),
             ("competences_presentes", row["competences"] != ""),
             ("mission_ordonnee", None in (row["mission_debut"], row["mission_fin"]) or row["mission_debut"] <= row["mission_fin"]))
    return next(((rule, None) for rule, holds in rules if not holds), (None, row))


def mission(line):
    said = json.loads(line)
    return None, {"mission": said["mission"], "client": said["client"], "titre": said["titre"], "competences": ";".join(said["compétences"]),
                  "id_freelance": said["freelance"], "debut": iso(said["debut"]), "fin": iso(said["fin"])}


class Read:
    """One source's files: `good` in the order of the files, what is refused as (file, line, rule, raw), how many stood there before."""

    def __init__(self):
        self.good, self.refused, self.skipped, self._seen = [], [], 0, set()

    def take(self, place, raw, judged, key):
        rule, row = judged
        if rule:
            self.refused.append((*place, rule, raw))
        elif key(row) in self._seen:
            self.skipped += 1
        else:
            self._seen.add(key(row))
            self.good.append(row)


def read(folder):
    """{"factures": Read, "profils": Read, "missions": Read} of a folder."""
    folder = pathlib.Path(folder)
    found = {name: Read() for name in ("factures", "profils", "missions")}
    for path in sorted((folder / "factures").glob("*.csv")):
        rows = csv_rows(path.read_bytes())
        names = next(rows)[2]
        for line, raw, fields in rows:
            found["factures"].take((path.name, line), raw, invoice(fields, names), lambda row: row["facture"])
    same = ("id", "email", "competences", "tarif_jour", "disponible", "mission", "mission_fin")
    lines = (("profils", profile, lambda row: tuple(row[name] for name in same)),
             ("missions", mission, lambda row: tuple(row[name] for name in ("mission", "id_freelance", "debut", "fin"))))
    for name, judge, key in lines:
        for path in sorted((folder / name).glob("*.ndjson")):
            for line, raw in enumerate(path.read_bytes().split(b"\n"), 1):
                if raw.strip():
                    found[name].take((path.name, line), raw, judge(raw), key)
    return found


def change(folder, out, share):
    """Each profile once more, with another rate: `share` of them on a mission today, the others free."""
    today = datetime.datetime.now(datetime.timezone.utc).date()
    latest = {row["id"]: row for row in read(folder)["profils"].good}
    with open(out, "w", encoding="utf-8") as file:
        for at, row in enumerate(latest.values()):
            busy = at < float(share) * len(latest)
            said = {"id": row["id"], "nom": row["nom"], "prénom": row["prenom"], "email": row["email"], "compétences": row["competences"].split(";"),
                    "tarif_jour": f"{int(row['tarif_jour']) + 7} €", "disponible": not busy, "ville": row["ville"], "domaine": row["domaine"],
                    "mission": f"N{at}" if busy else None}
            if busy:
                said |= {"mission_debut": str(today), "mission_fin": str(today + datetime.timedelta(days=30))}
            file.write(json.dumps(said, ensure_ascii=False) + "\n")


def extra(folder):
    """Invoices in every form of the description, some of today, some overdue, one of each fault, one row twice, and one that comes far too late."""
    today = datetime.datetime.now(datetime.timezone.utc).date()
    ago = lambda days: today - datetime.timedelta(days=days)
    rows = [
        "E1, 7, Dupont, 4500€, Oct-2025, 2025-10-31, 2025-11-15, M000001, Python, 9",
        "E2,7,Dupont,4 500€,octobre 2025,,,,Python,9",
        'E3,501,"Martin, fils","4 500,50 €",14/10/2025,2025-11-13,2025-11-20,,SQL,10',
        "E4,500,Petit,4'500 EUR,14.10.2025,2025-11-13,,,Java,10",
        f"E5,1000,Durand,€ 300,{today},{today},,,Java,",
        f"E6,1,Durand,1250.5,{today},{ago(-30)},,,Kafka,2",
        f"E7,2,\"O'Brien \"\"Bob\"\"\",800€/jour,{ago(1)},{ago(-29)},{today},,CI/CD,1",
        f"E8,3,Roux,2000,{ago(100)},{ago(70)},,,Go,4",
        f"E9,501,Roux,2000,{ago(61)},{ago(31)},,,Go,4",
        f"E10,502,Roux,2000,{ago(60)},{ago(30)},,,Go,4",
        f"E11,503,Roux,2000,{ago(59)},{ago(29)},,,Go,4",
        "E1, 7, Dupont, 4500€, Oct-2025, 2025-10-31, 2025-11-15, M000001, Python, 9",
        "X1,7,Dupont,0 €,2025-10-14,,,,Python,9", "X2,7,Dupont,-4500€,2025-10-14,,,,Python,9", "X3,7,Dupont,à définir,2025-10-14,,,,Python,9",
        "X4,7,Dupont,4500€,31/02/2025,,,,Python,9", "X5,7,Dupont,4500€,2025-13-45,,,,Python,9", "X6,1001,Dupont,4500€,2025-10-14,,,,Python,9",
        "X7,abc,Dupont,4500€,2025-10-14,,,,Python,9", "X8,7,Dupont,4500€,2025-10-14,demain,,,Python,9", "X9,7,Dupont,4500€,2025-10-14,,2025-10-13,,Python,9",
        "X10,7,Dupont,4500€,1999-12-31,,,,Python,9", "X11,7,Dupont,4500€,2025-10-14,,,,Python,0", "X12,7,Dupont,4500€", ",7,Dupont,4500€,2025-10-14,,,,Python,9",
        'X13,7,"Dupont,4500€,2025-10-14,,,,Python,9', "X14,7,Dupont,4500€,2025-10-14,,,,Python,9,too,much",
    ]
    header = "facture, id_freelance, freelance, montant, date, echeance, paiement, mission, competence, jours"
    # the last file is of another century of billing: its month is closed when it comes
    for name, lines in (("extra", rows), ("zz-late", ["E12,504,Vieux,123.45,2001-05-07,,,,Cobol,3"])):
        path = pathlib.Path(folder) / "factures" / f"{name}.csv"
        path.write_text("\r\n".join([header, *lines, ""]), encoding="utf-8")


if __name__ == "__main__" and len(sys.argv) > 1:
    print(json.dumps({"mistakes": [], "done": {"change": change, "extra": extra}[sys.argv[1]](*sys.argv[2:])}))
