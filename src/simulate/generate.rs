//! Draws events. The same description, seed and times give the same events, byte for byte.

use std::sync::Arc;

use broker::Random;

use super::description::{ChangePlan, Description, Draw, FieldPlan, Piece};

/// What an event is, beyond the way in which it is dirty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// As it should be.
    Clean,
    /// Right, but far behind the newest event.
    Late,
    /// The last clean event once more.
    Duplicate,
    /// Wrong, in this way of the description.
    Dirty(usize),
}

impl Kind {
    /// A small number that stands for it.
    pub fn number(self) -> usize {
        match self {
            Kind::Clean => 0,
            Kind::Late => 1,
            Kind::Duplicate => 2,
            Kind::Dirty(way) => 3 + way,
        }
    }

    /// The names of all kinds, by number.
    pub fn names(description: &Description) -> Vec<String> {
        let dirty = description.dirty.iter().map(|dirty| format!("dirty.{}", dirty.name));
        ["clean", "late", "duplicate"].map(str::to_owned).into_iter().chain(dirty).collect()
    }
}

/// The shares of events that are not clean, each from 0 to 1.
#[derive(Clone, Copy, Debug, Default)]
pub struct Shares {
    /// Wrong.
    pub dirty: f64,
    /// Far behind.
    pub late: f64,
    /// The last clean event once more.
    pub duplicates: f64,
}

/// An event to send.
#[derive(Clone, Debug, Default)]
pub struct Event {
    /// The record's key.
    pub key: Option<Vec<u8>>,
    /// The record's value.
    pub value: Vec<u8>,
}

/// The value drawn for a field: as text, and as JSON.
#[derive(Clone, Debug, Default)]
struct Slot {
    text: String,
    json: String,
}

/// Draws one event after the other.
pub struct Generator {
    description: Arc<Description>,
    shares: Shares,
    random: Random,
    seed: u64,
    serial: u64,
    slots: Vec<Slot>,
    rows: Vec<usize>,
    last_clean: Event,
    /// JSON of the field names with a colon.
    names: Vec<String>,
    day: (i64, String),
}

impl Generator {
    /// A generator at its first event.
    pub fn new(description: Arc<Description>, shares: Shares, seed: u64) -> Generator {
        Generator {
            shares,
            random: Random::new(seed),
            seed,
            serial: 0,
            slots: vec![Slot::default(); description.fields.len()],
            rows: vec![0; description.tables.len()],
            last_clean: Event::default(),
            names: description.fields.iter().map(|field| format!("{}:", json_text(&field.name))).collect(),
            day: (i64::MIN, String::new()),
            description,
        }
    }

    /// The next event when the time is `now_ms`.
    pub fn next(&mut self, now_ms: i64, event: &mut Event) -> Kind {
        let kind = self.kind();
        if kind == Kind::Duplicate {
            event.clone_from(&self.last_clean);
            return kind;
        }
        let description = self.description.clone();
        let behind = match kind {
            Kind::Late => between(&mut self.random, description.late_behind_ms.0, description.late_behind_ms.1),
            _ => between(&mut self.random, 0, description.jitter_ms),
        };
        let ahead = match kind {
            Kind::Dirty(way) => match description.dirty[way].change {
                ChangePlan::Ahead(ms) => ms + behind,
                _ => 0,
            },
            _ => 0,
        };
        self.draw(&description, now_ms - behind + ahead);
        event.key = description.key.map(|key| self.slots[key].text.clone().into_bytes());
        self.render(&description, kind, &mut event.value);
        if kind == Kind::Clean {
            self.last_clean.clone_from(event);
        }
        kind
    }

