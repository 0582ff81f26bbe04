//! A derived stream, compiled: the joins, the SELECT above them, the columns that come out, checks and de-duplication. Of
//! several SELECTs each is a plan of its own, and works in the pipeline of what it reads. Where two streams are joined, the SELECT is
//! over rows that met.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, UInt32Array};
use arrow::compute::{CastOptions, cast_with_options, concat_batches};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt32Type};
use broker::Store;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DataFusionError, Result as DfResult};
use datafusion::datasource::empty::EmptyTable;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::execution::TaskContext;
use datafusion::execution::context::SessionContext;
use datafusion::logical_expr::{EmptyRelation, Expr, LogicalPlan, Projection};
use datafusion::physical_plan::{ExecutionPlan, collect};
use datafusion::physical_planner::{DefaultPhysicalPlanner, PhysicalPlanner};
use datafusion::sql::TableReference;
use datafusion::sql::parser::Statement as DfStatement;
use datafusion::sql::sqlparser::ast::Statement;
use futures::executor::block_on;

use super::deduplicate::Deduplicate;
use super::from::{FromStreams, find_streams};
use super::interval::Side;
use super::join::{Failure, Joins, LookupJoin, joins_of};
use super::parse::{ParsedBranch, ROW, SOURCE_ROW, parse_stream};
use super::stream_join::StreamJoin;
use crate::columns::ColumnType;
use crate::conditions::Conditions;
use crate::config::{ColumnConfig, StreamConfig, StreamFormat};
use crate::lookup::LookupTable;
use crate::names::closest;
use crate::sql;
use crate::stream::{META_COLUMNS, Stream};
use crate::unnest::{ITEM, Unnest};

/// Of a joined stream.
const UNBOUNDED: &str = "a stream that falls silent would keep the rows of the other one for ever: give the joined stream an \
                         idle_timeout above 0";
const AGGREGATES: &str = "aggregates make a view: declare a materialized view over the stream";

/// A compiled derived stream, or one of its SELECTs. Never changes after it is made.
pub(crate) struct DerivedPlan {
    /// The number of the SELECT.
    pub(crate) branch: u8,
    /// What it writes, as others read it.
    pub(crate) stream: Arc<Stream>,
    /// What it reads; where two streams are joined, the one on the left.
    pub(crate) source: Arc<Stream>,
    /// The join to the one on the right.
    pub(crate) join: Option<StreamJoin>,
    /// How far behind the event watermark rows are joined, as it was declared.
    pub(crate) lateness_ms: i64,
    /// Its text.
    pub(crate) sql: String,
    /// The tables it joins.
    pub(crate) tables: Vec<Arc<LookupTable>>,
    /// The column whose text is the key of the records.
    pub(super) key: Option<usize>,
    pub(super) conditions: Arc<Conditions>,
    pub(super) deduplicate: Option<Deduplicate>,
    /// The stream's columns, without those about the record.
    pub(super) schema: SchemaRef,
    /// The list that is taken apart first.
    unnest: Option<Unnest>,
    /// What goes into the first join.
    input: SchemaRef,
    joins: Vec<LookupJoin>,
    /// The SELECT over an empty input, which each run replaces.
    select: Arc<dyn ExecutionPlan>,
    task: Arc<TaskContext>,
    /// Where the columns are in the SELECT's result.
    columns: Vec<usize>,
    /// Where the row number is.
    row_index: usize,
}

/// Rows that came out, and for each the row of the step it came from, ascending.
pub(super) struct Evaluated {
    pub(super) rows: RecordBatch,
    pub(super) origin: Vec<usize>,
}

/// The SELECT, and what came out of planning it.
struct Selected {
    joins: Joins,
    select: Arc<dyn ExecutionPlan>,
    task: Arc<TaskContext>,
    columns: Vec<(usize, String, ColumnType)>,
    row_index: usize,
}

/// A SELECT, planned over what it reads.
struct Planned {
    sources: FromStreams,
    tables: Vec<Arc<LookupTable>>,
    unnest: Option<Unnest>,
    input: SchemaRef,
    selected: Selected,
}

impl Planned {
    fn new(branch: &ParsedBranch, streams: &[Arc<Stream>], tables: &[Arc<LookupTable>]) -> Result<Planned, String> {
        let sources = find_streams(branch, streams, tables)?;
        let unnest = branch.unnest.as_ref().map(|unnest| Unnest::new(unnest, &sources.left.schema())).transpose()?;
        let input = input_schema(&sources.left, unnest.as_ref());
        let is_joined = |table: &&Arc<LookupTable>| branch.joined.iter().any(|name| name == table.name());
        let tables: Vec<Arc<LookupTable>> = tables.iter().filter(is_joined).cloned().collect();
        let selected = select((branch, &sources), &input, &tables)?;
        Ok(Planned { sources, tables, unnest, input, selected })
    }

