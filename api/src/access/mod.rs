//! Who may use the HTTP port, and what of the data they see.
//!
//! A request goes: `gate` (which scope its route needs) → [`Access::admit`] (whose token it carries) → a [`Caller`] that the
//! handlers take: it hands SQL its reader, and refuses topics and views that the token does not reach. What a reader sees
//! of each table is decided in the lake (`lake::Reader`), where queries are planned; `lineage` says which tables come from
//! those that a token sees in part.

mod gate;
mod lineage;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use engine::{Answer as ViewAnswer, Engine, Guard, Made, ReadRequest};
use lake::{Lake, Reader, Sight, matches};
use parking_lot::RwLock;

use crate::app::App;
use crate::base64::unbase64;
use crate::config::{Config, Scopes, SinkKind, SinkSource, TokenConfig};
use crate::error::{Answer, Problem};

pub use gate::{Need, gate, problem, registry_gate};
use lineage::{Lineage, Node};

/// Most bytes of an Authorization header that are looked at.
const HEADER_BYTES_MAX: usize = 4_096;

/// The tokens of the server; none: everybody may do everything. Tokens never change while it runs, but what they reach
/// does, with what is declared.
pub struct Access {
    tokens: RwLock<Arc<[(TokenConfig, Caller)]>>,
    /// What the configuration says beside streams, tables and views.
    beside: Lineage,
}

/// Who asks, as far as the handlers care.
#[derive(Clone, Debug)]
pub struct Caller(Arc<Rights>);

#[derive(Debug)]
struct Rights {
    /// The token's name; none where no tokens are declared.
    name: Option<String>,
    scopes: Scopes,
    /// Patterns of names.
    data: Vec<String>,
    /// None: sees everything.
    reader: Option<Arc<Reader>>,
    /// The topics whose records may be looked at; none: all that the patterns name.
    topics: Option<BTreeSet<String>>,
}

/// Why a request is not admitted.
#[derive(Debug, PartialEq)]
pub enum Refusal {
    /// It carries no token.
    Missing,
    /// It carries one that is not known.
    Unknown,
    /// The token named so may not do this: the scope that is missing.
    Scope(String, &'static str),
}

impl Access {
    /// The tokens, checked against the tables that there are.
    ///
    /// # Errors
    /// One line for each filter that names no table or does not fit its columns.
    pub fn new(config: &Config, engine: &Engine, lake: &Lake) -> Result<Access, Vec<String>> {
        let mut mistakes = Vec::new();
        for token in &config.tokens {
            for (table, filter) in &token.filters {
                let fits = match lake.columns(table) {
                    None => Err("there is no such table".to_owned()),
                    Some(schema) => Guard::new(&schema, filter.condition.as_deref(), &filter.masked).map(|_| ()),
                };
                if let Err(mistake) = fits {
                    mistakes.push(format!("token {}: filter of {table}: {mistake}", token.name));
                }
            }
        }
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
        let beside = beside(config);
        let lineage = lineage(&beside, engine, lake);
        let caller = |token: &TokenConfig| (token.clone(), Caller(Arc::new(rights(token, &lineage))));
        let tokens = RwLock::new(config.tokens.iter().map(caller).collect());
        Ok(Access { tokens, beside })
    }

    /// Looks again at what is computed from what, with what is about to be made.
    pub fn follow(&self, engine: &Engine, lake: &Lake, made: &[Made]) {
        let mut lineage = lineage(&self.beside, engine, lake);
        made.iter().for_each(|made| lineage.add(made));
        let mut tokens = self.tokens.write();
        let caller = |token: &TokenConfig| (token.clone(), Caller(Arc::new(rights(token, &lineage))));
        *tokens = tokens.iter().map(|(token, _)| caller(token)).collect();
    }

    /// The tokens that have a filter for a table.
    pub fn filters_of(&self, table: &str) -> Vec<String> {
        let tokens = self.tokens.read();
        let filtering = tokens.iter().filter(|(token, _)| token.filters.contains_key(table));
        filtering.map(|(token, _)| format!("token {} (a filter)", token.name)).collect()
    }

