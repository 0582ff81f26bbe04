//! Queries as of an earlier answer: its offsets say what was in the log then. A stream gives the rows below them, from files and log. A
//! view has no past, it is computed again: from the rows below the offsets, but those that it has on record as late or as not to be
//! evaluated, by the query that `proof` verifies it with.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use broker::{Broker, Offset, PartitionIndex};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{Column, Result as DfResult};
use datafusion::datasource::{MemTable, TableType};
use datafusion::error::DataFusionError;
use datafusion::execution::context::SessionState;
use datafusion::logical_expr::{Expr, LogicalPlanBuilder, TableProviderFilterPushDown, cast};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::scalar::ScalarValue;
use engine::{DeclaredView, NotCounted, ReadRequest, ViewInfo, window_bounds};

use crate::Offsets;
use crate::bounded;
use crate::error::{LakeError, LakeErrorKind, Result};
use crate::proof::{NOT_COUNTED, Scope, moment, not_counted, quoted, statement};
use crate::query::{Queries, SqlRequest};
use crate::session::{Reads, Room};

/// The offsets of one topic: of each partition the end of what is read; one that is not there had no records.
pub type Ends = BTreeMap<PartitionIndex, Offset>;

/// What a view is computed again from.
pub struct Declared {
    /// Its declaration.
    pub view: DeclaredView,
    /// The rows that it did not count.
    pub not_counted: Vec<NotCounted>,
    /// Whether these are all.
    pub is_whole: bool,
}

/// Checks that what a query names has a past, and gives the views among it as they were.
///
/// # Errors
/// `Refused` for offsets that do not fit, and for names that are only known as of now; `NotFresh`.
pub async fn prepare(
    queries: &Queries,
    named: &BTreeSet<String>,
    (at, applied): (&Offsets, &Offsets),
    room: &Room,
    reads: &mut Reads,
) -> Result<()> {
    let source = queries.source();
    check_topics(at, &source.broker)?;
    if let Some(table) = source.written.iter().find(|table| named.contains(&table.config.name)) {
        return Err(only_now(&table.config.name));
    }
    let views = source.views.names();
    for name in named.iter().filter(|name| views.contains(name)) {
        let declared = source.views.declared(name).await?.ok_or_else(|| only_now(name))?;
        let topic = declared.view.stream.topic();
        let ends = ends(at, topic, name)?;
        let behind = |(index, end): &(&PartitionIndex, &Offset)| {
            let reached = applied.get(topic).and_then(|applied| applied.get(index));
            reached.is_some_and(|reached| reached < end)
        };
        if let Some((index, end)) = ends.iter().find(behind) {
            let message = format!("{name} has not read {topic}-{index} up to offset {end} yet: ask again");
            let offsets = Some(applied.clone());
            return Err(LakeError { offsets, ..LakeError::new(LakeErrorKind::NotFresh, message) });
        }
        // who may read the view may read what it was, whether or not they may read its stream
        let room = Room { reader: None, ..room.clone() };
        let view = PastView::new(queries, declared, ends.clone(), &room, reads).await?;
        reads.past.insert(name.clone(), Arc::new(view));
    }
    Ok(())
}

/// The offsets of the topic that a table is made of.
///
/// # Errors
/// `Refused` when there are none.
pub fn ends<'a>(at: &'a Offsets, topic: &str, table: &str) -> Result<&'a Ends> {
    at.get(topic).ok_or_else(|| {
        refused(format!(
            "the offsets to read at do not name the topic {topic}, of which {table} is made: give those of an answer over {table}"
        ))
    })
}

fn check_topics(at: &Offsets, broker: &Broker) -> Result<()> {
    for (topic, ends) in at {
        let known = broker.catalog().topic(topic).ok_or_else(|| {
            refused(format!(
                "the offsets to read at name the topic {topic}, which is not there: give those of an answer"
            ))
        })?;
        let count = known.partitions().len();
        let fits = |index: &PartitionIndex| usize::try_from(*index).is_ok_and(|index| index < count);
        if let Some((index, end)) = ends.iter().find(|(index, end)| !fits(index) || **end < 0) {
            return Err(refused(format!(
                "offset {end} of {topic}-{index} cannot be read at: the topic has {count} partitions, and offsets begin at 0"
            )));
        }
    }
    Ok(())
}

