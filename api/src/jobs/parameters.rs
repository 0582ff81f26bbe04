//! `$day` and `$run` in SQL: named parameters become numbered ones.

use serde_json::Value;

/// The statement with `$name` replaced by `$1`, `$2`, …, and the values in that order. What stands in quotes or comments is
/// left alone, as are names that are not given.
pub fn numbered(sql: &str, given: &[(&str, Value)]) -> (String, Vec<Value>) {
    let mut out = String::with_capacity(sql.len());
    let mut values: Vec<(&str, Value)> = Vec::new();
    let mut rest = sql;
    while let Some(first) = rest.chars().next() {
        let quoted = match first {
            '\'' | '"' => Some(1 + rest[1..].find(first).map_or(rest.len() - 1, |at| at + 1)),
            '-' if rest.starts_with("--") => Some(rest.find('\n').unwrap_or(rest.len())),
            '/' if rest.starts_with("/*") => Some(rest.find("*/").map_or(rest.len(), |at| at + 2)),
            _ => None,
        };
        if let Some(end) = quoted {
            out.push_str(&rest[..end]);
            rest = &rest[end..];
            continue;
        }
        let word = rest.strip_prefix('$').map_or("", |rest| {
            &rest[..rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len())]
        });
        let Some((name, value)) = given.iter().find(|(name, _)| *name == word) else {
            out.push(first);
            rest = &rest[first.len_utf8()..];
            continue;
        };
        let at = values.iter().position(|(known, _)| known == name).unwrap_or_else(|| {
            values.push((name, value.clone()));
            values.len() - 1
        });
        out.push_str(&format!("${}", at + 1));
        rest = &rest[1 + word.len()..];
    }
    (out, values.into_iter().map(|(_, value)| value).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_become_numbers_outside_of_quotes() {
        let given = [("day", json!("2026-11-19")), ("run", json!(7))];
        let sql = "SELECT '$day', \"$day\", $run, $day -- $day\n, $day, $days, 'it''s $run' /* $run */ FROM é";
        let (text, values) = numbered(sql, &given);
        assert_eq!(text, "SELECT '$day', \"$day\", $1, $2 -- $day\n, $2, $days, 'it''s $run' /* $run */ FROM é");
        assert_eq!(values, [json!(7), json!("2026-11-19")]);
        assert_eq!(numbered("SELECT 'open $day", &given), ("SELECT 'open $day".into(), vec![]));
    }
}
