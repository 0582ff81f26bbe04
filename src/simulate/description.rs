//! What a system's simulator sends: the reader of simulator.toml. No system is named here.

use api::config::read::{Document, read_alone};
use api::config::value::Entry;
use api::config::{Mistakes, Source, suggestion};

use super::keys::SECTIONS;
use crate::serve;

/// How a field's value is drawn.
#[derive(Clone, Debug)]
pub enum Draw {
    /// The event time.
    Time,
    /// 1 to the number of weights.
    Id(Weights),
    /// One of the texts.
    Choice(Vec<String>, Weights),
    /// A number from min to max.
    Uniform(f64, f64, usize),
    /// A log-normal number: median, sigma, min, max, decimals.
    Lognormal(f64, f64, f64, f64, usize),
    /// Column of the row drawn from a table.
    Column(usize, usize),
    /// A normal number around a centre that other fields decide: min, max, sigma, decimals.
    Around(f64, f64, f64, usize),
    /// Texts and indexes of earlier fields in turn.
    Template(Vec<Piece>),
    /// Earlier fields that have a value, each value once, with this between them.
    Join(Vec<usize>, String),
    /// So many letters and digits.
    Token(usize),
    /// 1, 2, 3 and so on.
    Serial,
}

/// A piece of a template.
#[derive(Clone, Debug)]
pub enum Piece {
    /// As it is.
    Text(String),
    /// The value of an earlier field.
    Field(usize),
}

/// A field of the event.
#[derive(Clone, Debug)]
pub struct FieldPlan {
    /// Its key in the JSON object.
    pub name: String,
    /// Whether it is sent.
    pub hidden: bool,
    /// Whether it has no name in the header line of a CSV file.
    pub unnamed: bool,
    /// Share of nulls.
    pub null_share: f64,
    /// Earlier fields that decide the draw.
    pub by: Vec<usize>,
    /// How it is drawn.
    pub draw: Draw,
}

/// Rows of texts.
#[derive(Clone, Debug)]
pub struct TablePlan {
    /// The rows.
    pub rows: Vec<Vec<String>>,
    /// How rows are preferred.
    pub weights: Weights,
}

/// One way to be wrong.
#[derive(Clone, Debug)]
pub struct DirtyPlan {
    /// The name in the report.
    pub name: String,
    /// What is done.
    pub change: ChangePlan,
}

/// What is done to a good event.
#[derive(Clone, Debug)]
pub enum ChangePlan {
    /// The field is left out.
    Remove(usize),
    /// The field has this JSON text.
    Set(usize, String),
    /// The event time is so many milliseconds in the future.
    Ahead(i64),
    /// The JSON text ends half-way.
    Cut,
    /// The value is this.
    Replace(Vec<u8>),
}

/// Cumulative weights, ending at 1.
#[derive(Clone, Debug)]
pub struct Weights(Vec<f64>);

impl Weights {
    fn new(weights: impl Iterator<Item = f64>) -> Weights {
        let mut sum = 0.0;
        let mut sums: Vec<f64> = weights
            .map(|weight| {
                sum += weight;
                sum
            })
            .collect();
        sums.iter_mut().for_each(|part| *part /= sum);
        Weights(sums)
    }

    fn zipf(count: usize, skew: f64) -> Weights {
        Weights::new((1..=count).map(|rank| (rank as f64).powf(-skew)))
    }

    /// The index that a number from 0 to 1 falls on.
    pub fn pick(&self, uniform: f64) -> usize {
        self.0.partition_point(|sum| *sum <= uniform).min(self.0.len().saturating_sub(1))
    }
}

/// A file that is written.
#[derive(Clone, Debug)]
pub struct FilePlan {
    /// Where, below the data directory of a demo.
    pub path: String,
    /// `csv`, `ndjson` or `json`.
    pub format: String,
    /// Its rows.
    pub rows: u64,
}

/// How the values of a topic are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// The JSON object as it is.
    Json,
    /// JSON behind the id of its schema.
    JsonSchema,
    /// Avro behind the id of its schema.
    Avro,
}

impl Encoding {
    /// As it is written in descriptions and flags.
    pub fn word(self) -> &'static str {
        match self {
            Encoding::Json => "json",
            Encoding::JsonSchema => "json_schema",
            Encoding::Avro => "avro",
        }
    }

    /// The encoding of that word.
    pub fn of(word: &str) -> Option<Encoding> {
        [Encoding::Json, Encoding::JsonSchema, Encoding::Avro].into_iter().find(|encoding| encoding.word() == word)
    }
}

