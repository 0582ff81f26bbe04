//! The table of a sink: its columns and the statements that fill it. Values travel as arrays of text, one per column, and
//! PostgreSQL casts them: one statement for thousands of rows, and one place where types are understood.

use std::collections::HashMap;

use engine::ViewInfo;

use super::feed::{Change, Feed, Row, json_of, postgres_type, text_of};
use crate::config::PostgresSinkConfig;

/// One column of the table.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    /// Its name in the table.
    pub name: String,
    /// The column it is filled from.
    pub from: String,
    /// Its type in the database.
    pub sql_type: String,
    nullable: bool,
}

/// Changes of different rows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Round {
    /// Rows that are gone.
    pub gone: Vec<Change>,
    /// Rows as they are now.
    pub kept: Vec<Change>,
}

/// The table. Never changes.
#[derive(Clone, Debug)]
pub struct Plan {
    table: String,
    columns: Vec<Column>,
    /// Places of the key in `columns`.
    key: Vec<usize>,
}

impl Plan {
    /// Puts declaration and source together.
    ///
    /// # Errors
    /// Columns that are not there, a key that cannot name a row of the view.
    pub fn new(config: &PostgresSinkConfig, feed: &Feed) -> Result<Plan, String> {
        let declared = if config.columns.is_empty() { feed.columns() } else { config.columns.clone() };
        let mut columns = Vec::new();
        for column in declared {
            let field = feed.field(&column.from)?;
            columns.push(Column {
                name: column.name,
                from: column.from,
                sql_type: column.sql_type.unwrap_or_else(|| postgres_type(field.data_type()).to_owned()),
                nullable: field.is_nullable(),
            });
        }
        let identity = feed.identity();
        let place = |is: &dyn Fn(&Column) -> bool| columns.iter().position(is);
        let key: Result<Vec<usize>, String> = if config.key.is_empty() {
            let missing = |name: &String| format!("the view's key {name} is not one of the columns: add it");
            identity.iter().map(|name| place(&|column| column.from == *name).ok_or_else(|| missing(name))).collect()
        } else {
            let missing = |name: &String| format!("the key {name} is not one of the columns: add it");
            config.key.iter().map(|name| place(&|column| column.name == *name).ok_or_else(|| missing(name))).collect()
        };
        let key = key?;
        if key.is_empty() {
            return Err("the view has one row and no key: give the sink a view with a window or keys".to_owned());
        }
        if matches!(feed, Feed::View(_)) {
            let named: Vec<&String> = key.iter().map(|at| &columns[*at].from).collect();
            if named.len() != identity.len() || !identity.iter().all(|name| named.contains(&name)) {
                return Err(format!("a row of the view is named by {}: the key must be these", identity.join(", ")));
            }
        }
        Ok(Plan { table: quoted_path(&config.table), columns, key })
    }

    /// Whether the changes of another version of the view are changes of the table's rows: named by the same columns, and with
    /// all that the table is filled from.
    pub fn takes(&self, declared: &ViewInfo, served: &ViewInfo) -> bool {
        let field = |view: &ViewInfo, name: &str| view.schema.field_with_name(name).ok().cloned();
        let same_field = |column: &Column| field(declared, &column.from) == field(served, &column.from);
        (&declared.keys, declared.windows) == (&served.keys, served.windows) && self.columns.iter().all(same_field)
    }

    /// Whether a change of a view says all that is needed of its row. One that does not was told of a version that another one has
    /// taken over from, which tells its rows anew.
    pub fn is_whole(&self, change: &Change) -> bool {
        let says = |column: &Column| change.row.contains_key(&column.from);
        match change.gone {
            true => self.key.iter().all(|at| says(&self.columns[*at])),
            false => self.columns.iter().all(says),
        }
    }

    /// Makes the table when it is not there.
    pub fn create(&self) -> String {
        let columns: Vec<String> =
            self.columns.iter().map(|column| format!("{} {}", quoted(&column.name), column.sql_type)).collect();
        // A primary key takes no nulls, and a view may well have one among its keys.
        let constraint = match self.key.iter().any(|at| self.columns[*at].nullable) {
            true => "UNIQUE NULLS NOT DISTINCT",
            false => "PRIMARY KEY",
        };
        format!(
            "CREATE TABLE IF NOT EXISTS {} ({}, {constraint} ({}))",
            self.table,
            columns.join(", "),
            self.key_names()
        )
    }

