//! A source file with comments and strings told apart from code, and tests told apart from the product.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

/// The product's own code: not tests, not benches.
const PRODUCT: [&str; 5] = ["src/", "broker/src/", "engine/src/", "lake/src/", "api/src/"];

pub struct Source {
    pub path: String,
    /// Lines as written.
    pub lines: Vec<String>,
    /// The same with comments and the insides of strings blanked; same number of lines and columns.
    pub code: Vec<String>,
    /// Whether a line belongs to a test.
    pub is_test: Vec<bool>,
}

/// Files that git knows or would know.
pub fn tracked() -> Vec<String> {
    let output = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "git ls-files: {}", String::from_utf8_lossy(&output.stderr));
    let names = String::from_utf8(output.stdout).unwrap();
    names.lines().map(str::to_owned).filter(|name| root().join(name).is_file()).collect()
}

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub fn read(path: &str) -> String {
    String::from_utf8_lossy(&fs::read(root().join(path)).unwrap()).into_owned()
}

/// Every source of the product that is not wholly a test.
pub fn product() -> Vec<Source> {
    let paths: Vec<String> = tracked()
        .into_iter()
        .filter(|path| path.ends_with(".rs") && PRODUCT.iter().any(|folder| path.starts_with(folder)))
        .collect();
    let sources: Vec<Source> = paths.iter().map(|path| Source::parse(path, &read(path))).collect();
    let tests: BTreeSet<String> = sources.iter().flat_map(Source::test_modules).collect();
    let is_test = |path: &str| {
        tests.iter().any(|module| path == format!("{module}.rs") || path.starts_with(&format!("{module}/")))
    };
    sources.into_iter().filter(|source| !is_test(&source.path)).collect()
}

impl Source {
    pub fn parse(path: &str, text: &str) -> Source {
        let code = blank(text);
        let is_test = test_lines(&code);
        let split = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
        Source { path: path.to_owned(), lines: split(text), code: split(&code), is_test }
    }

    /// (line number, code) of the product's lines.
    pub fn product_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.code.iter().enumerate().filter(|(i, _)| !self.is_test[*i]).map(|(i, code)| (i + 1, code.as_str()))
    }

    /// Paths (without `.rs`) of modules declared under `#[cfg(test)]` in files of their own.
    fn test_modules(&self) -> Vec<String> {
        let folder = match self.path.rsplit_once('/').unwrap() {
            (folder, "mod.rs" | "lib.rs" | "main.rs") => folder.to_owned(),
            _ => self.path.trim_end_matches(".rs").to_owned(),
        };
        let declared = self.code.iter().enumerate().filter(|(i, _)| self.is_test[*i]).filter_map(|(_, line)| {
            let (_, after) = line.split_once("mod ")?;
            Some(format!("{folder}/{}", after.strip_suffix(';')?))
        });
        declared.collect()
    }
}

/// Blanks comments and the insides of strings and characters; keeps quotes, newlines and positions.
fn blank(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let rest = &chars[at..];
        let (length, keep_ends) = token(rest, at.checked_sub(1).map(|i| chars[i]));
        for (i, c) in rest[..length].iter().enumerate() {
            let end = i == 0 || i + 1 == length;
            out.push(if *c == '\n' || length == 1 || (keep_ends && end) { *c } else { ' ' });
        }
        at += length;
    }
    out
}

/// Length of the comment, string or character that starts here (1 for anything else), and whether its ends stay visible.
fn token(rest: &[char], before: Option<char>) -> (usize, bool) {
    let starts = |text: &str| text.chars().enumerate().all(|(i, c)| rest.get(i) == Some(&c));
    let in_word = before.is_some_and(|c| c.is_alphanumeric() || c == '_');
    if starts("//") {
        return (rest.iter().position(|c| *c == '\n').unwrap_or(rest.len()), false);
    }
    if starts("/*") {
        let end = rest.windows(2).position(|pair| pair == ['*', '/']).map_or(rest.len(), |end| end + 2);
        return (end, false);
    }
    if !in_word && (starts("r\"") || starts("r#") || starts("br\"") || starts("br#")) {
        let quote = rest.iter().position(|c| *c == '"');
        let hashes = rest.iter().filter(|c| **c == '#' || **c == '"').take_while(|c| **c == '#').count();
        let prefix = if rest[0] == 'b' { 2 } else { 1 };
        if let Some(quote) = quote.filter(|quote| *quote == prefix + hashes) {
            let close: Vec<char> = std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
            let body = &rest[quote + 1..];
            let end = body
                .windows(close.len())
                .position(|window| window == close)
                .map_or(rest.len(), |end| quote + 1 + end + close.len());
            return (end, true);
        }
    }
    if starts("\"") {
        return (closing(rest, '"'), true);
    }
    let is_char = rest.first() == Some(&'\'') && (rest.get(1) == Some(&'\\') || rest.get(2) == Some(&'\''));
    if is_char { (closing(rest, '\''), true) } else { (1, false) }
}

fn closing(rest: &[char], quote: char) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            '\\' => at += 2,
            c if c == quote => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// Lines of items under `#[cfg(test)]`: to the matching brace, or to the semicolon.
fn test_lines(code: &str) -> Vec<bool> {
    let mut flags = vec![false; code.lines().count()];
    for (start, _) in code
        .match_indices("#[cfg(test)]")
        .chain(code.match_indices("#[cfg(all(test"))
        .chain(code.match_indices("#[test]"))
    {
        let end = item_end(&code[start..]) + start;
        let line = |at: usize| code[..at].matches('\n').count();
        let last = line(end.min(code.len())).min(flags.len() - 1);
        flags[line(start)..=last].fill(true);
    }
    flags
}

/// Where the item that starts here ends: after its braces, or at its semicolon.
pub fn item_end(code: &str) -> usize {
    let mut depth = 0usize;
    let mut round = 0isize;
    for (at, c) in code.char_indices() {
        match c {
            '(' | '[' => round += 1,
            ')' | ']' => round -= 1,
            '{' => depth += 1,
            '}' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return at;
                }
            }
            ';' if depth == 0 && round == 0 => return at,
            _ => {}
        }
    }
    code.len()
}