/// A whole description, checked.
#[derive(Clone, Debug)]
pub struct Description {
    /// The topic it writes to; empty where it writes a file.
    pub topic: String,
    /// The file it writes, if it does.
    pub file: Option<FilePlan>,
    /// The field that is the key.
    pub key: Option<usize>,
    /// Ordinary disorder, in ms.
    pub jitter_ms: i64,
    /// How far late events are behind, from and to, in ms.
    pub late_behind_ms: (i64, i64),
    /// Tables that rows are drawn from.
    pub tables: Vec<TablePlan>,
    /// The fields in order.
    pub fields: Vec<FieldPlan>,
    /// Ways to be wrong.
    pub dirty: Vec<DirtyPlan>,
    /// How the ways are preferred.
    pub dirty_weights: Weights,
    /// The part of the rate and the count that is its own.
    pub share: f64,
    /// How its values are written when nothing else is asked for.
    pub encoding: Encoding,
    /// The JSON Schema of its values.
    pub json_schema: Option<String>,
    /// The Avro schemas of its values, the oldest first.
    pub avro: Vec<apache_avro::Schema>,
    /// Events until the next of `avro` is used.
    pub evolve_after: u64,
}

impl Description {
    /// Whether there is what a value needs that is written so.
    pub fn can(&self, encoding: Encoding) -> bool {
        match encoding {
            Encoding::Json => true,
            Encoding::JsonSchema => self.json_schema.is_some(),
            Encoding::Avro => !self.avro.is_empty(),
        }
    }

    /// Reads and checks; all mistakes together.
    pub fn read(source: &Source) -> Result<Description, Mistakes> {
        let mut mistakes = Mistakes::default();
        let document: Document =
            read_alone(source, &SECTIONS, &serve::environment().into_iter().collect(), &mut mistakes);
        mistakes.into_result()?;
        let mut reader = Reader { top: &document[""], mistakes: Mistakes::default() };
        let description = reader.description();
        reader.mistakes.into_result()?;
        Ok(description)
    }
}

struct Reader<'a> {
    top: &'a Entry,
    mistakes: Mistakes,
}

impl<'a> Reader<'a> {
    fn wrong(&mut self, entry: &Entry, key: &str, message: impl Into<String>) {
        self.mistakes.add(&entry.place(key), entry.path_of(key), message);
    }

    fn description(&mut self) -> Description {
        let top = self.top;
        let tables = top.tables("tables").iter().map(|table| self.table(table)).collect();
        let fields: Vec<FieldPlan> =
            top.tables("fields").iter().enumerate().map(|(index, field)| self.field(index, field)).collect();
        let file = top.text_or_none("file").map(|path| FilePlan {
            path,
            format: top.text("format"),
            rows: top.unsigned("rows"),
        });
        if top.text_or_none("topic").is_some() == file.is_some() {
            self.wrong(top, "topic", "give either topic or file");
        }
        if file.is_none() || top.text_or_none("time").is_some() {
            let time = self.index_of(top, "time", usize::MAX).unwrap_or(0);
            if !matches!(fields.get(time).map(|field| &field.draw), Some(Draw::Time)) {
                self.wrong(top, "time", "must name a field of kind time");
            }
        }
        let dirty: Vec<DirtyPlan> = top.tables("dirty").iter().map(|dirty| self.dirty(dirty)).collect();
        let late_behind_ms = (top.integer("late_behind_min"), top.integer("late_behind_max"));
        if late_behind_ms.0 > late_behind_ms.1 {
            self.wrong(top, "late_behind_min", "is more than late_behind_max");
        }
        let avro = self.avro();
        let usual = if avro.is_empty() { Encoding::Json } else { Encoding::Avro };
        let description = Description {
            topic: top.text_or_none("topic").unwrap_or_default(),
            file,
            key: top.text_or_none("key").and_then(|_| self.index_of(top, "key", usize::MAX)),
            jitter_ms: top.integer("jitter"),
            late_behind_ms,
            tables,
            fields,
            dirty,
            dirty_weights: Weights::new(
                top.tables("dirty").iter().map(|dirty| dirty.number_or_none("weight").unwrap_or(1.0)),
            ),
            share: top.number_or_none("share").unwrap_or(1.0),
            encoding: top.text_or_none("encoding").and_then(|word| Encoding::of(&word)).unwrap_or(usual),
            json_schema: self.json_schema(),
            avro,
            evolve_after: top.unsigned("evolve_after"),
        };
        if !description.can(description.encoding) {
            self.wrong(top, "encoding", "there is no such schema: give json_schema or avro");
        }
        description
    }

