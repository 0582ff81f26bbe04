//! Sizes: files, functions, parameters, nesting; and that every public item is documented.

use crate::Offence;
use crate::source::{Source, item_end};

const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;
const PARAMETERS_MAX: usize = 5;
const INDENT_MAX: usize = 6;
const PUBLIC: [&str; 9] = [
    "pub fn ",
    "pub async fn ",
    "pub const ",
    "pub static ",
    "pub struct ",
    "pub enum ",
    "pub trait ",
    "pub type ",
    "pub unsafe fn ",
];

pub fn check(source: &Source, offences: &mut Vec<Offence>) {
    let mut offend = |rule, line, text: String| offences.push(Offence { rule, path: source.path.clone(), line, text });
    let lines = source.product_lines().count();
    if lines > FILE_LINES_MAX {
        offend(
            "file length",
            1,
            format!("{lines} lines without tests, at most {FILE_LINES_MAX}: split it by what changes together"),
        );
    }
    if !source.lines.first().is_some_and(|line| line.starts_with("//!")) {
        offend("header", 1, "a file starts with //! and says what it is for".into());
    }
    functions(source, &mut offend);
    for (line, code) in source.product_lines() {
        let indent = code.len() - code.trim_start().len();
        if !code.trim().is_empty() && indent > INDENT_MAX * 4 && !inside_string(source, line) {
            offend(
                "indent",
                line,
                format!("{} levels deep, at most {INDENT_MAX}: give the inner part a name", indent / 4),
            );
        }
        let trimmed = code.trim_start();
        let field =
            trimmed.starts_with("pub ") && trimmed.contains(": ") && trimmed.ends_with(',') && !trimmed.contains('(');
        if (PUBLIC.iter().any(|start| trimmed.starts_with(start)) || field && in_public(source, line))
            && !documented(source, line)
        {
            offend(
                "undocumented",
                line,
                format!("say what it means, its unit, errors and invariant: {}", source.lines[line - 1].trim()),
            );
        }
    }
}

/// Whether the line begins in the middle of a string that began above.
fn inside_string(source: &Source, line: usize) -> bool {
    let quotes: usize = source.code[..line - 1].iter().map(|code| code.matches('"').count()).sum();
    quotes % 2 == 1
}

/// Whether the struct around a field is public.
fn in_public(source: &Source, line: usize) -> bool {
    let depth = |code: &str| code.len() - code.trim_start().len();
    let own = depth(&source.code[line - 1]);
    let around = source.code[..line - 1]
        .iter()
        .rev()
        .find(|code| !code.trim().is_empty() && depth(code) < own && code.contains("struct "));
    around.is_some_and(|code| code.trim_start().starts_with("pub struct"))
}

fn documented(source: &Source, line: usize) -> bool {
    let mut above = line - 1;
    while above > 0 {
        let text = source.lines[above - 1].trim();
        let attribute = text.starts_with("#[")
            || text.starts_with(')')
            || text.ends_with(")]")
            || text.ends_with(',') && !text.starts_with("pub ") && text.starts_with("#");
        if text.starts_with("///") || text.starts_with("#[doc") {
            return true;
        }
        if !attribute {
            return false;
        }
        above -= 1;
    }
    false
}

fn functions(source: &Source, offend: &mut impl FnMut(&'static str, usize, String)) {
    let code = source.code.join("\n");
    for (start, _) in code.match_indices("fn ") {
        let line = code[..start].matches('\n').count() + 1;
        let before = code[..start].chars().next_back();
        let name: String = code[start + 3..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        if name.is_empty() || source.is_test[line - 1] || before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let length = code[start..start + item_end(&code[start..])].matches('\n').count() + 1;
        if length > FUNCTION_LINES_MAX {
            offend(
                "function length",
                line,
                format!("{name} has {length} lines, at most {FUNCTION_LINES_MAX}: give its parts names"),
            );
        }
        let count = parameters(&code[start + 3 + name.len()..]);
        if count > PARAMETERS_MAX {
            offend(
                "parameters",
                line,
                format!("{name} takes {count}, at most {PARAMETERS_MAX}: pass a struct that has a meaning"),
            );
        }
    }
}

/// Number of parameters after a function's name, `self` apart.
fn parameters(code: &str) -> usize {
    let Some(open) = after_generics(code) else { return 0 };
    let (mut round, mut angle, mut names) = (0, 0, vec![String::new()]);
    let mut previous = ' ';
    for c in code[open..].chars() {
        match c {
            '(' | '[' | '{' => round += 1,
            ')' | ']' | '}' => round -= 1,
            '<' => angle += 1,
            '>' if previous != '-' => angle -= 1,
            ',' if round == 1 && angle == 0 => names.push(String::new()),
            _ => {}
        }
        if round == 0 {
            break;
        }
        if let Some(name) = names.last_mut().filter(|_| !(c == '(' && previous == ' ') && c != ',') {
            name.push(c);
        }
        previous = c;
    }
    let is_self = |name: &str| {
        matches!(name.trim_start_matches('(').trim(), "self" | "&self" | "mut self" | "&mut self")
            || name.contains("self:")
    };
    names.iter().filter(|name| !name.trim_start_matches('(').trim().is_empty() && !is_self(name)).count()
}

fn after_generics(code: &str) -> Option<usize> {
    let mut depth = 0;
    let mut previous = ' ';
    for (at, c) in code.char_indices() {
        match c {
            '<' => depth += 1,
            '>' if previous != '-' => depth -= 1,
            '(' if depth == 0 => return Some(at),
            '{' | ';' if depth == 0 => return None,
            _ => {}
        }
        previous = c;
    }
    None
}

#[test]
fn parameters_are_counted() {
    assert_eq!(parameters("(&self, a: u8, b: Map<K, V>)"), 2);
    assert_eq!(parameters("<T: Fn(u8, u8) -> u8>(a: T, b: impl Fn(u8, u8) -> (u8, u8), c: &[(u8, u8)],\n)"), 3);
    assert_eq!(parameters("()"), 0);
    assert_eq!(parameters("(\n    &mut self, (a, b): (u8, u8),\n)"), 1);
}