/// The query for the rows of a view as they were: what a read of the view gives as of now, `limit` aside.
///
/// # Errors
/// `Refused` for a value that a column cannot have, and for times where there are no windows.
pub fn view_query(view: &ViewInfo, request: &ReadRequest, at: Arc<Offsets>) -> Result<SqlRequest> {
    let columns: Vec<String> = view.schema.fields().iter().map(|field| quoted(field.name())).collect();
    let (mut conditions, mut params) = (Vec::new(), Vec::new());
    for (bound, is) in [(request.from, ">="), (request.to, "<")] {
        let Some(bound) = bound else { continue };
        if view.windows.is_none() {
            return Err(refused(format!("view {} has no window, leave out from and to", view.name)));
        }
        conditions.push(format!("window_start {is} {}", moment(bound)));
    }
    for (name, text) in &request.keys {
        let field = view.schema.field_with_name(name);
        let value = field.ok().and_then(|field| ScalarValue::try_from_string(text.clone(), field.data_type()).ok());
        let value = value.and_then(|value| value.cast_to(&DataType::Utf8).ok());
        let value =
            value.ok_or_else(|| refused(format!("'{text}' is not a value of column '{name}' of {}", view.name)))?;
        params.push(serde_json::Value::from(value.to_string()));
        conditions.push(format!("CAST({} AS VARCHAR) = ${}", quoted(name), params.len()));
    }
    let word = |(name, descending): &(String, bool)| {
        format!("{} {} NULLS LAST", quoted(name), if *descending { "DESC" } else { "ASC" })
    };
    let window = view.windows.map(|_| "window_start".to_owned());
    let keys = view.keys.iter().map(|key| format!("{} ASC NULLS FIRST", quoted(key)));
    let order: Vec<String> = request.order.iter().map(word).chain(window).chain(keys).collect();
    let conditions = if conditions.is_empty() { "TRUE".into() } else { conditions.join(" AND ") };
    let order = if order.is_empty() { String::new() } else { format!(" ORDER BY {}", order.join(", ")) };
    let sql = format!("SELECT {} FROM {} WHERE {conditions}{order}", columns.join(", "), quoted(&view.name));
    Ok(SqlRequest {
        sql,
        params,
        row_limit: request.limit.unwrap_or(usize::MAX),
        at: Some(at),
        ..SqlRequest::default()
    })
}

fn only_now(name: &str) -> LakeError {
    refused(format!(
        "{name} is known only as it is now: leave it out of a query at earlier offsets, or leave out the offsets"
    ))
}

fn refused(message: String) -> LakeError {
    LakeError::new(LakeErrorKind::Refused, message)
}

/// A view as it was when its stream ended at some offsets. Windows that are gone from it by its retention are there again.
struct PastView {
    view: DeclaredView,
    ends: Ends,
    has_exceptions: bool,
    schema: SchemaRef,
    /// Where it is computed.
    state: SessionState,
    memory_bytes: usize,
}

impl PastView {
    async fn new(queries: &Queries, declared: Declared, ends: Ends, room: &Room, reads: &mut Reads) -> Result<Self> {
        let Declared { view, not_counted: rows, is_whole } = declared;
        if !is_whole {
            reads.notes.push(format!(
                "the oldest records of {}.late or {}.rejected are gone: rows that they told of are counted",
                view.name,
                view.stream.name()
            ));
        }
        let rows: Vec<NotCounted> = rows.into_iter().filter(|row| is_below(&ends, row)).collect();
        let table = not_counted(&rows)?;
        let table = MemTable::try_new(table.schema(), vec![vec![table]]).map_err(|e| queries.explain(&e))?;
        let own: (&str, Arc<dyn TableProvider>) = (NOT_COUNTED, Arc::new(table));
        let state = queries.computing(view.stream.name(), own, room, reads).await?;
        // what SQL computes may be null by its types where the view's columns are not
        let fields: Vec<Field> =
            view.schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect();
        let (schema, memory_bytes) = (Arc::new(Schema::new(fields)), queries.limits().memory_bytes);
        Ok(Self { view, ends, has_exceptions: !rows.is_empty(), schema, state, memory_bytes })
    }

    async fn plan(&self, projection: Option<&Vec<usize>>, filters: &[Expr]) -> DfResult<Arc<dyn ExecutionPlan>> {
        let (from, to) = if self.view.windows.is_some() { window_bounds(filters) } else { (None, None) };
        let scope = Scope { ends: &self.ends, from, to, has_exceptions: self.has_exceptions };
        let made = statement(&self.view, &scope).map_err(|why| {
            let error = refused(format!("view {} cannot be computed again as it was: {why}", self.view.name));
            DataFusionError::External(Box::new(error))
        })?;
        let dialect = self.state.config_options().sql_parser.dialect;
        let statement = self.state.sql_to_statement(&made.sql, &dialect)?;
        let plan = bounded::share(self.state.statement_to_plan(statement).await?, self.memory_bytes)?;
        let seen = match projection {
            Some(wanted) => Arc::new(self.schema.project(wanted)?),
            None => self.schema.clone(),
        };
        let column = |field: &Arc<Field>| {
            cast(Expr::Column(Column::from_name(field.name())), field.data_type().clone()).alias(field.name())
        };
        let plan = LogicalPlanBuilder::from(plan).project(seen.fields().iter().map(column))?.build()?;
        self.state.create_physical_plan(&plan).await
    }
}

/// Whether a row is one of those that are read.
pub fn is_below(ends: &Ends, row: &NotCounted) -> bool {
    ends.get(&row.partition).is_some_and(|end| row.offset < *end)
}

impl fmt::Debug for PastView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PastView {} read to: {:?}", self.view.name, self.ends)
    }
}

impl TableProvider for PastView {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    // What `#[async_trait]` makes of `async fn scan`, written out.
    fn scan<'this, 'session, 'columns, 'filters, 'call>(
        &'this self,
        _state: &'session dyn Session,
        projection: Option<&'columns Vec<usize>>,
        filters: &'filters [Expr],
        _limit: Option<usize>,
    ) -> Pin<Box<dyn Future<Output = DfResult<Arc<dyn ExecutionPlan>>> + Send + 'call>>
    where
        'this: 'call,
        'session: 'call,
        'columns: 'call,
        'filters: 'call,
        Self: 'call,
    {
        Box::pin(self.plan(projection, filters))
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> DfResult<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }
}