    fn json_schema(&mut self) -> Option<String> {
        let text = self.top.text_or_none("json_schema")?;
        if let Err(error) = serde_json::from_str::<serde_json::Value>(&text) {
            self.wrong(self.top, "json_schema", format!("not JSON: {error}"));
        }
        Some(text)
    }

    fn avro(&mut self) -> Vec<apache_avro::Schema> {
        let mut schemas = Vec::new();
        for text in self.top.texts("avro") {
            match apache_avro::Schema::parse_str(&text) {
                Ok(schema) => schemas.push(schema),
                Err(error) => self.wrong(self.top, "avro", format!("not an Avro schema: {error}")),
            }
        }
        schemas
    }

    /// The index of the field that a key names, among the first `before`.
    fn index_of(&mut self, entry: &Entry, key: &str, before: usize) -> Option<usize> {
        let name = entry.text_or_none(key);
        let Some(name) = name else {
            self.wrong(entry, key, "missing; name a field");
            return None;
        };
        self.named(entry, key, &name, before)
    }

    fn named(&mut self, entry: &Entry, key: &str, name: &str, before: usize) -> Option<usize> {
        let top = self.top;
        let names: Vec<String> = top.tables("fields").iter().take(before).map(|field| field.text("name")).collect();
        let index = names.iter().position(|known| known == name);
        if index.is_none() {
            self.wrong(
                entry,
                key,
                format!("{name} is not a field above{}", suggestion(name, names.iter().map(String::as_str))),
            );
        }
        index
    }

    fn table(&mut self, entry: &Entry) -> TablePlan {
        let (columns, rows) = (entry.texts("columns"), entry.grid("rows"));
        if rows.is_empty() {
            self.wrong(entry, "rows", "must not be empty");
        }
        if let Some(row) = rows.iter().find(|row| row.len() != columns.len()) {
            self.wrong(
                entry,
                "rows",
                format!("a row has {} texts and there are {} columns: {row:?}", row.len(), columns.len()),
            );
        }
        let weights = self.weights(entry, rows.len());
        TablePlan { rows, weights }
    }

    fn weights(&mut self, entry: &Entry, count: usize) -> Weights {
        let weights = entry.numbers("weights");
        if weights.is_empty() {
            return Weights::zipf(count, entry.number_or_none("skew").unwrap_or(0.0));
        }
        if weights.len() != count || weights.iter().any(|weight| *weight < 0.0) || weights.iter().sum::<f64>() <= 0.0 {
            self.wrong(entry, "weights", format!("must be {count} numbers, none below 0 and not all 0"));
        }
        Weights::new(weights.into_iter())
    }

    fn field(&mut self, index: usize, entry: &Entry) -> FieldPlan {
        let by = entry.texts("by").iter().filter_map(|name| self.named(entry, "by", name, index)).collect();
        let draw = match entry.text("kind").as_str() {
            "time" => Draw::Time,
            "serial" => Draw::Serial,
            "id" => {
                let count = self.number(entry, "max").clamp(1.0, 10_000_000.0) as usize;
                Draw::Id(Weights::zipf(count, entry.number_or_none("skew").unwrap_or(0.0)))
            }
            "choice" => {
                let values = entry.texts("values");
                if values.is_empty() {
                    self.wrong(entry, "values", "missing; list the values to choose from");
                }
                let weights = self.weights(entry, values.len());
                Draw::Choice(values, weights)
            }
            "uniform" => Draw::Uniform(self.number(entry, "min"), self.number(entry, "max"), entry.count("decimals")),
            "lognormal" => Draw::Lognormal(
                self.number(entry, "median"),
                self.number(entry, "sigma"),
                entry.number_or_none("min").unwrap_or(f64::MIN),
                entry.number_or_none("max").unwrap_or(f64::MAX),
                entry.count("decimals"),
            ),
            "around" => Draw::Around(
                self.number(entry, "min"),
                self.number(entry, "max"),
                self.number(entry, "sigma"),
                entry.count("decimals"),
            ),
            "join" => {
                let of = entry.texts("of").iter().filter_map(|name| self.named(entry, "of", name, index)).collect();
                Draw::Join(of, entry.text("separator"))
            }
            "token" => Draw::Token(entry.count("length")),
            "column" => self.column(entry),
            _ => Draw::Template(self.template(index, entry)),
        };
        let null_share = entry.number_or_none("null_share").unwrap_or(0.0);
        let (hidden, unnamed) = (entry.bool("hidden"), entry.bool("unnamed"));
        FieldPlan { name: entry.text("name"), hidden, unnamed, null_share, by, draw }
    }