    fn delay_ms(&self) -> i64 {
        self.selected.joins.streams.as_ref().map_or(0, StreamJoin::delay_ms)
    }
}

impl DerivedPlan {
    /// Compiles a derived stream over the known streams and tables, each of its SELECTs in turn; Err lists what is wrong
    /// with it.
    pub(crate) fn all(
        config: &StreamConfig,
        streams: &[Arc<Stream>],
        tables: &[Arc<LookupTable>],
    ) -> Result<Vec<DerivedPlan>, Vec<String>> {
        let text = config.sql.as_deref().unwrap_or_default();
        let parsed = parse_stream(text).map_err(|mistake| vec![mistake])?;
        let named = |mistake: String| vec![format!("stream {}: {mistake}", parsed.name)];
        let parts = parsed.branches.iter().map(|branch| Planned::new(branch, streams, tables));
        let parts = parts.collect::<Result<Vec<Planned>, String>>().map_err(named)?;
        check_columns(&parts).map_err(named)?;
        let stream_config = stream_config(config, &parsed.name, &parts);
        let stream = Arc::new(Stream::new(&stream_config)?);
        let mut mistakes = Vec::new();
        if parts.iter().any(|part| part.selected.joins.streams.is_some()) && config.idle_timeout_ms == 0 {
            mistakes.push(UNBOUNDED.to_string());
        }
        let schema = output_schema(&stream_config, &stream);
        let conditions = Arc::new(Conditions::compile(&config.checks, &parsed.name, &schema, &mut mistakes));
        let key = config.key.as_ref().and_then(|key| column_index("key", key, &schema, &mut mistakes));
        let lateness_ms = stream_config.lateness_ms;
        let mut deduplicate = config
            .deduplicate
            .as_ref()
            .and_then(|deduplicate| Deduplicate::new(deduplicate, (&parsed.name, lateness_ms), &schema, &mut mistakes));
        if deduplicate.is_some() && parts.len() > 1 {
            mistakes.push(
                "deduplicate compares the rows of one SELECT: derive another stream from this one, and give it there"
                    .into(),
            );
        }
        if !mistakes.is_empty() {
            return Err(mistakes.into_iter().flat_map(named).collect());
        }
        let plan = |(branch, part): (u8, Planned)| DerivedPlan {
            branch,
            stream: stream.clone(),
            source: part.sources.left,
            join: part.selected.joins.streams,
            lateness_ms: config.lateness_ms,
            sql: text.trim().to_string(),
            tables: part.tables,
            key,
            conditions: conditions.clone(),
            deduplicate: deduplicate.take(),
            schema: schema.clone(),
            unnest: part.unnest,
            input: part.input,
            joins: part.selected.joins.tables,
            select: part.selected.select,
            task: part.selected.task,
            columns: part.selected.columns.iter().map(|(index, ..)| *index).collect(),
            row_index: part.selected.row_index,
        };
        Ok((0..).zip(parts).map(plan).collect())
    }

    /// What comes out of `count` rows of the step from `from` on.
    pub(super) async fn evaluate(
        &self,
        rows: &RecordBatch,
        from: usize,
        count: usize,
        store: &Store,
    ) -> Result<Evaluated, Failure> {
        let number = |row: usize| u32::try_from(row).expect("a step has far fewer than 2^32 rows");
        let numbers: UInt32Array = (from..from + count).map(|row| Some(number(row))).collect();
        let mut joined = self.numbered(rows.slice(from, count), Arc::new(numbers))?;
        for join in &self.joins {
            joined = join.apply(joined, store)?;
        }
        let schema = joined.schema();
        let input = MemorySourceConfig::try_new_exec(&[vec![joined]], schema, None)?;
        let plan = with_input(&self.select, input)?;
        let result = concat_batches(&plan.schema(), &collect(plan, self.task.clone()).await?)?;
        let origin = result.column(self.row_index).as_primitive::<UInt32Type>().values();
        let origin = origin.iter().map(|row| *row as usize).collect();
        let exact = CastOptions { safe: false, ..CastOptions::default() };
        let column =
            |(index, field): (&usize, &Arc<Field>)| cast_with_options(result.column(*index), field.data_type(), &exact);
        let columns = self.columns.iter().zip(self.schema.fields()).map(column).collect::<Result<Vec<_>, _>>()?;
        Ok(Evaluated { rows: RecordBatch::try_new(self.schema.clone(), columns)?, origin })
    }

