"""Every figure of the freelance system's dashboards, computed from rows in plain Python.

`of` gives {title: (rows, status)} of a dashboard; rows are as its panels must answer them. The rules are those of the system's description:
occupancy is the share of people on a mission today (alarm below 60 % and above 90 %, a warning near them), an invoice is overdue when it is
unpaid 30 days after it was due (warning above 5 %, alarm above 10 % of all), a period is whole calendar months with the current one.
"""
import collections
import datetime
import fractions
import math
import re
import statistics
import unicodedata

DAYS = datetime.timedelta
MATCHES, OPEN_MISSIONS = 3, 20


def rounded(value, digits=2):
    """Half away from zero."""
    if value is None:
        return None
    scaled = fractions.Fraction(value) * 10**digits
    whole = int(abs(scaled) + fractions.Fraction(1, 2)) * (1 if scaled >= 0 else -1)
    return whole / 10**digits


def total(rows, name="montant"):
    return sum((row[name] for row in rows), start=0) if rows else None


def month(day, back=0):
    """The first of the month so many months before a day's."""
    count = day.year * 12 + day.month - 1 - back
    return datetime.date(count // 12, count % 12 + 1, 1)


def grouped(rows, key):
    groups = collections.defaultdict(list)
    for row in rows:
        groups[key(row)].append(row)
    return groups


def of(dashboard, read, today, given):
    skill = given.get("competence", "")
    if dashboard == "freelance-finance":
        return finance(read["factures"].good, today, given.get("periode", "12mo"), skill)
    people = list({row["id"]: row for row in read["profils"].good}.values())
    if dashboard == "freelance-ressources":
        return resources(people, read["missions"].good, today, skill)
    return live(read["factures"].good, read["missions"].good, today)


def finance(invoices, today, period, skill):
    start = {"1mo": month(today), "3mo": month(today, 2), "12mo": month(today, 11), "all": datetime.date(1970, 1, 1)}[period]
    rows = [row for row in invoices if row["emise"] >= start and skill in ("", row["competence"])]
    timed = [row for row in rows if row["jours"]]
    rate = lambda some: rounded(fractions.Fraction(total(some)) / total(some, "jours")) if some else None
    people = [(max(row["freelance"] for row in some) + f" ({one})", total(some), one) for one, some in grouped(rows, lambda row: row["id_freelance"]).items()]
    skills = [(name, rate(some)) for name, some in grouped((r for r in timed if r["competence"]), lambda row: row["competence"]).items()]
    return {
        "Total revenue": ([[total(rows)]], None),
        "Mean daily rate": ([[rate(timed)]], None),
        "Invoices": ([[len(rows)]], None),
        "Monthly revenue": ([[day, total(some)] for day, some in sorted(grouped(rows, lambda row: month(row["emise"])).items())], None),
        "Top 10 by revenue": ([list(row[:2]) for row in sorted(people, key=lambda row: (-row[1], row[2]))[:10]], None),
        "Mean daily rate by skill": ([list(row) for row in sorted(skills, key=lambda row: (-row[1], row[0]))[:20]], None),
    }


def is_busy(person, today):
    return bool(person["mission_debut"] and person["mission_fin"] and person["mission_debut"] <= today <= person["mission_fin"])


def resources(people, missions, today, skill):
    has = lambda row: skill == "" or skill in row["competences"].split(";")
    people_of = [row for row in people if has(row)]
    free, busy = [row for row in people_of if row["disponible"]], [row for row in people_of if is_busy(row, today)]
    share = rounded(fractions.Fraction(100 * len(busy), len(people_of)), 1) if people_of else None
    colour = "red" if share < 60 or share > 90 else "orange" if share < 70 or share > 85 else "green"
    every = lambda rows: collections.Counter(name for row in rows for name in row["competences"].split(";"))
    by_count = lambda counts, most: sorted(((n, c) for n, c in counts.items() if skill in ("", n)), key=lambda pair: (-pair[1], pair[0]))[:most]
    everybody = every(row for row in people if row["disponible"])
    wanted = every(row for row in missions if row["id_freelance"] is None)
    return {
        "Occupancy": ([[share]], colour),
        "Available": ([[len(free)]], None),
        "On mission": ([[len(busy)]], None),
        "Skills available": ([list(pair) for pair in by_count(everybody, 12)], None),
        "Skills in demand": ([[name, count, everybody[name]] for name, count in by_count(wanted, 15)], None),
        "By category": (categories(people_of), None),
        "Who is available": ([[r["id"], r["prenom"], r["nom"], r["domaine"], r["competences"].replace(";", ", "), r["tarif_jour"], r["ville"], r["email"]]
                              for r in sorted(free, key=lambda r: (r["nom"], r["prenom"], r["id"]))[:200]], None),
        "Best people for open missions": (matches(people, missions, has), None),
    }


def categories(people):
    groups = grouped(people, lambda row: row["domaine"])
    mean = {name: fractions.Fraction(total(some, "tarif_jour")) / len(some) for name, some in groups.items()}
    rows = []
    for name, some in sorted(groups.items(), key=lambda pair: (-len(pair[1]), pair[0])):
        rates = [row["tarif_jour"] for row in some]
        rank = 1 + sum(other > mean[name] for other in mean.values())
        rows.append([name, len(some), sum(bool(r["disponible"]) for r in some), rounded(mean[name]), min(rates), max(rates), rank])
    return rows


def words(text):
    plain = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c)).lower()
    found = (word.strip(".") for word in re.split(r"[^\w+#.]+", plain))
    return tuple(word for word in found if re.search(r"\w", word))