    /// Whose request it is.
    ///
    /// # Errors
    /// No token, or one that is not known.
    pub fn admit(&self, headers: &HeaderMap) -> Result<Caller, Refusal> {
        let tokens = self.tokens.read().clone();
        if tokens.is_empty() {
            return Ok(Caller::everyone());
        }
        let Some(value) = headers.get(header::AUTHORIZATION) else { return Err(Refusal::Missing) };
        let text = value.to_str().ok().filter(|text| text.len() <= HEADER_BYTES_MAX).ok_or(Refusal::Unknown)?;
        let (user, secret) = credentials(text).ok_or(Refusal::Unknown)?;
        // Every token is compared, so that the time does not tell which one is near.
        let mut found = None;
        for (token, caller) in tokens.iter() {
            if token.secret.is(&secret) && user.as_ref().is_none_or(|user| *user == token.name) {
                found = Some(caller.clone());
            }
        }
        found.ok_or(Refusal::Unknown)
    }

    /// Whether every request is taken.
    pub fn is_open(&self) -> bool {
        self.tokens.read().is_empty()
    }

    /// Says it in the log when a port can be reached from elsewhere and asks for nothing.
    pub fn warn_when_open(&self, address: SocketAddr, what: &str) {
        if self.is_open() && !address.ip().is_loopback() {
            tracing::warn!(
                %address,
                "{what} can be reached from other machines and takes every request: declare [[tokens]], or bind 127.0.0.1"
            );
        }
    }
}

fn rights(token: &TokenConfig, lineage: &Lineage) -> Rights {
    let filtered: BTreeSet<String> = token.filters.keys().cloned().collect();
    let (tainted, topics) = lineage.taint(&filtered);
    let everything = filtered.is_empty() && token.data.iter().any(|pattern| pattern == "*");
    let reader = Reader {
        name: token.name.clone(),
        names: token.data.clone(),
        filters: token.filters.clone(),
        tainted: tainted.into_iter().filter(|(name, _)| !filtered.contains(name)).collect::<BTreeMap<_, _>>(),
    };
    Rights {
        name: Some(token.name.clone()),
        scopes: token.scopes.clone(),
        data: token.data.clone(),
        reader: (!everything).then(|| Arc::new(reader)),
        topics: (!filtered.is_empty()).then_some(topics),
    }
}

/// `Bearer TOKEN`, or `Basic` with the token's name and the token, as registry clients send `basic.auth.user.info`.
fn credentials(text: &str) -> Option<(Option<String>, String)> {
    let (kind, rest) = text.split_once(' ')?;
    let rest = rest.trim();
    if kind.eq_ignore_ascii_case("bearer") {
        return Some((None, rest.to_owned()));
    }
    if !kind.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = String::from_utf8(unbase64(rest)?).ok()?;
    let (user, secret) = text.split_once(':')?;
    Some((Some(user.to_owned()), secret.to_owned()))
}

impl Caller {
    /// Where no tokens are declared.
    pub fn everyone() -> Caller {
        Caller(Arc::new(Rights {
            name: None,
            scopes: Scopes { read: true, write: true, admin: true },
            data: vec!["*".to_owned()],
            reader: None,
            topics: None,
        }))
    }

    /// The token's name; none where no tokens are declared.
    pub fn name(&self) -> Option<&str> {
        self.0.name.as_deref()
    }

    /// Refuses what needs a scope that the token has not.
    ///
    /// # Errors
    /// The scope.
    pub fn may(&self, need: Need) -> Result<(), Refusal> {
        let rights = &self.0;
        let name = || rights.name.clone().unwrap_or_default();
        let missing = match need {
            Need::Nothing => None,
            Need::Read => (!rights.scopes.read).then_some("read"),
            Need::ReadAll if !rights.scopes.read => Some("read"),
            Need::ReadAll => rights.reader.is_some().then_some("read, with data = [\"*\"] and no filters"),
            Need::Write => (!rights.scopes.write).then_some("write"),
            Need::Admin => (!rights.scopes.admin).then_some("admin"),
        };
        missing.map_or(Ok(()), |scope| Err(Refusal::Scope(name(), scope)))
    }

    /// Refuses to register what belongs to a topic that the token does not name.
    ///
    /// # Errors
    /// The scope that it would need.
    pub fn may_write(&self, topic: &str) -> Result<(), Refusal> {
        if self.names(topic) {
            return Ok(());
        }
        Err(Refusal::Scope(self.0.name.clone().unwrap_or_default(), "write, with the subject's topic in its data"))
    }

