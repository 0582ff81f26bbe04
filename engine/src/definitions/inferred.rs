//! `CREATE STREAM s WITH (…)`: columns from the records that the topic has, written into the statement before anything else looks at
//! it. So what is checked, kept, shown and read at a start is a declaration like any other, and no later record changes it.

use datafusion::sql::sqlparser::keywords::{
    Keyword, RESERVED_FOR_COLUMN_ALIAS, RESERVED_FOR_IDENTIFIER, RESERVED_FOR_TABLE_ALIAS,
};
use datafusion::sql::sqlparser::tokenizer::Token;

use super::alter::{from_field, with_columns};
use super::draft::CREATED;
use super::script::{Script, Statement};
use super::statement::{Action, quoted, read_one};
use super::{Done, Kind, Mistake};
use crate::Engine;
use crate::config::{ColumnConfig, StreamConfig};
use crate::infer::{Inference, Sample, check_format};

/// Words that no list of the parser has, and that begin an expression or something else than a column.
const WORDS: [Keyword; 12] = [
    Keyword::CONSTRAINT,
    Keyword::CASE,
    Keyword::CAST,
    Keyword::NOT,
    Keyword::NULL,
    Keyword::TRUE,
    Keyword::FALSE,
    Keyword::AND,
    Keyword::OR,
    Keyword::IN,
    Keyword::AS,
    Keyword::ALL,
];

/// What was inferred for a stream of a script.
#[derive(Debug)]
pub struct Inferred {
    /// The stream's name.
    pub stream: String,
    /// The statement with its columns.
    sql: String,
    found: Inference,
}

impl Engine {
    /// Gives columns to those streams of a script that are declared without and are not there yet. Reads records, and changes nothing.
    ///
    /// # Errors
    /// Streams for which none can be inferred, with what to do.
    pub async fn infer(&self, mut script: Script) -> Result<(Script, Vec<Inferred>), Vec<Mistake>> {
        let (mut all, mut mistakes) = (Vec::new(), Vec::new());
        for statement in &mut script.statements {
            let Some(config) = self.to_infer(statement) else { continue };
            match self.inferred(&config, &statement.text).await {
                Ok((inferred, action)) => {
                    statement.text.clone_from(&inferred.sql);
                    statement.action = action;
                    all.push(inferred);
                }
                Err(message) => mistakes.push(statement.mistake(message)),
            }
        }
        if mistakes.is_empty() { Ok((script, all)) } else { Err(mistakes) }
    }

    /// The stream of a statement, if its columns have to be inferred.
    fn to_infer(&self, statement: &Statement) -> Option<StreamConfig> {
        let Action::Create { declares, .. } = &statement.action else { return None };
        let config = declares.without_columns()?;
        self.declared_in(&config.name).is_none().then(|| config.clone())
    }

    async fn inferred(&self, config: &StreamConfig, sql: &str) -> Result<(Inferred, Action), String> {
        check_format(config)?;
        let sample = Sample::take(&self.broker, &config.topic).await?;
        let stream = config.clone();
        let found = tokio::task::spawn_blocking(move || sample.infer(&stream)).await;
        let found = found.map_err(|error| format!("topic '{}' cannot be read: {error}", config.topic))??;
        let columns: Vec<String> =
            found.columns.iter().map(|column| format!("{} {}", identifier(&column.name), of_type(column))).collect();
        let sql = with_columns(sql, &columns.join(", "))?;
        let action = read_one(&sql, "").map_err(|mistakes| {
            let first = mistakes.first().map(|mistake| mistake.message.clone()).unwrap_or_default();
            format!("the inferred columns cannot be declared, write them out: {first}")
        })?;
        Ok((Inferred { stream: config.name.clone(), sql, found }, action))
    }
}

impl Inferred {
    /// What it says, line by line: a word, a name and a text.
    pub fn lines(&self) -> Vec<[String; 3]> {
        let line = |kind: &str, name: &str, text: &str| [kind.to_string(), name.to_string(), text.to_string()];
        let columns = self.found.columns.iter().map(|column| line("column", &column.name, &of_type(column)));
        let left_out = self.found.left_out.iter().map(|(path, why)| line("left out", path, why));
        let notes = self.found.notes.iter().map(|note| line("note", &self.stream, note));
        columns.chain(left_out).chain(notes).collect()
    }