def matches(people, missions, has):
    """The three best of the available people for each open mission: most of it the share of the needed skills that somebody has."""
    free = [(row, {words(name) for name in row["competences"].split(";")}) for row in people if row["disponible"]]
    needs = sorted((row for row in missions if row["id_freelance"] is None and has(row)), key=lambda row: (row["debut"], row["mission"]))[:OPEN_MISSIONS]
    rows = []
    for need in needs:
        needed = {words(name) for name in need["competences"].split(";")}
        notes = []
        for person, own in free:
            said = {word for item in own for word in item}
            common = sum(item in own or set(item) <= said for item in needed)
            score = 0.8 * common / len(needed) + (1.0 - 0.8) * (common / max(len(own) + len(needed) - common, common)) if own else 0.0
            notes.append((score, person))
        best = sorted(notes, key=lambda note: (-note[0], note[1]["id"]))[:MATCHES]
        rows += [[need["mission"], need["titre"], need["debut"], need["competences"].replace(";", ", "), f"{p['prenom']} {p['nom']}", rounded(score, 3)]
                 for score, p in best]
    return rows


def live(invoices, missions, today):
    running = [row for row in missions if row["id_freelance"] is not None and row["debut"] <= today <= row["fin"]]
    unpaid = [row for row in invoices if row["paiement"] is None and row["echeance"] is not None]
    overdue = [row for row in unpaid if row["echeance"] + DAYS(30) <= today]
    late = sorted((row for row in unpaid if row["echeance"] <= today), key=lambda row: (row["echeance"], row["facture"]))
    share = rounded(fractions.Fraction(100 * len(overdue), max(len(invoices), 1)))
    days = collections.Counter(row["emise"] for row in invoices if row["emise"] > today - DAYS(60))
    newest = sorted((row for row in invoices if row["emise"] <= today), key=lambda row: (row["emise"], row["facture"]), reverse=True)
    return {
        "Missions under way": ([[len(running)]], None),
        "Invoices of the day": ([[sum(row["emise"] == today for row in invoices)]], None),
        "Overdue invoices": ([[share, len(overdue)]], "red" if share > 10 else "orange" if share > 5 else "green"),
        "Invoices per day": ([[day, count] for day, count in sorted(days.items())], None),
        "Last 10 invoices": ([[r["facture"], r["freelance"], r["montant"], r["competence"], r["emise"], r["echeance"]] for r in newest[:10]], None),
        "Longest overdue": ([[r["facture"], r["freelance"], r["montant"], r["echeance"], (today - r["echeance"]).days] for r in late[:10]], None),
        "Missions under way, the next to end first": ([[r["mission"], r["client"], r["titre"], r["id_freelance"], r["debut"], r["fin"]]
                                                       for r in sorted(running, key=lambda row: (row["fin"], row["mission"]))[:20]], None),
    }