    fn key_names(&self) -> String {
        self.key.iter().map(|at| quoted(&self.columns[*at].name)).collect::<Vec<_>>().join(", ")
    }

    /// Inserts or replaces many rows; `$n` is the array of column n.
    pub fn upsert(&self) -> String {
        let all: Vec<usize> = (0..self.columns.len()).collect();
        let names: Vec<String> = self.columns.iter().map(|column| quoted(&column.name)).collect();
        let casts: Vec<String> =
            self.columns.iter().enumerate().map(|(at, column)| format!("r.c{at}::{}", column.sql_type)).collect();
        let others = names.iter().enumerate().filter(|(at, _)| !self.key.contains(at));
        let sets: Vec<String> = others.map(|(_, name)| format!("{name} = EXCLUDED.{name}")).collect();
        let action = if sets.is_empty() { "NOTHING".to_owned() } else { format!("UPDATE SET {}", sets.join(", ")) };
        format!(
            "INSERT INTO {} ({}) SELECT {} FROM {} ON CONFLICT ({}) DO {action}",
            self.table,
            names.join(", "),
            casts.join(", "),
            unnest(&all),
            self.key_names()
        )
    }

    /// Deletes many rows; `$n` is the array of the key's column n.
    pub fn delete(&self) -> String {
        let same: Vec<String> = self
            .key
            .iter()
            .map(|at| {
                let column = &self.columns[*at];
                format!("t.{} IS NOT DISTINCT FROM r.c{at}::{}", quoted(&column.name), column.sql_type)
            })
            .collect();
        format!("DELETE FROM {} AS t USING {} WHERE {}", self.table, unnest(&self.key), same.join(" AND "))
    }

    /// The arrays for [`upsert`](Self::upsert) or [`delete`](Self::delete).
    pub fn arrays(&self, changes: &[Change], gone: bool) -> Vec<Vec<Option<String>>> {
        let all: Vec<usize> = if gone { self.key.clone() } else { (0..self.columns.len()).collect() };
        let array = |at: usize| changes.iter().map(|change| text_of(change.row.get(&self.columns[at].from))).collect();
        all.into_iter().map(array).collect()
    }

    /// The key's values of a row.
    pub fn key_of(&self, row: &Row) -> Vec<Option<String>> {
        self.key.iter().map(|at| text_of(row.get(&self.columns[*at].from))).collect()
    }

    /// The key as JSON, for the refused row's record.
    pub fn key_json(&self, row: &Row) -> String {
        let columns = self.key.iter().map(|at| &self.columns[*at]);
        json_of(columns.filter_map(|column| Some((&column.name, row.get(&column.from)?))))
    }

    /// Changes in rounds, in each of which a key is at most once, as one statement cannot change a row twice. Of a view's
    /// changes only the last of each key counts; of a stream's each does, since a later one may be refused.
    pub fn rounds(&self, changes: Vec<Change>, only_last: bool) -> Vec<Round> {
        let mut rounds: Vec<Round> = Vec::new();
        let mut seen: HashMap<Vec<Option<String>>, usize> = HashMap::new();
        for change in changes.into_iter().rev() {
            let times = seen.entry(self.key_of(&change.row)).or_insert(0);
            *times += 1;
            if only_last && *times > 1 {
                continue;
            }
            // Counted from the end, so that the last round has every key's last change.
            if rounds.len() < *times {
                rounds.push(Round::default());
            }
            let round = &mut rounds[*times - 1];
            if change.gone { &mut round.gone } else { &mut round.kept }.push(change);
        }
        rounds.reverse();
        for round in &mut rounds {
            round.gone.reverse();
            round.kept.reverse();
        }
        rounds
    }
}

fn unnest(columns: &[usize]) -> String {
    let arrays: Vec<String> = (1..=columns.len()).map(|n| format!("${n}::text[]")).collect();
    let names: Vec<String> = columns.iter().map(|at| format!("c{at}")).collect();
    format!("unnest({}) AS r({})", arrays.join(", "), names.join(", "))
}