    /// How SQL sees the caller; none: one who sees everything.
    pub fn reader(&self) -> Option<Arc<Reader>> {
        self.0.reader.clone()
    }

    /// Whether the caller sees something of a table or view.
    pub fn sees(&self, table: &str) -> bool {
        sees(self.0.reader.as_deref(), table)
    }

    /// Refuses a table of which the caller sees nothing.
    ///
    /// # Errors
    /// 403.
    pub fn check_seen(&self, table: &str) -> Answer<()> {
        match self.0.reader.as_deref().map_or(Sight::Whole, |reader| reader.sight(table)) {
            Sight::Closed(why) => Err(Problem::forbidden(why)),
            Sight::Whole | Sight::Part(_) => Ok(()),
        }
    }

    /// Refuses a table that the caller does not see whole.
    ///
    /// # Errors
    /// 403.
    pub fn check_whole(&self, table: &str) -> Answer<()> {
        match self.0.reader.as_deref().map_or(Sight::Whole, |reader| reader.sight(table)) {
            Sight::Whole => Ok(()),
            Sight::Closed(why) => Err(Problem::forbidden(why)),
            Sight::Part(_) => {
                Err(Problem::forbidden(format!("the token sees a part of {table}: ask POST /v1/sql for it")))
            }
        }
    }

    /// Whether the token names a topic, a stream or a subject.
    pub fn names(&self, name: &str) -> bool {
        self.0.data.iter().any(|pattern| matches(pattern, name))
    }

    /// Refuses a name that the token does not reach.
    ///
    /// # Errors
    /// 403.
    pub fn check_name(&self, name: &str) -> Answer<()> {
        if self.names(name) {
            return Ok(());
        }
        let token = self.0.name.clone().unwrap_or_default();
        Err(Problem::forbidden(format!("the token {token} does not reach {name}: add it to the token's data")))
    }

    /// Refuses a look at the records of a topic that holds rows which the caller may not see.
    ///
    /// # Errors
    /// 403.
    pub fn check_records(&self, topic: &str) -> Answer<()> {
        self.check_name(topic)?;
        match &self.0.topics {
            Some(clean) if !clean.contains(topic) => {
                let token = self.0.name.clone().unwrap_or_default();
                Err(Problem::forbidden(format!(
                    "the token {token} sees a part of some tables, and records of {topic} may hold the rest: ask POST /v1/sql, or use a token without filters"
                )))
            }
            _ => Ok(()),
        }
    }
}

/// The caller of a request; the gate has put it there.
impl FromRequestParts<Arc<App>> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<App>) -> Result<Caller, Problem> {
        let caller = parts.extensions.get::<Caller>().cloned();
        caller.ok_or_else(|| Problem::internal("a request came past the gate: report it"))
    }
}

/// Whether a reader sees something of a table or view.
pub fn sees(reader: Option<&Reader>, table: &str) -> bool {
    reader.is_none_or(|reader| !matches!(reader.sight(table), Sight::Closed(_)))
}

/// Reads a view as one reader sees it.
///
/// # Errors
/// As [`Engine::read`]; 403 when it is closed to the reader.
pub async fn read_view(
    engine: &Engine,
    view: &str,
    request: ReadRequest,
    reader: Option<&Reader>,
) -> Answer<ViewAnswer> {
    let guard = match reader.map_or(Sight::Whole, |reader| reader.sight(view)) {
        Sight::Whole => None,
        Sight::Closed(why) => return Err(Problem::forbidden(why)),
        Sight::Part(filter) => {
            let info = engine.views().into_iter().find(|info| info.name == view);
            let info = info.ok_or_else(|| Problem::not_found(format!("no view {view}: GET /v1/views lists them")))?;
            let guard = Guard::new(&info.schema, filter.condition.as_deref(), &filter.masked);
            Some(match (guard, engine.filling(view)) {
                // The filter is written for the columns that are declared.
                (guard, Some(filling)) if guard.is_err() || !filling.knows(&info.schema) => {
                    return Err(Problem::filling(&filling, "the token's filter"));
                }
                (Ok(guard), _) => guard,
                (Err(mistake), _) => {
                    let message = format!("the token's filter for {view} does not fit it: {mistake}: mend the filter");
                    return Err(Problem::forbidden(message));
                }
            })
        }
    };
    Ok(engine.read_guarded(view, request, guard).await?)
}

