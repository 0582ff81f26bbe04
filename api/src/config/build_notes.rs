//! Owners and descriptions, gathered for the catalog.

use super::NoteConfig;
use super::build::text;
use super::value::Entry;

/// Everything that is said about topics, streams and their columns, views, and lake tables.
pub fn notes(lists: &Entry, lake: &Entry) -> Vec<NoteConfig> {
    let mut notes = Vec::new();
    let mut add = |list: &'static str, name: String, entry: &Entry| {
        let (owner, description) = (entry.text_or_none("owner"), entry.text_or_none("description"));
        if owner.is_some() || description.is_some() {
            notes.push(NoteConfig { list, name, owner, description });
        }
    };
    for topic in lists.tables("topics") {
        add("topics", text(topic, "name"), topic);
    }
    for stream in lists.tables("streams") {
        let name = stream.text_or_none("sql").map_or_else(|| text(stream, "name"), |sql| view_name(&sql));
        add("streams", name.clone(), stream);
        for column in stream.tables("columns") {
            add("columns", format!("{name}.{}", text(column, "name")), column);
        }
    }
    for view in lists.tables("views") {
        add("views", view_name(&text(view, "sql")), view);
    }
    for table in lake.tables("tables") {
        add("tables", text(table, "topic"), table);
    }
    notes
}

/// The name that a definition gives its view: the word before AS.
fn view_name(sql: &str) -> String {
    let before = |word: &&str| !word.eq_ignore_ascii_case("as");
    let name = sql.split_whitespace().take_while(before).last().unwrap_or_default();
    name.trim_matches('"').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_is_named_before_as() {
        for sql in [
            "CREATE MATERIALIZED VIEW plays AS SELECT 1",
            "create materialized view if not exists\n  \"plays\"\nas select x as y",
            "CREATE VIEW plays AS\nSELECT 1",
        ] {
            assert_eq!(view_name(sql), "plays", "{sql}");
        }
    }
}
