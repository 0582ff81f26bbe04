//! A view, compiled: which stream columns it needs, WHERE, the aggregation, HAVING, and the columns readers see.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, Result as DfResult, ScalarValue};
use datafusion::datasource::empty::EmptyTable;
use datafusion::execution::context::SessionContext;
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::{Aggregate, Expr, LogicalPlan};
use datafusion::physical_plan::PhysicalExpr;
use datafusion::physical_planner::{DefaultPhysicalPlanner, PhysicalPlanner};
use datafusion::sql::parser::Statement as DfStatement;
use datafusion::sql::sqlparser::ast::Statement;
use futures::executor::block_on;

use crate::aggregate::Aggregation;
use crate::columns::timestamp_type;
use crate::config::ViewConfig;
use crate::names::closest;
use crate::ordered::{is_ordered, order_by_event_time};
use crate::parse::{ParsedView, WINDOW_END, WINDOW_START, key_twice, parse_view};
use crate::parse_emit::Emit;
use crate::parse_window::Windowed;
use crate::sql;
use crate::state;
use crate::stream::Stream;
use crate::top_k;
use crate::unnest::{ITEM, ParsedUnnest, Unnest};
use crate::windows::{self, Windows};

/// Aggregates whose state is bounded, or has a bound (`keyed`), and merges in any order as DataFusion defines it.
const AGGREGATES: [&str; 35] = [
    "count",
    "sum",
    "min",
    "max",
    "avg",
    "stddev",
    "stddev_pop",
    "var",
    "var_pop",
    "corr",
    "covar_samp",
    "covar_pop",
    "approx_distinct",
    "approx_median",
    "approx_percentile_cont",
    "median",
    "percentile_cont",
    "first_value",
    "last_value",
    "array_agg",
    "top_k",
    "bool_and",
    "bool_or",
    "bit_and",
    "bit_or",
    "bit_xor",
    "regr_slope",
    "regr_intercept",
    "regr_count",
    "regr_r2",
    "regr_avgx",
    "regr_avgy",
    "regr_sxx",
    "regr_syy",
    "regr_sxy",
];

/// A compiled view. Never changes after it is made.
pub(crate) struct ViewPlan {
    pub(crate) name: Arc<str>,
    pub(crate) sql: String,
    pub(crate) stream: Arc<Stream>,
    pub(crate) windows: Option<Windows>,
    pub(crate) emit: Emit,
    pub(crate) retention_ms: Option<i64>,
    /// What readers see: window_start, window_end (when there is a window), keys, values.
    pub(crate) schema: SchemaRef,
    /// Names of the key columns.
    pub(crate) keys: Vec<String>,
    pub(crate) aggregation: Aggregation,
    /// Of everything that decides what the stored state means.
    pub(crate) fingerprint: u64,
    /// The same of the stream as it was when it lacked columns that the view does not use.
    earlier: Vec<u64>,
    /// Indexes of the stream's columns that the view uses; the items and `window_start` are put behind them.
    columns: Vec<usize>,
    /// The list that is taken apart first.
    pub(crate) unnest: Option<Unnest>,
    conditions: Vec<Arc<dyn PhysicalExpr>>,
    pub(crate) having: Vec<Arc<dyn PhysicalExpr>>,
    /// Keys and values over the aggregation's result.
    pub(crate) output: Vec<Arc<dyn PhysicalExpr>>,
}

/// The view's nodes, cut out of the plan.
struct Cut {
    projection: Vec<Expr>,
    having: Vec<Expr>,
    aggregate: Aggregate,
    conditions: Vec<Expr>,
}

