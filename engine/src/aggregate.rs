//! A view's GROUP BY as three runs of DataFusion's own aggregation: rows → states (`partial`), states → states
//! (`reduce`), states → results (`finish`).
//!
//! A state batch has the group columns first, then the state columns of each aggregate as DataFusion lays them out.
//! The first group column is always `window_start`.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::common::{DataFusionError, Result as DfResult};
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::execution::TaskContext;
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

    /// States, one per group → group columns and results, in the same order.
    pub(crate) async fn finish(&self, states: RecordBatch) -> DfResult<RecordBatch> {
        self.run(AggregateMode::Final, states, &self.result_schema).await
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