    /// The declaration, for SQL and for a file, and what else is to be said.
    pub fn explain(&self) -> Vec<(&'static str, String)> {
        let mut steps = vec![("declaration", self.sql.clone()), ("in a file", in_file(&self.found.columns))];
        steps.extend(self.found.left_out.iter().map(|(path, why)| ("left out", format!("{path}: {why}"))));
        steps.extend(self.found.notes.iter().map(|note| ("note", note.clone())));
        steps
    }

    /// Whether this is the stream that a statement has made.
    pub fn is_of(&self, done: &Done) -> bool {
        (done.kind, &done.name, done.result) == (Kind::Stream, &self.stream, CREATED)
    }
}

/// All of a column's declaration but its name.
fn of_type(column: &ColumnConfig) -> String {
    let required = if column.required { " NOT NULL" } else { "" };
    format!("{}{required}{}", column.sql_type, from_field(column))
}

/// The columns as a configuration file has them. Texts of JSON are texts of TOML.
fn in_file(columns: &[ColumnConfig]) -> String {
    let text = |text: &str| serde_json::Value::from(text).to_string();
    let column = |column: &ColumnConfig| {
        let required = if column.required { ", required = true" } else { "" };
        let from = column.from.as_ref().map(|from| format!(", from = {}", text(from))).unwrap_or_default();
        format!("{{ name = {}, type = {}{required}{from} }}", text(&column.name), text(&column.sql_type))
    };
    format!("columns = [{}]", columns.iter().map(column).collect::<Vec<_>>().join(", "))
}

/// A name as SQL reads it back exactly, in quotes where it needs them.
fn identifier(name: &str) -> String {
    let is_plain = name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    let is_reserved = match Token::make_word(name, None) {
        Token::Word(word) => {
            [WORDS.as_slice(), RESERVED_FOR_COLUMN_ALIAS, RESERVED_FOR_TABLE_ALIAS, RESERVED_FOR_IDENTIFIER]
                .iter()
                .any(|words| words.contains(&word.keyword))
        }
        _ => true,
    };
    if is_plain && !is_reserved { name.to_string() } else { quoted(name) }
}

#[cfg(test)]
mod tests {
    use super::super::statement::Declares;
    use super::*;

    /// Whatever a field is called, the declaration says exactly its column.
    #[test]
    fn names_are_read_back_as_they_are() {
        let names = [
            "user_id",
            "userId",
            "order",
            "constraint",
            "group",
            "a.b",
            "it's",
            "with space",
            "né",
            "1st",
            "key",
            "type",
            "timestamp",
            "from",
            "added",
            "check",
            "primary",
            "not",
            "interval",
            "x\\y",
            "日本",
            "select",
            "end",
            "date",
        ];
        for name in names {
            let from = Some(format!("{name}'"));
            let column = ColumnConfig {
                name: name.into(),
                sql_type: "DECIMAL(38,0)".into(),
                required: true,
                from,
                added: false,
            };
            let text = format!("{} {}", identifier(name), of_type(&column));
            let sql = with_columns("CREATE STREAM s WITH (event_time = 'ts')", &text).unwrap();
            let Action::Create { declares: Declares::Stream(config), .. } = read_one(&sql, "").unwrap() else {
                panic!("{sql}")
            };
            assert_eq!(config.columns, [column], "{sql}");
        }
        assert_eq!(
            ["user_id", "order", "userId", "key"].map(identifier),
            ["user_id", "\"order\"", "\"userId\"", "key"]
        );
    }

    #[test]
    fn columns_of_a_file_are_toml() {
        let column = |name: &str, from: Option<&str>| ColumnConfig {
            name: name.into(),
            sql_type: "VARCHAR".into(),
            from: from.map(str::to_string),
            required: from.is_none(),
            added: false,
        };
        let text = in_file(&[column("a", None), column("b_c", Some("b.c\"\t"))]);
        let expected = r#"columns = [{ name = "a", type = "VARCHAR", required = true }, { name = "b_c", type = "VARCHAR", from = "b.c\"\t" }]"#;
        assert_eq!(text, expected);
    }
}