impl ViewPlan {
    /// Compiles a view over one of the streams; Err says what is wrong with it.
    pub(crate) fn new(config: &ViewConfig, streams: &[Arc<Stream>]) -> Result<ViewPlan, String> {
        let mut parsed = parse_view(&config.sql)?;
        let found = streams.iter().find(|stream| stream.name() == parsed.stream);
        let Some(stream) = found else {
            let hint = closest(&parsed.stream, streams.iter().map(|stream| stream.name()));
            return Err(format!("view {}: no stream '{}'{hint}", parsed.name, parsed.stream));
        };
        if config.retention_ms.is_some_and(|retention_ms| retention_ms <= 0 || parsed.windowed.is_none()) {
            return Err(format!("view {}: retention must be positive, and needs a window", parsed.name));
        }
        order_by_event_time(&mut parsed.query, stream.event_time())
            .and_then(|()| check_windowed(parsed.windowed.as_ref(), stream))
            .map_err(|mistake| format!("view {}: {mistake}", parsed.name))?;
        compile(config, &parsed, stream).map_err(|mistake| format!("view {}: {mistake}", parsed.name))
    }

    /// The rows the view counts, with only the columns it uses and what stands for their window (`windows::labels`), and for
    /// each of them its row in `rows`, ascending; one row can be several here. An error means that some row cannot be evaluated.
    pub(crate) fn select(&self, rows: &RecordBatch, closed_until: Option<i64>) -> DfResult<(RecordBatch, Vec<usize>)> {
        let starts = windows::labels(self.windows, self.stream.event_times(rows), closed_until);
        let mut arrays: Vec<ArrayRef> = self.columns.iter().map(|index| rows.column(*index).clone()).collect();
        let mut origin: Vec<usize> = (0..rows.num_rows()).collect();
        match &self.unnest {
            None => arrays.push(starts),
            Some(unnest) => {
                let items = unnest.items(rows)?;
                arrays = arrays.iter().map(|column| items.spread(column)).collect::<DfResult<_>>()?;
                arrays.extend([items.values.clone(), items.spread(&starts)?]);
                origin = items.rows.values().iter().map(|row| *row as usize).collect();
            }
        }
        let input = RecordBatch::try_new(self.aggregation.input_schema().clone(), arrays)?;
        let mut kept: Option<BooleanArray> = None;
        for condition in &self.conditions {
            let met = sql::mask(sql::condition(condition, &input)?);
            kept = Some(match kept {
                Some(before) => arrow::compute::and(&before, &met)?,
                None => met,
            });
        }
        match kept.filter(|kept| kept.true_count() < kept.len()) {
            Some(kept) => {
                origin = kept.values().set_indices().map(|row| origin[row]).collect();
                Ok((filter_record_batch(&input, &kept)?, origin))
            }
            None => Ok((input, origin)),
        }
    }

    /// The view whose stored state has this fingerprint, if that is what it means: also of the stream as it was.
    pub(crate) fn of_state(mut self, fingerprint: u64) -> Option<ViewPlan> {
        let is_its = self.fingerprint == fingerprint || self.earlier.contains(&fingerprint);
        self.fingerprint = fingerprint;
        is_its.then_some(self)
    }

    /// Whether it looks at the stream's column of this index.
    pub(crate) fn uses(&self, index: usize) -> bool {
        self.columns.contains(&index)
    }

    /// Number of leading columns of [`schema`](Self::schema) that identify a row.
    pub(crate) fn identity_columns(&self) -> usize {
        self.keys.len() + if self.windows.is_some() { 2 } else { 0 }
    }
}

fn check_windowed(windowed: Option<&Windowed>, stream: &Stream) -> Result<(), String> {
    match windowed {
        Some(windowed) if windowed.column != stream.event_time() => Err(format!(
            "{} is over '{}', but the event time of stream {} is '{}': use that column",
            windowed.windows.name(),
            windowed.column,
            stream.name(),
            stream.event_time()
        )),
        _ => Ok(()),
    }
}

