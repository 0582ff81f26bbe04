//! The text of `CREATE STREAM`: the derived stream's name, and per SELECT the stream it reads, the stream and tables it joins, and
//! the query.

use datafusion::sql::sqlparser::ast::{
    Expr, GroupByExpr, Ident, ObjectName, Query, Select, SelectItem, SetExpr, SetOperator, SetQuantifier, TableFactor,
};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::Token;

use super::within::{Within, take_within};
use crate::names::{is_topic_name, normalized, single_name};
use crate::parse_emit::{Emit, tokens_and_emit};
use crate::unnest::{ParsedUnnest, take_unnest};

/// The column that says which row of the step a result comes from, below the SELECT.
pub(super) const ROW: &str = "_row";
/// The same in the result.
pub(super) const SOURCE_ROW: &str = "_source_row";

/// Most SELECTs that UNION ALL puts together in one stream.
pub(crate) const BRANCHES_MAX: u8 = 16;

const FORM: &str =
    "write CREATE STREAM name AS SELECT … FROM stream [LEFT JOIN table ON stream.column = table.key] [WHERE …]";

/// A derived stream's text, taken apart.
pub(crate) struct ParsedStream {
    pub(crate) name: String,
    /// Its SELECTs; more than one where there is UNION ALL.
    pub(crate) branches: Vec<ParsedBranch>,
}

/// One SELECT of a derived stream.
pub(crate) struct ParsedBranch {
    /// The stream it reads.
    pub(crate) stream: String,
    /// What it joins: tables, and one more stream.
    pub(crate) joined: Vec<String>,
    /// How near in event time rows of both streams are, as `WITHIN` says, in milliseconds.
    pub(super) within_ms: Option<i64>,
    /// The list in FROM that is taken apart.
    pub(super) unnest: Option<ParsedUnnest>,
    /// The query, with the source's row number as one more column.
    pub(super) query: Query,
}

/// Takes a derived stream's text apart; Err says what to write instead.
pub(crate) fn parse_stream(sql: &str) -> Result<ParsedStream, String> {
    let (name, query, within) = statement(sql).map_err(|error| format!("{error}; {FORM}"))?;
    let name = single_name(&name).ok_or("a stream's name has one part, without dots outside quotes")?;
    if !is_topic_name(&name) {
        return Err(format!(
            "stream name '{name}' must be 1 to 200 letters, digits, '.', '_' or '-', as it names a topic too"
        ));
    }
    let selects = selects(query)?;
    if selects.len() > usize::from(BRANCHES_MAX) {
        return Err(format!("a stream has at most {BRANCHES_MAX} SELECTs: put some together in a stream of their own"));
    }
    let branches = (0..).zip(selects).map(|(number, query)| branch(query, within.get(&number).copied()));
    let branches = branches.collect::<Result<_, _>>()?;
    Ok(ParsedStream { name, branches })
}

fn branch(mut query: Query, within_ms: Option<i64>) -> Result<ParsedBranch, String> {
    let select = plain_select(&mut query)?;
    check_items(select)?;
    let unnest = take_unnest(select)?;
    let [from] = select.from.as_slice() else {
        return Err("a derived stream reads FROM exactly one stream; a second one, and tables, are joined".into());
    };
    let (stream, alias) = relation(&from.relation)?;
    let mut joined = Vec::new();
    for join in &from.joins {
        joined.push(relation(&join.relation)?.0);
    }
    select.projection.push(SelectItem::ExprWithAlias {
        expr: Expr::CompoundIdentifier(vec![Ident::with_quote('"', alias), Ident::with_quote('"', ROW)]),
        alias: Ident::with_quote('"', SOURCE_ROW),
    });
    Ok(ParsedBranch { stream, joined, within_ms, unnest, query })
}