    fn number(&mut self, entry: &Entry, key: &str) -> f64 {
        let number = entry.number_or_none(key);
        if number.is_none() {
            self.wrong(entry, key, format!("missing; a field of kind {} needs it", entry.text("kind")));
        }
        number.unwrap_or(1.0)
    }

    fn column(&mut self, entry: &Entry) -> Draw {
        let (name, top) = (entry.text_or_none("table").unwrap_or_default(), self.top);
        let column = entry.text_or_none("text").unwrap_or_else(|| entry.text("name"));
        let Some((table, plan)) = top.tables("tables").iter().enumerate().find(|(_, table)| table.text("name") == name)
        else {
            let names: Vec<String> = top.tables("tables").iter().map(|table| table.text("name")).collect();
            self.wrong(
                entry,
                "table",
                format!("no table is called {name:?}{}", suggestion(&name, names.iter().map(String::as_str))),
            );
            return Draw::Serial;
        };
        let columns = plan.texts("columns");
        match columns.iter().position(|known| *known == column) {
            Some(column) => Draw::Column(table, column),
            None => {
                self.wrong(
                    entry,
                    "table",
                    format!("{name} has no column {column}{}", suggestion(&column, columns.iter().map(String::as_str))),
                );
                Draw::Serial
            }
        }
    }

    fn template(&mut self, index: usize, entry: &Entry) -> Vec<Piece> {
        let text = entry.text_or_none("text").unwrap_or_default();
        let mut pieces = Vec::new();
        let mut rest = text.as_str();
        while let Some((before, after)) = rest.split_once('{') {
            pieces.push(Piece::Text(before.to_owned()));
            let Some((name, after)) = after.split_once('}') else {
                self.wrong(entry, "text", "a { has no }");
                return pieces;
            };
            pieces.extend(self.named(entry, "text", name, index).map(Piece::Field));
            rest = after;
        }
        pieces.push(Piece::Text(rest.to_owned()));
        pieces
    }

    fn dirty(&mut self, entry: &Entry) -> DirtyPlan {
        let change = match entry.text("change").as_str() {
            "remove" => ChangePlan::Remove(self.index_of(entry, "field", usize::MAX).unwrap_or(0)),
            "set" => {
                let value = entry.text_or_none("value");
                if value.is_none() {
                    self.wrong(entry, "value", "missing; give the value to set");
                }
                ChangePlan::Set(self.index_of(entry, "field", usize::MAX).unwrap_or(0), value.unwrap_or_default())
            }
            "ahead" => {
                if entry.integer_or_none("by").is_none() {
                    self.wrong(entry, "by", "missing; say how far, for example by = \"3h\"");
                }
                ChangePlan::Ahead(entry.integer_or_none("by").unwrap_or(0))
            }
            "cut" => ChangePlan::Cut,
            "replace" => ChangePlan::Replace(entry.text_or_none("text").unwrap_or_default().into_bytes()),
            _ => ChangePlan::Replace(self.hex(entry)),
        };
        DirtyPlan { name: entry.text("name"), change }
    }

    fn hex(&mut self, entry: &Entry) -> Vec<u8> {
        let text = entry.text_or_none("hex").unwrap_or_default();
        let pair = |pair: &[u8]| {
            std::str::from_utf8(pair)
                .ok()
                .filter(|pair| pair.len() == 2)
                .and_then(|pair| u8::from_str_radix(pair, 16).ok())
        };
        let bytes: Option<Vec<u8>> = text.as_bytes().chunks(2).map(pair).collect();
        if bytes.is_none() || text.is_empty() {
            self.wrong(entry, "hex", "must be pairs of hexadecimal digits");
        }
        bytes.unwrap_or_default()
    }
}