    fn kind(&mut self) -> Kind {
        let (draw, shares) = (self.random.uniform(), self.shares);
        if draw < shares.dirty && !self.description.dirty.is_empty() {
            let way = self.random.uniform();
            return Kind::Dirty(self.description.dirty_weights.pick(way));
        }
        if draw < shares.dirty + shares.late {
            return Kind::Late;
        }
        let duplicate = draw < shares.dirty + shares.late + shares.duplicates && !self.last_clean.value.is_empty();
        if duplicate { Kind::Duplicate } else { Kind::Clean }
    }

    fn draw(&mut self, description: &Description, time_ms: i64) {
        self.serial += 1;
        for (table, row) in description.tables.iter().zip(&mut self.rows) {
            *row = table.weights.pick(self.random.uniform());
        }
        for (index, field) in description.fields.iter().enumerate() {
            let mut random =
                if field.by.is_empty() { Random::new(self.random.next()) } else { self.decided(index, field) };
            let mut slot = std::mem::take(&mut self.slots[index]);
            slot.text.clear();
            slot.json.clear();
            if field.null_share > 0.0 && random.uniform() < field.null_share {
                slot.json.push_str("null");
            } else {
                self.value(description, field, time_ms, &mut random, &mut slot);
            }
            self.slots[index] = slot;
        }
    }