fn statement(sql: &str) -> Result<(ObjectName, Query, Within), ParserError> {
    // A stream tells each row at once, which is what ksqlDB calls EMIT CHANGES.
    let (mut tokens, emit) = tokens_and_emit(sql)?;
    let within = take_within(&mut tokens)?;
    if emit == Some(Emit::Final) {
        return Err(ParserError::ParserError("EMIT FINAL is for views that have windows".into()));
    }
    let mut parser = Parser::new(&GenericDialect {}).with_tokens_with_locations(tokens);
    parser.expect_keyword(Keyword::CREATE)?;
    parser.expect_keyword(Keyword::STREAM)?;
    let name = parser.parse_object_name(false)?;
    parser.expect_keyword(Keyword::AS)?;
    let query = parser.parse_query()?;
    let _ = parser.consume_token(&Token::SemiColon);
    match parser.peek_token().token {
        Token::EOF => Ok((name, *query, within)),
        other => Err(ParserError::ParserError(format!("'{other}' after the query"))),
    }
}

/// The SELECTs of a query in their order, each as a query of its own.
fn selects(query: Query) -> Result<Vec<Query>, String> {
    check_clauses(&query)?;
    let mut left = vec![query.body.as_ref().clone()];
    let mut found = Vec::new();
    while let Some(body) = left.pop() {
        match body {
            SetExpr::Select(_) => found.push(Query { body: Box::new(body), ..query.clone() }),
            SetExpr::Query(inner) => {
                check_clauses(&inner)?;
                left.push(*inner.body);
            }
            SetExpr::SetOperation {
                op: SetOperator::Union,
                set_quantifier: SetQuantifier::All,
                left: first,
                right,
            } => {
                left.extend([*right, *first]);
            }
            SetExpr::SetOperation { op: SetOperator::Union, .. } => {
                return Err("UNION would keep every row for ever to find those that are equal: write UNION ALL".into());
            }
            other => {
                return Err(format!(
                    "'{other}' is not supported in a derived stream, write SELECT … UNION ALL SELECT …"
                ));
            }
        }
    }
    Ok(found)
}

fn check_clauses(query: &Query) -> Result<(), String> {
    if query.with.is_some() {
        return Err("WITH is not supported in a derived stream, write one SELECT".into());
    }
    if query.order_by.is_some() || query.limit_clause.is_some() || query.fetch.is_some() {
        return Err("ORDER BY and LIMIT do not belong in a stream, which never ends".into());
    }
    Ok(())
}

fn plain_select(query: &mut Query) -> Result<&mut Select, String> {
    let SetExpr::Select(select) = query.body.as_mut() else {
        return Err("write SELECT … FROM stream".into());
    };
    let groups = !matches!(&select.group_by, GroupByExpr::Expressions(groups, _) if groups.is_empty());
    if groups || select.having.is_some() {
        return Err("GROUP BY makes a view: declare a materialized view over the stream".into());
    }
    if select.distinct.is_some() {
        return Err("DISTINCT would keep every row for ever, use deduplicate = { by = […], within = \"…\" }".into());
    }
    Ok(select)
}

/// What is not a plain column needs a name: it becomes a JSON field.
fn check_items(select: &Select) -> Result<(), String> {
    for item in &select.projection {
        match item {
            SelectItem::UnnamedExpr(Expr::Identifier(ident)) if !ident.value.starts_with('_') => {}
            SelectItem::UnnamedExpr(Expr::CompoundIdentifier(parts))
                if parts.last().is_some_and(|ident| !ident.value.starts_with('_')) => {}
            SelectItem::UnnamedExpr(expr) => return Err(format!("'{expr}' needs a name, write {expr} AS some_name")),
            _ => {}
        }
    }
    Ok(())
}