    /// What the joins to tables begin with: rows of the step, each with its number, or one for each item of its list.
    fn numbered(&self, slice: RecordBatch, numbers: ArrayRef) -> DfResult<RecordBatch> {
        if let Some(join) = &self.join {
            return join.input(&slice, &numbers);
        }
        let mut arrays: Vec<ArrayRef> = slice.columns().to_vec();
        match &self.unnest {
            None => arrays.push(numbers),
            Some(unnest) => {
                let items = unnest.items(&slice)?;
                arrays = arrays.iter().map(|column| items.spread(column)).collect::<DfResult<_>>()?;
                arrays.extend([items.values.clone(), items.spread(&numbers)?]);
            }
        }
        Ok(RecordBatch::try_new(self.input.clone(), arrays)?)
    }

    /// The streams that it reads.
    pub(crate) fn sources(&self) -> impl Iterator<Item = &Arc<Stream>> {
        std::iter::once(&self.source).chain(self.join.iter().map(|join| join.stream(Side::Right)))
    }
}

/// The index of a column that a setting names.
pub(super) fn column_index(setting: &str, name: &str, schema: &SchemaRef, mistakes: &mut Vec<String>) -> Option<usize> {
    let found = schema.index_of(name).ok();
    if found.is_none() {
        let hint = closest(name, schema.fields().iter().map(|field| field.name().as_str()));
        mistakes.push(format!("{setting} '{name}' is not a column of the result{hint}"));
    }
    found
}

/// UNION ALL goes by the places of the columns; the names are those of the first SELECT.
fn check_columns(parts: &[Planned]) -> Result<(), String> {
    let Some((first, others)) = parts.split_first() else { return Err("there is no SELECT".into()) };
    let wanted = &first.selected.columns;
    for (number, part) in (2..).zip(others) {
        let found = &part.selected.columns;
        if found.len() != wanted.len() {
            return Err(format!(
                "SELECT {number} gives {} columns, the first one {}: UNION ALL wants as many of each",
                found.len(),
                wanted.len()
            ));
        }
        let differ = wanted.iter().zip(found).find(|((.., kind), (.., other))| kind != other);
        if let Some(((_, name, kind), (.., other))) = differ {
            return Err(format!(
                "column '{name}' is {} in the first SELECT and {} in SELECT {number}: CAST one of them",
                kind.sql_type(),
                other.sql_type()
            ));
        }
    }
    Ok(())
}

/// All columns of the source, the items of its list, and the row number.
fn input_schema(source: &Stream, unnest: Option<&Unnest>) -> SchemaRef {
    let schema = source.schema();
    let fields = schema.fields().iter().map(|field| field.as_ref().clone()).chain(unnest.map(|of| of.field.clone()));
    Arc::new(Schema::new(fields.chain([Field::new(ROW, DataType::UInt32, false)]).collect::<Vec<_>>()))
}

fn select(
    (parsed, sources): (&ParsedBranch, &FromStreams),
    input: &SchemaRef,
    tables: &[Arc<LookupTable>],
) -> Result<Selected, String> {
    let context = sql::session();
    let plan = plan_query(&context, (parsed, sources), input, tables).map_err(|error| match sql::message(&error) {
        mistake if mistake.contains("GROUP BY") => AGGREGATES.to_string(),
        mistake => mistake,
    })?;
    // Before anything is simplified: `now()` would become a constant.
    sql::refuse_unstable_plan(&plan)?;
    let plan = without_record_columns(sql::simplified_plan(plan)?)?;
    check_nodes(&plan)?;
    let (select, from) = cut(plan).map_err(|error| sql::message(&error))?;
    let joins = joins_of(&from, sources.joined(parsed).as_ref(), tables, &context)?;
    let planned = block_on(DefaultPhysicalPlanner::default().create_physical_plan(&select, &context.state()));
    let select = planned.map_err(|error| sql::message(&error))?;
    let schema = select.schema();
    let mut columns: Vec<(usize, String, ColumnType)> = Vec::new();
    let mut row_index = None;
    for (index, field) in schema.fields().iter().enumerate() {
        let name = field.name().clone();
        if name == SOURCE_ROW {
            row_index = Some(index);
            continue;
        }
        if columns.iter().any(|(_, other, _)| *other == name) {
            return Err(format!("two columns are called '{name}', name the columns one by one and rename one with AS"));
        }
        let kind = ColumnType::of(field.data_type()).ok_or_else(|| {
            format!("column '{name}' is of type {}, cast it to a type that a stream can have", field.data_type())
        })?;
        columns.push((index, name, kind));
    }
    let row_index = row_index.ok_or("the result lost its row numbers, please report it")?;
    Ok(Selected { joins, select, task: context.task_ctx(), columns, row_index })
}

