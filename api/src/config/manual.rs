//! Writes `config/millpond.toml`: every key with its default and doc, from the same rows that check the files.

use std::fmt::Write;

use super::schema::{Absent, Field, Kind, Section};
use super::settings::{SECTIONS, scalars};

const WIDTH: usize = 120;

const HEADER: &str = "\
# Every setting of Millpond with its default, written from api/src/config/settings.rs. A test compares this file with the table;
# MILLPOND_TEST_BLESS=1 writes it anew.
#
# Several files may be given (--config FILE, again and again): a later one adds to the lists and replaces single values. A variable is
# stronger than a file, and a flag is stronger than a variable. Unknown keys are refused. Lines that begin with #key show keys that
# have no default, and examples of the lists.
# In texts, ${NAME} stands for a variable of the environment, ${NAME:-default} for it or the default, ${file:/path} for what a file
# holds, and $${ for these letters; a number or duration may be written so too: batch_records = \"${BATCH_SIZE:-1000}\".
# Settings of [kafka] have variables without MILLPOND_, as in Kafka's own images: KAFKA_NUM_PARTITIONS.
# MILLPOND_CONFIG names files (separated by :) where --config is not given; MILLPOND_LOG says what is logged (warn, info, broker=debug).
";

/// The whole file.
pub fn manual() -> String {
    let mut out = HEADER.to_owned();
    for section in SECTIONS.iter().filter(|section| !section.name.is_empty()) {
        plain_section(&mut out, section);
    }
    for section in SECTIONS.iter() {
        for field in section.fields {
            if let Kind::Tables(fields) = field.kind {
                let path = if section.name.is_empty() {
                    field.name.to_owned()
                } else {
                    format!("{}.{}", section.name, field.name)
                };
                list(&mut out, &path, field, fields);
            }
        }
    }
    out
}

fn plain_section(out: &mut String, section: &Section) {
    prose(out, "\n", section.doc);
    line(out, &format!("[{}]", section.name));
    for field in section.fields.iter().filter(|field| field.kind.is_scalar()) {
        let names = scalars().find(|(scalar, _)| scalar.section == section.name && scalar.key == field.name);
        let names = names.map_or_else(String::new, |(scalar, _)| match scalar.flag {
            Some(flag) => format!("Flag --{flag}, variable {}.", scalar.variable),
            None => format!("Variable {}.", scalar.variable),
        });
        prose(out, "\n", &format!("{} {}. {names}", field.doc, capital(&field.kind.words())));
        match field.absent {
            Absent::Default(text) => line(out, &format!("{} = {}", key(field), literal(&field.kind, text))),
            Absent::Required | Absent::Unset => line(out, &format!("#{} = {}", key(field), field.example)),
        }
    }
}

/// A key, in quotes where TOML would take its dots for tables.
fn key(field: &Field) -> String {
    if field.name.contains('.') { format!("{:?}", field.name) } else { field.name.to_owned() }
}

fn list(out: &mut String, path: &str, list: &Field, fields: &[Field]) {
    prose(out, "\n", list.doc);
    line(out, &format!("#[[{path}]]"));
    for field in fields {
        let need = match field.absent {
            Absent::Required => "required",
            Absent::Unset => "optional",
            Absent::Default(_) => "default",
        };
        let kind = capital(&field.kind.words());
        match field.kind {
            // A key that excludes others of the example is told of without a line of its own.
            Kind::Table(inner) => {
                prose(out, "", &format!("- {}: {} {kind}, {need}; its keys:", field.name, field.doc));
                inner.iter().for_each(|field| key_of(out, "  ", field));
            }
            Kind::Text if field.example.is_empty() && field.absent == Absent::Unset => {
                prose(out, "", &format!("- {}: {} {kind}, {need}.", field.name, field.doc));
            }
            Kind::Tables(inner) if field.example.is_empty() => {
                self::list(out, &format!("{path}.{}", field.name), field, inner)
            }
            Kind::Tables(inner) => {
                prose(out, "", &format!("{} {kind}, {need}; the keys of each:", field.doc));
                inner.iter().for_each(|field| key_of(out, "", field));
                line(out, &format!("#{} = {}", field.name, field.example));
            }
            _ => {
                prose(out, "", &format!("{} {kind}, {need}.", field.doc));
                let value = match field.absent {
                    Absent::Default(text) => literal(&field.kind, text),
                    Absent::Required | Absent::Unset => field.example.to_owned(),
                };
                line(out, &format!("#{} = {value}", field.name));
            }
        }
    }
}

/// A key of a table within the example.
fn key_of(out: &mut String, indent: &str, field: &Field) {
    let kind = capital(&field.kind.words());
    prose(out, "", &format!("{indent}- {}: {} {kind}{}.", field.name, field.doc, absent(field)));
}

fn absent(field: &Field) -> String {
    match field.absent {
        Absent::Required => ", required".into(),
        Absent::Unset => ", optional".into(),
        Absent::Default(text) => format!(", default {text}"),
    }
}

/// A default as TOML.
fn literal(kind: &Kind, text: &str) -> String {
    match kind {
        Kind::Bool | Kind::Integer(..) | Kind::Number(..) => text.to_owned(),
        Kind::Texts => format!(
            "[{}]",
            text.split(',')
                .filter(|part| !part.is_empty())
                .map(|part| format!("{part:?}"))
                .collect::<Vec<_>>()
                .join(", ")
        ),
        _ => format!("{text:?}"),
    }
}

fn capital(words: &str) -> String {
    let mut letters = words.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

fn line(out: &mut String, text: &str) {
    out.push_str(text);
    out.push('\n');
}

/// Comment lines of at most [`WIDTH`] letters.
fn prose(out: &mut String, before: &str, text: &str) {
    out.push_str(before);
    let mut width = 1;
    out.push('#');
    for word in text.split_whitespace() {
        if width + 1 + word.len() > WIDTH {
            out.push_str("\n#");
            width = 1;
        }
        // writing to a String cannot fail
        let _ = write!(out, " {word}");
        width += 1 + word.len();
    }
    out.push('\n');
}