    /// A source of numbers that is the same whenever the deciding fields are.
    fn decided(&self, index: usize, field: &FieldPlan) -> Random {
        let mut hash = self.seed ^ (index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        for by in &field.by {
            for byte in self.slots[*by].text.bytes().chain([0xff]) {
                hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
            }
        }
        Random::new(hash)
    }

    fn value(
        &mut self,
        description: &Description,
        field: &FieldPlan,
        time_ms: i64,
        random: &mut Random,
        slot: &mut Slot,
    ) {
        let number = |slot: &mut Slot, value: f64, decimals: usize| {
            slot.text = format!("{value:.decimals$}");
            slot.json.push_str(&slot.text);
        };
        match &field.draw {
            Draw::Time => self.time(time_ms, &mut slot.text),
            Draw::Serial => return number(slot, self.serial as f64, 0),
            Draw::Id(weights) => return number(slot, (weights.pick(random.uniform()) + 1) as f64, 0),
            Draw::Choice(values, weights) => slot.text.push_str(&values[weights.pick(random.uniform())]),
            Draw::Uniform(min, max, decimals) => return number(slot, min + (max - min) * random.uniform(), *decimals),
            Draw::Lognormal(median, sigma, min, max, decimals) => {
                let value = (median * (sigma * random.normal()).exp()).max(*min).min(*max);
                return number(slot, value, *decimals);
            }
            Draw::Around(min, max, sigma, decimals) => {
                // What decides the field decides the centre; each event is somewhere around it.
                let centre = min + (max - min) * random.uniform();
                let value = centre + sigma * Random::new(self.random.next()).normal();
                return number(slot, value.max(*min).min(*max), *decimals);
            }
            Draw::Token(length) => {
                const LETTERS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
                let letter = |_| char::from(LETTERS[(random.uniform() * 62.0) as usize % 62]);
                slot.text.extend((0..*length).map(letter));
            }
            Draw::Join(fields, separator) => {
                let mut parts: Vec<&str> = Vec::new();
                for field in fields {
                    let text = self.slots[*field].text.as_str();
                    if !text.is_empty() && !parts.contains(&text) {
                        parts.push(text);
                    }
                }
                slot.text = parts.join(separator);
            }
            Draw::Column(table, column) => {
                slot.text.push_str(&description.tables[*table].rows[self.rows[*table]][*column])
            }
            Draw::Template(pieces) => {
                for piece in pieces {
                    match piece {
                        Piece::Text(text) => slot.text.push_str(text),
                        Piece::Field(field) => slot.text.push_str(&self.slots[*field].text),
                    }
                }
            }
        }
        push_json_text(&slot.text, &mut slot.json);
    }

    /// RFC 3339 in UTC with milliseconds.
    fn time(&mut self, time_ms: i64, out: &mut String) {
        let (day, ms) = (time_ms.div_euclid(86_400_000), time_ms.rem_euclid(86_400_000));
        if self.day.0 != day {
            let date = chrono::DateTime::from_timestamp_millis(day * 86_400_000).unwrap_or_default();
            self.day = (day, date.format("%Y-%m-%dT").to_string());
        }
        out.push_str(&self.day.1);
        for (value, mark, digits) in
            [(ms / 3_600_000, ':', 2), (ms / 60_000 % 60, ':', 2), (ms / 1_000 % 60, '.', 2), (ms % 1_000, 'Z', 3)]
        {
            let mut scale = if digits == 3 { 100 } else { 10 };
            while scale > 0 {
                out.push(char::from(b'0' + u8::try_from(value / scale % 10).unwrap_or(0)));
                scale /= 10;
            }
            out.push(mark);
        }
    }

    /// The event last drawn, as a row of CSV without its line end.
    pub fn csv_row(&self, kind: Kind, out: &mut Vec<u8>) {
        out.clear();
        let change = match kind {
            Kind::Dirty(way) => Some(&self.description.dirty[way].change),
            _ => None,
        };
        if let Some(ChangePlan::Replace(bytes)) = change {
            return out.extend_from_slice(bytes);
        }
        let mut fields = Vec::new();
        for (index, field) in self.description.fields.iter().enumerate().filter(|(_, field)| !field.hidden) {
            debug_assert!(!field.name.is_empty());
            fields.push(match change {
                Some(ChangePlan::Remove(removed)) if *removed == index => String::new(),
                Some(ChangePlan::Set(set, json)) if *set == index => csv_text(json),
                _ => self.slots[index].text.clone(),
            });
        }
        let fields: Vec<String> = fields.iter().map(|field| csv_field(field)).collect();
        out.extend_from_slice(fields.join(",").as_bytes());
        if matches!(change, Some(ChangePlan::Cut)) {
            out.truncate(out.len() / 2);
        }
    }

    fn render(&self, description: &Description, kind: Kind, out: &mut Vec<u8>) {
        out.clear();
        let change = match kind {
            Kind::Dirty(way) => Some(&description.dirty[way].change),
            _ => None,
        };
        if let Some(ChangePlan::Replace(bytes)) = change {
            return out.extend_from_slice(bytes);
        }
        out.push(b'{');
        for (index, field) in description.fields.iter().enumerate() {
            if field.hidden || matches!(change, Some(ChangePlan::Remove(removed)) if *removed == index) {
                continue;
            }
            if out.len() > 1 {
                out.push(b',');
            }
            out.extend_from_slice(self.names[index].as_bytes());
            match change {
                Some(ChangePlan::Set(set, json)) if *set == index => out.extend_from_slice(json.as_bytes()),
                _ => out.extend_from_slice(self.slots[index].json.as_bytes()),
            }
        }
        out.push(b'}');
        if matches!(change, Some(ChangePlan::Cut)) {
            out.truncate(out.len() / 2);
        }
    }
}

/// A JSON value as CSV writes it: a string without its quotes.
fn csv_text(json: &str) -> String {
    serde_json::from_str::<String>(json).unwrap_or_else(|_| json.to_owned())
}

/// A field of CSV, in quotes where it needs them.
pub fn csv_field(text: &str) -> String {
    if text.contains(['"', ',', '\n', '\r']) || text.starts_with(' ') || text.ends_with(' ') {
        return format!("\"{}\"", text.replace('"', "\"\""));
    }
    text.to_owned()
}

/// The text as a JSON string.
fn json_text(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    push_json_text(text, &mut out);
    out
}

fn push_json_text(text: &str, out: &mut String) {
    if text.bytes().any(|byte| byte < 0x20 || byte == b'"' || byte == b'\\') {
        out.push_str(&serde_json::Value::from(text).to_string());
        return;
    }
    out.push('"');
    out.push_str(text);
    out.push('"');
}

/// A whole number, both ends allowed.
fn between(random: &mut Random, from: i64, to: i64) -> i64 {
    from + (random.uniform() * ((to - from + 1) as f64)) as i64
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn music() -> Arc<Description> {
        Arc::new(Description::read(&crate::systems::simulators("music:simulator").unwrap()[0]).unwrap())
    }

    fn draw(count: usize, seed: u64) -> Vec<(Kind, Event)> {
        let shares = Shares { dirty: 0.1, late: 0.05, duplicates: 0.05 };
        let mut generator = Generator::new(music(), shares, seed);
        (0..count)
            .map(|index| {
                let mut event = Event::default();
                let kind = generator.next(1_763_700_000_000 + index as i64, &mut event);
                (kind, event)
            })
            .collect()
    }

    #[test]
    fn the_same_seed_gives_the_same_events() {
        let bytes = |seed| draw(500, seed).into_iter().map(|(_, event)| event.value).collect::<Vec<_>>();
        assert_eq!(bytes(7), bytes(7));
        assert_ne!(bytes(7), bytes(8));
    }

    #[test]
    fn clean_events_are_whole_and_dirty_ones_are_not() {
        let description = music();
        let mut kinds: BTreeMap<usize, usize> = BTreeMap::new();
        for (kind, event) in draw(20_000, 1) {
            *kinds.entry(kind.number()).or_default() += 1;
            let parsed: Option<serde_json::Value> = serde_json::from_slice(&event.value).ok();
            if matches!(kind, Kind::Dirty(_)) {
                continue;
            }
            let parsed = parsed.unwrap();
            let user = parsed["user_id"].as_i64().unwrap();
            assert_eq!(event.key.unwrap(), user.to_string().into_bytes());
            assert!((5_000..=1_800_000).contains(&parsed["duration_ms"].as_i64().unwrap()));
            let ts = chrono::DateTime::parse_from_rfc3339(parsed["ts"].as_str().unwrap()).unwrap().timestamp_millis();
            assert!(ts <= 1_763_700_020_000 && ts > 1_763_700_000_000 - 2_400_001, "{ts}");
            assert!(parsed.get("song").is_none(), "hidden fields are not sent");
        }
        assert_eq!(kinds.len(), 3 + description.dirty.len(), "every kind comes up");
        assert!(
            (1_700..2_300)
                .contains(&kinds.iter().filter(|(kind, _)| **kind > 2).map(|(_, count)| count).sum::<usize>())
        );
        assert!((800..1_200).contains(&kinds[&1]) && (800..1_200).contains(&kinds[&2]));
    }

    #[test]
    fn a_decided_field_is_always_the_same() {
        let mut countries: BTreeMap<Vec<u8>, String> = BTreeMap::new();
        for (kind, event) in draw(20_000, 3) {
            if kind == Kind::Clean {
                let parsed: serde_json::Value = serde_json::from_slice(&event.value).unwrap();
                let country = parsed["country"].as_str().unwrap().to_owned();
                assert_eq!(*countries.entry(event.key.unwrap()).or_insert_with(|| country.clone()), country);
            }
        }
        assert!(countries.values().collect::<std::collections::BTreeSet<_>>().len() > 10);
    }

    #[test]
    fn mistakes_in_a_description_come_together() {
        let text = "topic = \"t\"\ntime = \"tss\"\n[[fields]]\nname = \"ts\"\nkind = \"time\"\n[[fields]]\nname = \"a\"\nkind = \"choice\"\nby = [\"b\"]\n";
        let mistakes = Description::read(&api::config::Source::text("s.toml", text)).unwrap_err().to_string();
        for part in [
            "s.toml:2: time: tss is not a field above; did you mean ts?",
            "s.toml:9: fields[1].by: b is not a field above",
            "fields[1].values: missing",
        ] {
            assert!(mistakes.contains(part), "{mistakes}");
        }
    }
}