fn compile(config: &ViewConfig, parsed: &ParsedView, stream: &Arc<Stream>) -> Result<ViewPlan, String> {
    let unnest = parsed.unnest.as_ref().map(|unnest| Unnest::new(unnest, &stream.schema())).transpose()?;
    let all: Vec<usize> = (0..stream.schema().fields().len()).collect();
    // Not simplified: the text names columns that the simplified plan may do without.
    let cut = cut_plan(&plan_query(parsed, &input_schema(stream, &all, unnest.as_ref()))?)?;
    // Planned once more over just the columns it uses, so that nothing else is filtered or copied.
    let columns = used_columns(&cut, stream, unnest.as_ref())?;
    let cut = cut_plan(&sql::simplified_plan(plan_query(parsed, &input_schema(stream, &columns, unnest.as_ref()))?)?)?;
    check_cut(&cut, parsed.windowed.as_ref())?;
    let below = cut.aggregate.input.schema().clone();
    let above = cut.aggregate.schema.clone();
    let context = sql::session();
    let physical = |exprs: &[Expr], schema: &DFSchema| -> Result<Vec<Arc<dyn PhysicalExpr>>, String> {
        let compile =
            |expr: &Expr| context.create_physical_expr(expr.clone(), schema).map_err(|error| sql::message(&error));
        exprs.iter().map(compile).collect()
    };
    let conditions = physical(&cut.conditions, &below)?;
    let having = physical(&cut.having, &above)?;
    let aggregation = plan_aggregation(&context, &cut.aggregate).map_err(|error| sql::message(&error))?;
    let shown = shown_columns(&cut, parsed.unnest.as_ref())?;
    let exprs: Vec<Expr> = shown.columns.iter().map(|(_, expr)| expr.clone()).collect();
    let output = physical(&exprs, &above)?;
    let schema = output_schema(parsed, &shown, &output, &above)?;
    let uses = |index| columns.contains(&index);
    let fingerprint = |definition: String| state::fingerprint(&definition, &parsed.canonical);
    Ok(ViewPlan {
        name: parsed.name.as_str().into(),
        sql: config.sql.trim().to_string(),
        stream: stream.clone(),
        windows: parsed.windowed.as_ref().map(|windowed| windowed.windows),
        emit: parsed.emit,
        retention_ms: config.retention_ms,
        schema,
        keys: shown.columns[..shown.keys].iter().map(|(name, _)| name.clone()).collect(),
        fingerprint: fingerprint(stream.definition(&uses)),
        earlier: stream.earlier_definitions(&uses).into_iter().map(fingerprint).collect(),
        aggregation,
        columns,
        unnest,
        conditions,
        having,
        output,
    })
}

/// Some columns of the stream, the items of its list, and `window_start` behind them.
fn input_schema(stream: &Stream, columns: &[usize], unnest: Option<&Unnest>) -> SchemaRef {
    let schema = stream.schema();
    let mut fields: Vec<Field> = columns.iter().map(|index| schema.field(*index).clone()).collect();
    fields.extend(unnest.map(|unnest| unnest.field.clone()));
    fields.push(Field::new(WINDOW_START, timestamp_type(), false));
    Arc::new(Schema::new(fields))
}

fn plan_query(parsed: &ParsedView, schema: &SchemaRef) -> Result<LogicalPlan, String> {
    let context = sql::session();
    let analyzed = || -> DfResult<LogicalPlan> {
        let table = datafusion::sql::TableReference::bare(parsed.stream.as_str());
        context.register_table(table, Arc::new(EmptyTable::new(schema.clone())))?;
        let statement = Statement::Query(Box::new(parsed.query.clone()));
        let state = context.state();
        let plan = block_on(state.statement_to_plan(DfStatement::Statement(Box::new(statement))))?;
        state.analyzer().execute_and_check(plan, state.config_options(), |_, _| {})
    };
    let plan = analyzed().map_err(|error| sql::message(&error))?;
    // Before anything is simplified: `now()` would become a constant.
    sql::refuse_unstable_plan(&plan)?;
    Ok(plan)
}

/// Projection, HAVING, aggregate, WHERE, stream: anything else is refused by name.
fn cut_plan(plan: &LogicalPlan) -> Result<Cut, String> {
    let LogicalPlan::Projection(projection) = plan else {
        return Err(unsupported(plan));
    };
    let mut having = Vec::new();
    let mut node = projection.input.as_ref();
    while let LogicalPlan::Filter(filter) = node {
        having.push(filter.predicate.clone());
        node = filter.input.as_ref();
    }
    let LogicalPlan::Aggregate(aggregate) = node else {
        return Err(unsupported(node));
    };
    let mut conditions = Vec::new();
    let mut node = aggregate.input.as_ref();
    loop {
        match node {
            LogicalPlan::Filter(filter) => {
                conditions.push(filter.predicate.clone());
                node = filter.input.as_ref();
            }
            LogicalPlan::SubqueryAlias(alias) => node = alias.input.as_ref(),
            LogicalPlan::TableScan(_) => break,
            other => return Err(unsupported(other)),
        }
    }
    Ok(Cut { projection: projection.expr.clone(), having, aggregate: aggregate.clone(), conditions })
}

