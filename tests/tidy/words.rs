//! Words: what code and comments must not say.

use crate::Offence;
use crate::source::{Source, read};

/// Whole tokens that have no place outside tests, and what to do instead.
const UNWRAP: [&str; 6] = [".unwrap()", ".unwrap_err()", "panic!(", "todo!(", "unimplemented!(", "dbg!("];
/// Bytes of a size or float whose width or form is not drawn anywhere.
const LOOSE_BYTES: [&str; 8] = [
    "usize::from_be_bytes",
    "usize::from_le_bytes",
    "isize::from_be_bytes",
    "f64::from_be_bytes",
    "f64::from_le_bytes",
    "f32::from_be_bytes",
    "f32::from_le_bytes",
    "as usize).to_be_bytes",
];
const MODULES: [&str; 6] = ["utils", "util", "common", "helpers", "helper", "misc"];
const LOG_MACROS: [&str; 5] = ["error!(", "warn!(", "info!(", "debug!(", "trace!("];
/// Where time may be read, and where the process' own chance may be drawn.
const CLOCKS: [&str; 1] = ["broker/src/clock.rs"];

pub fn check(source: &Source, offences: &mut Vec<Offence>) {
    let mut offend = |rule, line, text: &str| {
        offences.push(Offence { rule, path: source.path.clone(), line, text: text.to_owned() })
    };
    let name = source.path.rsplit('/').next().unwrap().trim_end_matches(".rs");
    if MODULES.contains(&name) {
        offend("module name", 1, "a module is named after what it holds");
    }
    for (line, code) in source.product_lines() {
        let written = source.lines[line - 1].trim();
        let trimmed = code.trim();
        if UNWRAP.iter().any(|word| code.contains(word)) {
            offend("unwrap", line, "give an error that says what to do, or expect(\"why it holds\")");
        }
        if code.contains(".expect(") && !code.contains(".expect(\"") && !trimmed.ends_with(".expect(") {
            offend("expect", line, "an expect states its invariant as text");
        }
        let begins = source.code[..line - 1].iter().rev().find(|code| !code.trim().is_empty());
        let begins = begins.is_none_or(|code| code.trim_end().ends_with([';', '{', '}']));
        if begins && trimmed.starts_with("matches!(") && trimmed.ends_with(");") {
            offend("matches", line, "matches! as a statement proves nothing: assert it");
        }
        if LOOSE_BYTES.iter().any(|word| code.contains(word)) {
            offend("float or usize in bytes", line, "stored bytes have a fixed width and an exact meaning");
        }
        if !CLOCKS.contains(&source.path.as_str())
            && ["SystemTime::now(", "thread_rng(", "Utc::now(", "Local::now("].iter().any(|word| code.contains(word))
        {
            offend("clock", line, "time and chance are handed in: broker::Clock");
        }
        if let Some(module) = trimmed.strip_suffix(';').and_then(|t| t.rsplit_once("mod ")).map(|(_, name)| name)
            && MODULES.contains(&module)
        {
            offend("module name", line, "a module is named after what it holds");
        }
        if let Some(text) = log_text(source, line, code)
            && (text.chars().next().is_some_and(char::is_uppercase) && !starts_with_a_name(text) || text.ends_with('.'))
        {
            offend("log text", line, "log text is lowercase, without a full stop, values as fields");
        }
        comment(written, line, &mut offend);
    }
    import_order(source, &mut offend);
}

/// Kafka, RocksDB … keep their capitals.
fn starts_with_a_name(text: &str) -> bool {
    ["Kafka", "RocksDB", "HTTP", "SQL", "Parquet", "TCP", "Prometheus"].iter().any(|name| text.starts_with(name))
}