fn plan_query(
    context: &SessionContext,
    (parsed, sources): (&ParsedBranch, &FromStreams),
    input: &SchemaRef,
    tables: &[Arc<LookupTable>],
) -> DfResult<LogicalPlan> {
    let register = |name: &str, schema: &SchemaRef| {
        context.register_table(TableReference::bare(name), Arc::new(EmptyTable::new(schema.clone())))
    };
    register(&parsed.stream, input)?;
    if let Some(right) = sources.right.as_ref().filter(|right| right.name() != parsed.stream) {
        register(right.name(), &input_schema(right, None))?;
    }
    for table in tables {
        register(table.name(), table.schema())?;
    }
    let state = context.state();
    let statement = Statement::Query(Box::new(parsed.query.clone()));
    let plan = block_on(state.statement_to_plan(DfStatement::Statement(Box::new(statement))))?;
    state.analyzer().execute_and_check(plan, state.config_options(), |_, _| {})
}

/// Takes the columns about the record out of the result: `*` gives them, but the result has its own. The items of a list are not
/// the stream's either: who selects them has named them.
fn without_record_columns(plan: LogicalPlan) -> Result<LogicalPlan, String> {
    let LogicalPlan::Projection(projection) = plan else {
        return Err("write SELECT columns FROM stream".into());
    };
    let is_record = |expr: &Expr| match expr {
        Expr::Column(column) => {
            let name = column.name.as_str();
            name == ROW || name == ITEM || META_COLUMNS.contains(&name)
        }
        _ => false,
    };
    let kept = projection.expr.iter().filter(|expr| !is_record(expr)).cloned().collect();
    let plan = Projection::try_new(kept, projection.input).map_err(|error| sql::message(&error))?;
    Ok(LogicalPlan::Projection(plan))
}

fn check_nodes(plan: &LogicalPlan) -> Result<(), String> {
    match plan {
        LogicalPlan::Projection(_) | LogicalPlan::Filter(_) | LogicalPlan::Unnest(_) => {
            plan.inputs().into_iter().try_for_each(check_nodes)
        }
        LogicalPlan::Join(_) | LogicalPlan::TableScan(_) | LogicalPlan::SubqueryAlias(_) => Ok(()),
        LogicalPlan::Aggregate(_) => Err(AGGREGATES.into()),
        other => {
            let text = other.display().to_string();
            let name = text.split([':', ' ']).next().unwrap_or_default();
            Err(format!("{name} is not supported in a derived stream: write SELECT … FROM stream JOIN tables WHERE …"))
        }
    }
}

/// The plan with its FROM clause replaced by an empty input of the same columns, and the FROM clause.
fn cut(plan: LogicalPlan) -> DfResult<(LogicalPlan, LogicalPlan)> {
    let mut from = None;
    let select = plan.transform_down(|node| match node {
        LogicalPlan::Join(_) | LogicalPlan::TableScan(_) | LogicalPlan::SubqueryAlias(_) => {
            let schema = node.schema().clone();
            from = Some(node);
            let empty = LogicalPlan::EmptyRelation(EmptyRelation { produce_one_row: false, schema });
            Ok(Transformed::new(empty, true, TreeNodeRecursion::Jump))
        }
        other => Ok(Transformed::no(other)),
    })?;
    let from = from.ok_or_else(|| DataFusionError::Plan("the query reads no stream".into()))?;
    Ok((select.data, from))
}

/// The plan with its one leaf replaced.
fn with_input(plan: &Arc<dyn ExecutionPlan>, input: Arc<dyn ExecutionPlan>) -> DfResult<Arc<dyn ExecutionPlan>> {
    match plan.children().first() {
        None => Ok(input),
        Some(child) => plan.clone().with_new_children(vec![with_input(child, input)?]),
    }
}

/// The declaration that reads what the derived stream writes.
fn stream_config(config: &StreamConfig, name: &str, parts: &[Planned]) -> StreamConfig {
    let column = |(_, name, kind): &(usize, String, ColumnType)| ColumnConfig {
        name: name.clone(),
        sql_type: kind.sql_type(),
        ..ColumnConfig::default()
    };
    let event_time = match config.event_time.as_str() {
        "" => parts.first().map(|part| part.sources.left.event_time().to_string()).unwrap_or_default(),
        own => own.to_string(),
    };
    StreamConfig {
        name: name.to_string(),
        topic: name.to_string(),
        format: StreamFormat::Json,
        columns: parts.iter().take(1).flat_map(|part| &part.selected.columns).map(column).collect(),
        event_time,
        // What reads it allows for rows that waited.
        lateness_ms: config.lateness_ms.saturating_add(parts.iter().map(Planned::delay_ms).max().unwrap_or(0)),
        // They are judged before anything is written, so that what is read meets them.
        checks: Vec::new(),
        ..config.clone()
    }
}

/// The columns that are written: the stream's without those about the record, all of them nullable until checked.
fn output_schema(config: &StreamConfig, stream: &Stream) -> SchemaRef {
    let schema = stream.schema();
    let fields = schema.fields().iter().take(config.columns.len());
    Arc::new(Schema::new(fields.map(|field| field.as_ref().clone().with_nullable(true)).collect::<Vec<_>>()))
}