def judge_forecast(rows, read, today, skill):
    """The whole months of five years as they were, and three more between their bounds, not far from the last year's."""
    months = grouped((row for row in read["factures"].good if month(today, 60) <= row["emise"] < month(today) and skill in ("", row["competence"])), lambda row: month(row["emise"]))
    past = {str(day): total(some) for day, some in months.items()}
    shown = {row[0][:10]: row[1] for row in rows if row[1] is not None}
    if set(past) != set(shown) or any(abs(float(shown[day]) - float(past[day])) > 0.5 for day in past):
        yield f"the past is {list(past.items())[-2:]}, shown {list(shown.items())[-2:]}"
    ahead = [row for row in rows if row[2] is not None]
    if past and [row[0][:10] for row in ahead] != [str(month(today, -back)) for back in range(3)]:
        yield f"the next three months are not there: {ahead}"
    if past and any(not row[3] <= row[2] <= row[4] for row in ahead):
        yield f"bounds do not hold their value: {ahead}"
    if skill == "" and past:
        year = sorted(past)[-12:]
        usual = float(sum(past[day] for day in year)) / len(year)
        if any(not 0.3 * usual < row[2] < 3 * usual for row in ahead):
            yield f"the forecast is far from a usual month of {usual}: {ahead}"


def judge_odd(rows, read, today):
    """Real invoices of the last sixty days with falling scores, most of them far from their freelancer's usual."""
    known = {row["facture"]: row for row in read["factures"].good}
    for facture, freelance, montant, jours, emise, note in rows:
        row = known.get(facture, {})
        if (row.get("freelance"), float(row.get("montant", 0)), row.get("jours"), str(row.get("emise"))) != (freelance, float(montant), jours, emise[:10]):
            yield f"{facture} is {row}, shown {[freelance, montant, jours, emise]}"
        elif row["emise"] < today - DAYS(60) or note <= 0.5:
            yield f"{facture} of {emise} with {note} should not be there"
    notes = [row[5] for row in rows]
    if not notes or notes != sorted(notes, reverse=True):
        yield f"scores do not fall: {notes}"
    far = oddness(read["factures"].good, today)
    border = sorted(far.values(), reverse=True)[len(far) // 4]
    near = [row[0] for row in rows if far.get(row[0], 0) < border]
    if len(near) > 0.2 * len(rows):
        yield f"{near} are as usual"


def oddness(invoices, today):
    """How far each invoice of the last sixty days is from its freelancer's year, in amount, daily rate or number in the month: the largest of
    the three, in quartile ranges from the median."""
    year = [row for row in invoices if row["emise"] >= today - DAYS(364) and row["jours"]]
    logs = lambda row: (math.log(row["montant"]), math.log(row["montant"] / row["jours"]))
    usual = {one: [statistics.fmean(log) for log in zip(*map(logs, some))] for one, some in grouped(year, lambda row: row["id_freelance"]).items()}
    counts = collections.Counter((row["id_freelance"], month(row["emise"])) for row in year)
    pace = {one: statistics.fmean(counts[one, month(row["emise"])] for row in some) for one, some in grouped(year, lambda row: row["id_freelance"]).items()}
    points = {}
    for row in year:
        one = row["id_freelance"]
        if row["emise"] >= today - DAYS(59):
            points[row["facture"]] = [a - b for a, b in zip(logs(row), usual[one])] + [counts[one, month(row["emise"])] / pace[one]]
    columns = list(zip(*points.values()))
    scale = [(statistics.median(column), (lambda q: q[2] - q[0] or 1.0)(statistics.quantiles(column))) for column in columns]
    return {facture: max(abs(value - middle) / spread for value, (middle, spread) in zip(point, scale)) for facture, point in points.items()}