fn unsupported(node: &LogicalPlan) -> String {
    let text = node.display().to_string();
    let name = text.split([':', ' ']).next().unwrap_or_default().to_string();
    if node.exists(|below| Ok(matches!(below, LogicalPlan::Unnest(_)))).unwrap_or(false) {
        return "unnest(…) cannot stand in the SELECT of a view: write FROM stream CROSS JOIN UNNEST(stream.items) AS u(item)".into();
    }
    format!(
        "{name} is not supported in a view: write SELECT keys, aggregates FROM stream [WHERE …] GROUP BY … [HAVING …]"
    )
}

fn check_cut(cut: &Cut, windowed: Option<&Windowed>) -> Result<(), String> {
    // A row is in many windows, or in one whose start is not known yet.
    let is_known = windowed.is_none_or(|windowed| matches!(windowed.windows, Windows::Tumble(_)));
    let inputs = cut.aggregate.group_expr.iter().skip(1).chain(&cut.aggregate.aggr_expr);
    let mut columns = inputs.flat_map(Expr::column_refs);
    if !is_known && columns.any(|column| column.name == WINDOW_START) {
        return Err(
            "the window of HOP and SESSION cannot stand in a key or within an aggregate, only beside them".into()
        );
    }
    let keys: Vec<Expr> = cut.aggregate.group_expr.iter().map(|key| key.clone().unalias_nested().data).collect();
    if keys.iter().any(|key| matches!(key, Expr::GroupingSet(_))) {
        return Err("GROUPING SETS, ROLLUP and CUBE are not supported in a view".into());
    }
    // also those that are written differently
    if let Some(twice) = (1..keys.len()).find(|at| keys[..*at].contains(&keys[*at])) {
        return Err(key_twice(&keys[twice]));
    }
    for expr in &cut.aggregate.aggr_expr {
        match expr.clone().unalias_nested().data {
            Expr::AggregateFunction(call) => check_aggregate(&call)?,
            other => return Err(format!("'{other}' is not an aggregate the engine knows")),
        }
    }
    Ok(())
}

fn check_aggregate(call: &AggregateFunction) -> Result<(), String> {
    let name = call.func.name();
    if !AGGREGATES.contains(&name) {
        let instead = match name {
            "string_agg" => "; write array_to_string(array_agg(…), ', ')",
            "nth_value" => "; write array_agg(…)[2]",
            _ => "",
        };
        let known = AGGREGATES.join(", ");
        return Err(format!("aggregate {name} is not supported in a view yet{instead}; there are: {known}"));
    }
    if call.params.distinct && !matches!(name, "count" | "min" | "max" | "bool_and" | "bool_or" | "array_agg") {
        return Err(format!("{name}(DISTINCT …) is not supported in a view, count(DISTINCT …) is"));
    }
    let takes_order = is_ordered(name) || name.contains("percentile");
    if !call.params.order_by.is_empty() && !takes_order {
        return Err(format!("{name}(… ORDER BY …) is not supported in a view"));
    }
    match call.params.args.as_slice() {
        [_, Expr::Literal(ScalarValue::Int64(Some(count)), _)] if name == top_k::NAME => {
            top_k::check_count(*count).map(|_| ())
        }
        [_, other] if name == top_k::NAME => Err(format!("{name}(…, {other}): how many values is a number, such as 3")),
        _ => Ok(()),
    }
}