/// The lineage of what runs, on top of what the configuration says beside.
fn lineage(beside: &Lineage, engine: &Engine, lake: &Lake) -> Lineage {
    let mut lineage = beside.clone();
    lineage.add_running(engine, lake);
    lineage
}

/// The topics into which notices and refused records of sources and sinks go.
fn beside(config: &Config) -> Lineage {
    let mut lineage = Lineage::default();
    let alerts = config.work.alerts.iter().map(|alert| &alert.channels);
    let channels = alerts.chain(config.work.jobs.iter().map(|job| &job.channels));
    channels.filter_map(|channels| channels.topic.as_deref()).for_each(|topic| lineage.mixes(topic));
    for source in &config.sources {
        lineage.refuses(Node::Topic(source.topic.clone()), &source.name);
    }
    for sink in &config.work.sinks {
        let SinkKind::Postgres(postgres) = &sink.kind else { continue };
        let (SinkSource::Stream(from) | SinkSource::View(from)) = &postgres.source;
        lineage.refuses(Node::Table(from.clone()), &sink.name);
    }
    lineage
}

#[cfg(test)]
mod unit {
    use broker::HashedSecret;

    use super::*;

    fn token(name: &str, secret: &str) -> TokenConfig {
        TokenConfig {
            name: name.into(),
            secret: HashedSecret::of(secret),
            scopes: Scopes { read: true, write: false, admin: false },
            data: vec!["*".into()],
            filters: BTreeMap::new(),
        }
    }

    fn access() -> Access {
        let tokens = [token("a", "secret-of-a"), token("b", "secret-of-b")];
        let caller = |token: &TokenConfig| (token.clone(), Caller(Arc::new(rights(token, &Lineage::default()))));
        Access { tokens: RwLock::new(tokens.iter().map(caller).collect()), beside: Lineage::default() }
    }

    fn admitted(value: &str) -> Result<String, Refusal> {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, value.parse().unwrap());
        access().admit(&headers).map(|caller| caller.0.name.clone().unwrap())
    }

    #[test]
    fn bearer_and_basic_name_a_token() {
        assert_eq!(admitted("Bearer secret-of-b").unwrap(), "b");
        assert_eq!(admitted("bearer  secret-of-a").unwrap(), "a");
        // a:secret-of-a, b:secret-of-a
        assert_eq!(admitted("Basic YTpzZWNyZXQtb2YtYQ==").unwrap(), "a");
        assert_eq!(admitted("Basic YjpzZWNyZXQtb2YtYQ==").unwrap_err(), Refusal::Unknown);
        for wrong in ["Bearer secret-of-c", "Bearer", "Bearer ", "Basic !", "Basic YQ==", "Digest secret-of-a"] {
            assert_eq!(admitted(wrong).unwrap_err(), Refusal::Unknown, "{wrong}");
        }
        assert_eq!(access().admit(&HeaderMap::new()).unwrap_err(), Refusal::Missing);
        let open = Access { tokens: RwLock::default(), beside: Lineage::default() };
        assert!(open.admit(&HeaderMap::new()).unwrap().may(Need::Admin).is_ok());
    }

    #[test]
    fn a_scope_that_is_missing_is_named() {
        let caller = &access().tokens.read()[0].1.clone();
        assert!(caller.may(Need::Read).is_ok() && caller.may(Need::ReadAll).is_ok());
        assert_eq!(caller.may(Need::Write).unwrap_err(), Refusal::Scope("a".into(), "write"));
        let narrow = TokenConfig { data: vec!["plays*".into()], ..token("c", "secret-of-c") };
        let narrow = Caller(Arc::new(rights(&narrow, &Lineage::default())));
        assert!(narrow.may(Need::ReadAll).is_err() && narrow.sees("plays_day") && !narrow.sees("users"));
        assert_eq!(narrow.check_records("users").unwrap_err().status(), 403);
        assert!(narrow.check_records("plays").is_ok());
    }
}
