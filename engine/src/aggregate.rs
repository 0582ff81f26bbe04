//! A view's GROUP BY by DataFusion's own aggregation: rows → states (`partial`), states → states (`reduce`; `merge` where it is known
//! which are of one group), states → results (`finish`). Where groups are known nothing is grouped: DataFusion's accumulators are
//! asked by the groups' numbers.
//!
//! A state batch has the group columns first, then the state columns of each aggregate as DataFusion lays them out.
//! The first group column is always `window_start`.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::common::{DataFusionError, Result as DfResult};
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::execution::TaskContext;
use datafusion::logical_expr::{EmitTo, GroupsAccumulator};
use datafusion::physical_expr::GroupsAccumulatorAdapter;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode, PhysicalGroupBy};
use datafusion::physical_plan::{ExecutionPlan, PhysicalExpr, collect};

/// The compiled GROUP BY and aggregates of one view. Never changes after it is made.
pub(crate) struct Aggregation {
    groups: PhysicalGroupBy,
    merged_groups: PhysicalGroupBy,
    aggregates: Vec<Arc<AggregateFunctionExpr>>,
    filters: Vec<Option<Arc<dyn PhysicalExpr>>>,
    input_schema: SchemaRef,
    state_schema: SchemaRef,
    result_schema: SchemaRef,
    task: Arc<TaskContext>,
}

impl Aggregation {
    /// Takes the expressions out of a planned aggregate: the partial node under the final one.
    pub(crate) fn from_plan(plan: &Arc<dyn ExecutionPlan>, task: Arc<TaskContext>) -> DfResult<Aggregation> {
        let node = |plan: &Arc<dyn ExecutionPlan>| plan.as_any().downcast_ref::<AggregateExec>().cloned();
        let partial = match node(plan) {
            Some(outer) if *outer.mode() == AggregateMode::Partial => Some(outer),
            Some(outer) => node(outer.input()),
            None => None,
        };
        let Some(partial) = partial.filter(|partial| *partial.mode() == AggregateMode::Partial) else {
            return Err(DataFusionError::Internal("the plan of a view has no partial aggregate".into()));
        };
        let mut aggregation = Aggregation {
            groups: partial.group_expr().clone(),
            merged_groups: partial.group_expr().as_final(),
            aggregates: partial.aggr_expr().to_vec(),
            filters: partial.filter_expr().to_vec(),
            input_schema: partial.input_schema(),
            state_schema: partial.schema(),
            result_schema: partial.schema(),
            task,
        };
        let empty = RecordBatch::new_empty(aggregation.state_schema.clone());
        aggregation.result_schema = aggregation.node(AggregateMode::Final, empty)?.schema();
        Ok(aggregation)
    }

    /// Number of group columns, `window_start` included.
    pub(crate) fn group_count(&self) -> usize {
        self.groups.num_group_exprs()
    }

    /// Group columns, then state columns.
    pub(crate) fn state_schema(&self) -> &SchemaRef {
        &self.state_schema
    }

    /// Of each state column its aggregate, and whether that is of distinct values.
    pub(crate) fn state_columns(&self) -> DfResult<Vec<(&str, bool)>> {
        let mut columns = Vec::new();
        for aggregate in &self.aggregates {
            let of = (aggregate.fun().name(), aggregate.is_distinct());
            columns.extend(aggregate.state_fields()?.iter().map(|_| of));
        }
        Ok(columns)
    }

    /// What `partial` takes.
    pub(crate) fn input_schema(&self) -> &SchemaRef {
        &self.input_schema
    }