/// A name in quotes.
pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// `schema.table` with each part in quotes.
fn quoted_path(path: &str) -> String {
    path.split('.').map(quoted).collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use super::*;
    fn plan() -> Plan {
        let column = |name: &str, sql_type: &str, nullable| Column {
            name: name.into(),
            from: name.to_lowercase(),
            sql_type: sql_type.into(),
            nullable,
        };
        Plan {
            table: quoted_path("public.Factures"),
            columns: vec![column("Id", "bigint", false), column("montant", "numeric", true)],
            key: vec![0],
        }
    }

    fn change(id: i64, montant: &str, gone: bool) -> Change {
        let row = Row::from([("id".into(), id.to_string()), ("montant".into(), format!("{montant:?}"))]);
        Change { partition: 0, offset: id, row, gone }
    }

    #[test]
    fn statements_quote_names_and_cast_values() {
        let plan = plan();
        assert_eq!(
            plan.create(),
            r#"CREATE TABLE IF NOT EXISTS "public"."Factures" ("Id" bigint, "montant" numeric, PRIMARY KEY ("Id"))"#
        );
        assert_eq!(
            plan.upsert(),
            r#"INSERT INTO "public"."Factures" ("Id", "montant") SELECT r.c0::bigint, r.c1::numeric FROM unnest($1::text[], $2::text[]) AS r(c0, c1) ON CONFLICT ("Id") DO UPDATE SET "montant" = EXCLUDED."montant""#
        );
        assert_eq!(
            plan.delete(),
            r#"DELETE FROM "public"."Factures" AS t USING unnest($1::text[]) AS r(c0) WHERE t."Id" IS NOT DISTINCT FROM r.c0::bigint"#
        );
        assert_eq!(quoted(r#"a"b"#), r#""a""b""#);
    }

    #[test]
    fn other_versions_of_a_view_fill_the_table_where_they_have_its_rows() {
        use arrow::datatypes::DataType::{self, Float64, Int64, Utf8};
        use arrow::datatypes::{Field, Schema};
        let view = |columns: &[(&str, DataType)], keys: &[&str]| ViewInfo {
            name: "v".into(),
            sql: String::new(),
            stream: "s".into(),
            schema: std::sync::Arc::new(Schema::new(
                columns.iter().map(|(name, kind)| Field::new(*name, kind.clone(), true)).collect::<Vec<_>>(),
            )),
            keys: keys.iter().map(|key| (*key).to_owned()).collect(),
            windows: None,
            emit: engine::Emit::Changes,
        };
        let declared = view(&[("id", Int64), ("montant", Float64), ("more", Utf8)], &["id"]);
        for (served, takes) in [
            (view(&[("id", Int64), ("montant", Float64)], &["id"]), true),
            (view(&[("id", Int64), ("less", Utf8), ("montant", Float64)], &["id"]), true),
            (view(&[("id", Int64), ("more", Utf8)], &["id"]), false),
            (view(&[("id", Int64), ("montant", Int64)], &["id"]), false),
            (view(&[("id", Int64), ("less", Utf8), ("montant", Float64)], &["id", "less"]), false),
        ] {
            assert_eq!(plan().takes(&declared, &served), takes, "{:?}", served.schema);
        }
        let said = |names: &[&str], gone| Change {
            row: names.iter().map(|name| ((*name).to_owned(), "1".to_owned())).collect(),
            ..change(1, "1", gone)
        };
        for (change, whole) in [
            (said(&["id", "montant", "more"], false), true),
            (said(&["id"], false), false),
            (said(&["id"], true), true),
            (said(&["other"], true), false),
        ] {
            assert_eq!(plan().is_whole(&change), whole, "{change:?}");
        }
    }

    #[test]
    fn of_many_changes_of_one_key_the_last_counts() {
        let changes = vec![change(1, "1", false), change(2, "2", false), change(1, "3", false), change(2, "", true)];
        let last = Round { gone: vec![change(2, "", true)], kept: vec![change(1, "3", false)] };
        assert_eq!(plan().rounds(changes.clone(), true), std::slice::from_ref(&last));
        let first = Round { gone: vec![], kept: vec![change(1, "1", false), change(2, "2", false)] };
        assert_eq!(plan().rounds(changes, false), [first, last.clone()]);
        assert_eq!(plan().arrays(&last.kept, false), [[Some("1".to_owned())], [Some("3".to_owned())]]);
        assert_eq!(plan().arrays(&last.gone, true), [[Some("2".to_owned())]]);
    }
}