/// Indexes of the stream's columns that stand anywhere below the aggregate's results.
fn used_columns(cut: &Cut, stream: &Stream, unnest: Option<&Unnest>) -> Result<Vec<usize>, String> {
    let mut names: Vec<Column> = Vec::new();
    let exprs = cut.conditions.iter().chain(&cut.aggregate.group_expr).chain(&cut.aggregate.aggr_expr);
    for expr in exprs {
        let walked = expr.apply(|node| {
            if let Expr::Column(column) = node {
                names.push(column.clone());
            }
            Ok(TreeNodeRecursion::Continue)
        });
        walked.map_err(|error| sql::message(&error))?;
    }
    let schema = stream.schema();
    let of_list: Vec<usize> = unnest.into_iter().flat_map(Unnest::columns).collect();
    let named = |index: &usize| names.iter().any(|column| column.name == *schema.field(*index).name());
    let used = |index: &usize| of_list.contains(index) || named(index);
    Ok((0..schema.fields().len()).filter(used).collect())
}

fn plan_aggregation(context: &SessionContext, aggregate: &Aggregate) -> DfResult<Aggregation> {
    let plan = LogicalPlan::Aggregate(aggregate.clone());
    let physical = block_on(DefaultPhysicalPlanner::default().create_physical_plan(&plan, &context.state()))?;
    Aggregation::from_plan(&physical, context.task_ctx())
}

/// The columns behind the window's: the first `keys` of them are the keys.
struct Shown {
    columns: Vec<(String, Expr)>,
    keys: usize,
}

/// Every key is shown, in the order of GROUP BY, under its name in the SELECT or its own; then the values in order.
fn shown_columns(cut: &Cut, unnest: Option<&ParsedUnnest>) -> Result<Shown, String> {
    let mut values: Vec<(String, Expr)> = Vec::new();
    for item in &cut.projection {
        let name = item.qualified_name().1;
        values.push((name, item.clone().unalias_nested().data));
    }
    let mut columns = Vec::new();
    let group_columns = cut.aggregate.schema.columns();
    for (index, group) in cut.aggregate.group_expr.iter().enumerate().skip(1) {
        let key = Expr::Column(group_columns[index].clone());
        match values.iter().position(|(_, expr)| *expr == key) {
            Some(at) => columns.push(values.remove(at)),
            None => match group {
                Expr::Column(column) => {
                    let item = unnest.filter(|_| column.name == ITEM).map(|unnest| &unnest.column);
                    columns.push((item.unwrap_or(&column.name).clone(), key));
                }
                other => return Err(format!("the key '{other}' needs a name, add it to the SELECT with AS")),
            },
        }
    }
    let keys = columns.len();
    columns.extend(values);
    for (index, (name, _)) in columns.iter().enumerate() {
        if columns[..index].iter().any(|(other, _)| other == name) {
            return Err(format!("two columns are called '{name}', rename one with AS"));
        }
        if name == WINDOW_START || name == WINDOW_END {
            return Err(format!("'{name}' is the window's own column, rename yours with AS"));
        }
    }
    Ok(Shown { columns, keys })
}

fn output_schema(
    parsed: &ParsedView,
    shown: &Shown,
    output: &[Arc<dyn PhysicalExpr>],
    above: &DFSchema,
) -> Result<SchemaRef, String> {
    let mut fields = Vec::new();
    if parsed.windowed.is_some() {
        fields.push(Field::new(WINDOW_START, timestamp_type(), false));
        fields.push(Field::new(WINDOW_END, timestamp_type(), false));
    }
    for (at, ((name, _), expr)) in shown.columns.iter().zip(output).enumerate() {
        let kind = expr.data_type(above.as_arrow()).map_err(|error| sql::message(&error))?;
        if at < shown.keys && kind.is_nested() {
            return Err(format!("key '{name}' is of type {kind}, a view's keys are plain values"));
        }
        if !is_shown(&kind) {
            return Err(format!(
                "column '{name}' is of type {kind}, a view's values are plain, or lists of plain values"
            ));
        }
        fields.push(Field::new(name, kind, true));
    }
    Ok(Arc::new(Schema::new(fields)))
}

/// Plain values, lists of them, and lists of plain fields, as of `top_k`.
fn is_shown(kind: &DataType) -> bool {
    match kind {
        DataType::List(item) => match item.data_type() {
            DataType::Struct(fields) => fields.iter().all(|field| !field.data_type().is_nested()),
            item => !item.is_nested(),
        },
        other => !other.is_nested(),
    }
}