/// The text of a log macro that is on this line.
fn log_text<'a>(source: &'a Source, line: usize, code: &str) -> Option<&'a str> {
    let at = LOG_MACROS.iter().find_map(|name| code.find(name))?;
    let open = at + code[at..].rfind('"').and_then(|close| code[at..at + close].rfind('"'))?;
    let close = at + code[at..].rfind('"')?;
    // Columns are counted in characters.
    let written = &source.lines[line - 1];
    let place = |characters: usize| written.char_indices().nth(characters).map(|(i, _)| i);
    written.get(place(code[..open].chars().count())? + 1..place(code[..close].chars().count())?)
}

fn comment(written: &str, line: usize, offend: &mut impl FnMut(&'static str, usize, &str)) {
    let Some(text) = written.strip_prefix("//").filter(|text| !text.starts_with('/') && !text.starts_with('!')) else {
        return;
    };
    let text = text.trim();
    for word in ["TODO", "FIXME", "XXX", "HACK"] {
        if text.split(|c: char| !c.is_alphanumeric()).any(|w| w == word) && !text.contains('#') {
            offend("todo", line, "what is left to do is an issue: name it (#n) or do it");
        }
    }
    let starts = ["let ", "fn ", "use ", "pub ", "if ", "for ", "match ", "return ", "self.", "}"]
        .iter()
        .any(|start| text.starts_with(start));
    if starts && (text.ends_with(';') || text.ends_with('{') || text == "}") {
        offend("commented-out code", line, "git remembers old code");
    }
}

/// std, then crates, then ours: a group never comes after a later one in the imports at the top.
fn import_order(source: &Source, offend: &mut impl FnMut(&'static str, usize, &str)) {
    let mut reached = 0;
    for (line, code) in source.product_lines() {
        let Some(path) = code
            .strip_prefix("use ")
            .or_else(|| code.strip_prefix("pub use ").or_else(|| code.strip_prefix("pub(crate) use ")))
        else {
            continue;
        };
        let first = path.split([':', ';', ' ']).next().unwrap_or_default();
        let group = match first {
            "std" | "core" | "alloc" => 0,
            "crate" | "self" | "super" => 2,
            // Variants of an enum or a child module of this file, brought near by name.
            local if local.starts_with(char::is_uppercase) || declares(source, local) => continue,
            _ => 1,
        };
        // Re-exports come after everything and are their own list.
        if group < reached && code.starts_with("use ") {
            offend("import order", line, "imports: std, crates, ours, in this order");
        }
        if code.starts_with("use ") {
            reached = reached.max(group);
        }
    }
}

/// Whether the file itself declares this module.
fn declares(source: &Source, module: &str) -> bool {
    source.code.iter().any(|code| code.trim_end().ends_with(&format!("mod {module};")))
}

/// What no file of the tree may hold: paths of a developer's machine, hosts of registries.
pub fn tree(paths: &[String], offences: &mut Vec<Offence>) {
    // Spelled in two parts, so that this file passes its own check.
    let machine = [["/ro", "ot/"], ["/wo", "rk/"], ["/home/", "runner"], ["/Us", "ers/"]].map(|parts| parts.concat());
    let hosts = [
        ["registry.npm", "js.org"],
        ["files.python", "hosted.org"],
        ["pypi.", "org"],
        ["repo.maven.", "apache.org"],
        ["repo1.maven", ".org"],
        ["static.crates", ".io"],
        ["index.crates", ".io"],
    ]
    .map(|parts| parts.concat());
    for path in paths {
        let text = read(path);
        for (i, line) in text.lines().enumerate() {
            if let Some(found) = machine
                .iter()
                .find(|word| at_path_start(line, word))
                .or(hosts.iter().find(|word| line.contains(word.as_str())))
            {
                let text = format!("{found} belongs to one machine or network, not to the project");
                offences.push(Offence { rule: "machine", path: path.clone(), line: i + 1, text });
            }
        }
    }
}

/// `word` where a path begins, not inside a longer one such as `/lake/work/`.
fn at_path_start(line: &str, word: &str) -> bool {
    line.match_indices(word)
        .any(|(at, _)| !line[..at].chars().next_back().is_some_and(|c| c.is_alphanumeric() || "_-./}$)>~".contains(c)))
}