    /// The group columns of each row.
    pub(crate) fn groups_of(&self, rows: &RecordBatch) -> DfResult<RecordBatch> {
        let evaluate = |expr: &Arc<dyn PhysicalExpr>| expr.evaluate(rows)?.into_array(rows.num_rows());
        let arrays = self.groups.input_exprs().iter().map(evaluate).collect::<DfResult<Vec<_>>>()?;
        let fields = self.state_schema.fields().iter().take(arrays.len()).cloned().collect::<Vec<_>>();
        Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)?)
    }

    /// Rows → one state per group.
    pub(crate) async fn partial(&self, rows: RecordBatch) -> DfResult<RecordBatch> {
        self.run(AggregateMode::Partial, rows, &self.state_schema).await
    }

    /// States, several of a group among them → one state per group.
    pub(crate) async fn reduce(&self, states: RecordBatch) -> DfResult<RecordBatch> {
        self.run(AggregateMode::PartialReduce, states, &self.state_schema).await
    }

    /// State columns of all of so many groups, and of some of them → those of all, in the order of their numbers. What has all
    /// comes first: accumulators take each group whose number is below the greatest for one that has had a row.
    pub(crate) fn merge(&self, all: &Part<'_>, some: &Part<'_>, groups: usize) -> DfResult<Vec<ArrayRef>> {
        let mut merged = Vec::new();
        self.each(|mut accumulator, columns| {
            for part in [all, some].into_iter().filter(|part| !part.groups.is_empty()) {
                accumulator.merge_batch(&part.states[columns.clone()], part.groups, None, groups)?;
            }
            merged.extend(accumulator.state(EmitTo::All)?);
            Ok(())
        })?;
        Ok(merged)
    }

    /// States, one per group → group columns and results, in the same order.
    pub(crate) fn finish(&self, states: &RecordBatch) -> DfResult<RecordBatch> {
        if states.num_rows() == 0 {
            return Ok(RecordBatch::new_empty(self.result_schema.clone()));
        }
        let (group_columns, states) = states.columns().split_at(self.group_count());
        let mut results = group_columns.to_vec();
        let groups: Vec<usize> = (0..group_columns[0].len()).collect();
        self.each(|mut accumulator, columns| {
            accumulator.merge_batch(&states[columns], &groups, None, groups.len())?;
            results.push(accumulator.evaluate(EmitTo::All)?);
            Ok(())
        })?;
        Ok(RecordBatch::try_new(self.result_schema.clone(), results)?)
    }

    /// Each aggregate with an accumulator that is empty, and its place among the state columns.
    fn each(&self, mut work: impl FnMut(Box<dyn GroupsAccumulator>, Range<usize>) -> DfResult<()>) -> DfResult<()> {
        let mut from = 0;
        for aggregate in &self.aggregates {
            let to = from + aggregate.state_fields()?.len();
            work(accumulator(aggregate)?, from..to)?;
            from = to;
        }
        Ok(())
    }

    async fn run(&self, mode: AggregateMode, input: RecordBatch, output: &SchemaRef) -> DfResult<RecordBatch> {
        let batches = collect(self.node(mode, input)?, self.task.clone()).await?;
        match batches.as_slice() {
            [batch] => Ok(batch.clone()),
            batches => Ok(concat_batches(output, batches)?),
        }
    }

    /// A fresh node for each run: nodes keep metrics that grow with every run.
    fn node(&self, mode: AggregateMode, input: RecordBatch) -> DfResult<Arc<dyn ExecutionPlan>> {
        let groups = if mode == AggregateMode::Partial { &self.groups } else { &self.merged_groups };
        let schema = input.schema();
        let source = MemorySourceConfig::try_new_exec(&[vec![input]], schema, None)?;
        let input_schema = self.input_schema.clone();
        let (aggregates, filters) = (self.aggregates.clone(), self.filters.clone());
        let node = AggregateExec::try_new(mode, groups.clone(), aggregates, filters, source, input_schema)?;
        Ok(Arc::new(node))
    }
}

/// State columns, and the number of the group that each of their rows is of.
pub(crate) struct Part<'a> {
    pub(crate) states: &'a [ArrayRef],
    pub(crate) groups: &'a [usize],
}

/// An accumulator of all groups at once, or one of each group where the aggregate has no other.
fn accumulator(aggregate: &Arc<AggregateFunctionExpr>) -> DfResult<Box<dyn GroupsAccumulator>> {
    if aggregate.groups_accumulator_supported() {
        return aggregate.create_groups_accumulator();
    }
    let aggregate = aggregate.clone();
    Ok(Box::new(GroupsAccumulatorAdapter::new(move || aggregate.create_accumulator())))
}