/// The name of a stream or table, and the one it goes by in the query.
fn relation(factor: &TableFactor) -> Result<(String, String), String> {
    match factor {
        TableFactor::Table { name, alias, args: None, .. } => {
            let name = single_name(name).ok_or_else(|| format!("'{name}' is not a name of one part"))?;
            let alias = alias.as_ref().map_or_else(|| name.clone(), |alias| normalized(&alias.name));
            Ok((name, alias))
        }
        other => Err(format!("'{other}' is not supported in FROM, name a stream, and tables after JOIN")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_out() {
        let parsed = parse_stream(
            "create stream Enriched as select l.*, u.segment from Listens l left join users u on l.user_id = u.user_id \
             join \"Countries\" on l.country = \"Countries\".country emit changes;",
        );
        let parsed = parsed.unwrap();
        let [only] = parsed.branches.as_slice() else { panic!("{}", parsed.branches.len()) };
        assert_eq!((parsed.name.as_str(), only.stream.as_str(), only.within_ms), ("enriched", "listens", None));
        assert_eq!(only.joined, ["users", "Countries"]);
        assert!(only.query.to_string().contains("\"l\".\"_row\" AS \"_source_row\""), "{}", only.query);
    }

    #[test]
    fn selects_come_in_their_order() {
        let parsed = parse_stream(
            "create stream d as select x from a union all (select x from b join t on b.x = t.x union all select x from c) \
             union all select x from a where x > 0",
        );
        let streams: Vec<String> = parsed.unwrap().branches.into_iter().map(|branch| branch.stream).collect();
        assert_eq!(streams, ["a", "b", "c", "a"]);
        let many = format!("CREATE STREAM d AS SELECT x FROM s{}", " UNION ALL SELECT x FROM s".repeat(16));
        assert!(parse_stream(&many).err().unwrap().contains("at most 16"));
    }

    #[test]
    fn two_streams_are_joined_within_a_time() {
        let parsed = parse_stream(
            "CREATE STREAM d AS SELECT o.x FROM o JOIN p WITHIN 90 SECONDS ON o.id = p.id UNION ALL SELECT x FROM q \
             UNION ALL SELECT p.x FROM p LEFT JOIN o WITHIN 1 DAY ON o.id = p.id",
        );
        let within: Vec<_> =
            parsed.unwrap().branches.into_iter().map(|branch| (branch.joined, branch.within_ms)).collect();
        let joined = |name: &str, ms: i64| (vec![name.to_string()], Some(ms));
        assert_eq!(within, [joined("p", 90_000), (Vec::new(), None), joined("o", 86_400_000)]);
    }

    #[test]
    fn what_is_refused_says_what_to_write() {
        let cases = [
            ("SELECT 1", "write CREATE STREAM"),
            ("CREATE STREAM a.b AS SELECT x FROM s", "one part"),
            ("CREATE STREAM d AS SELECT upper(x) FROM s", "needs a name"),
            ("CREATE STREAM d AS SELECT _offset FROM s", "needs a name"),
            ("CREATE STREAM d AS SELECT x FROM s GROUP BY x", "materialized view"),
            ("CREATE STREAM d AS SELECT DISTINCT x FROM s", "deduplicate"),
            ("CREATE STREAM d AS SELECT x FROM s ORDER BY x", "never ends"),
            ("CREATE STREAM d AS SELECT x FROM s UNION SELECT x FROM t", "write UNION ALL"),
            ("CREATE STREAM d AS SELECT x FROM s EXCEPT SELECT x FROM t", "write SELECT … UNION ALL"),
            ("CREATE STREAM d AS SELECT x FROM s UNION ALL (SELECT x FROM t LIMIT 1)", "never ends"),
            ("CREATE STREAM d AS SELECT x FROM s UNION ALL SELECT x FROM t GROUP BY x", "materialized view"),
            ("CREATE STREAM d AS SELECT x FROM s, t", "exactly one stream"),
            ("CREATE STREAM d AS SELECT x FROM (SELECT 1 AS x) AS y", "name a stream"),
            ("CREATE STREAM d AS SELECT x FROM s; SELECT 1", "after the query"),
            ("CREATE STREAM d AS SELECT x FROM s EMIT FINAL", "views that have windows"),
        ];
        for (sql, expected) in cases {
            let mistake = parse_stream(sql).err().unwrap_or_default();
            assert!(mistake.contains(expected), "{sql}: {mistake}");
        }
    }
}
