//! From a statement to its plan: the views it names are waited for, the boundaries of its tables are read, and it is planned in a
//! session of its own.

use std::collections::BTreeSet;
use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::execution::context::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::logical_expr::registry::FunctionRegistry;
use datafusion::sql::parser::Statement;

use crate::Offsets;
use crate::bounded;
use crate::error::Result;
use crate::past;
use crate::query::Queries;
use crate::query_log::{QueryKind, Running};
use crate::read_only::only_tells;
use crate::session::{Reads, Room};

/// Longest wait for the views that a query names.
const FRESH_WAIT_MS_MAX: u64 = 5_000;

/// A query that is planned. Keeps what it reads from being deleted, as long as it lives.
pub struct Prepared {
    /// The session it was planned in.
    pub state: SessionState,
    /// The plan.
    pub plan: LogicalPlan,
    /// What counts it.
    pub running: Running,
    /// What it reads.
    pub reads: Reads,
}

/// A query that is planned, on its way.
pub(crate) struct Planned {
    pub(crate) state: SessionState,
    pub(crate) plan: LogicalPlan,
    pub(crate) reads: Reads,
}

impl Queries {
    /// Plans a transform's query, to be run with memory and disk of the transforms' own. `table`, which it writes, can be
    /// read in its session.
    ///
    /// # Errors
    /// As [`Queries::sql`].
    pub async fn prepare_work(&self, statement: Statement, table: &str) -> Result<Prepared> {
        let running = self.log().begin(QueryKind::Transform, None, &format!("{table}: {statement}"));
        let room = Room { runtime: self.work().clone(), meter: running.meter().clone(), reader: None, at: None };
        let Planned { state, plan, reads } = self.prepare(statement, &room, Some(table)).await?;
        Ok(Prepared { state, plan, running, reads })
    }

    /// Plans a statement that verifies something, in the transforms' memory and disk. It reads the table that is named and one of
    /// its own; sums are exact in it, as in views.
    ///
    /// # Errors
    /// As [`Queries::sql`].
    pub(crate) async fn prepare_proof(
        &self,
        sql: &str,
        named: &str,
        own: (&str, Arc<dyn TableProvider>),
    ) -> Result<Prepared> {
        let running = self.log().begin(QueryKind::Verify, None, sql);
        let room = Room { runtime: self.work().clone(), meter: running.meter().clone(), reader: None, at: None };
        let mut reads = Reads::new(false);
        let state = self.computing(named, own, &room, &mut reads).await?;
        let plan = state.statement_to_plan(self.parse(sql)?).await;
        let plan = plan.and_then(|plan| bounded::share(plan, self.limits().memory_bytes));
        let plan = plan.map_err(|e| self.explain(&e))?;
        Ok(Prepared { state, plan, running, reads })
    }

    /// A session in which a view can be computed by SQL: with the table of its stream, one more, and sums as exact as the view's.
    pub(crate) async fn computing(
        &self,
        stream: &str,
        (name, own): (&str, Arc<dyn TableProvider>),
        room: &Room,
        reads: &mut Reads,
    ) -> Result<SessionState> {
        let mut state = self.session(&BTreeSet::from([stream.to_owned()]), room, reads).await?;
        state.register_udaf(Arc::new(engine::exact_sum())).map_err(|e| self.explain(&e))?;
        let schema = state.schema_for_ref(name).map_err(|e| self.explain(&e))?;
        schema.register_table(name.to_owned(), own).map_err(|e| self.explain(&e))?;
        Ok(state)
    }

    /// Plans a query over views as they are declared, without reading anything: its columns.
    ///
    /// # Errors
    /// `Refused` when it is wrong.
    pub async fn plan(&self, statement: Statement) -> Result<LogicalPlan> {
        let (none, mut reads) = (BTreeSet::new(), Reads::of_declared());
        let runtime = self.base().runtime_env().clone();
        let room = Room { runtime, meter: Arc::default(), reader: None, at: None };
        let state = self.session(&none, &room, &mut reads).await?;
        state.statement_to_plan(statement).await.map_err(|e| self.explain(&e))
    }

    /// Waits for the views that a query names, reads the boundaries of its tables, and plans it.
    pub(crate) async fn prepare(&self, statement: Statement, room: &Room, table: Option<&str>) -> Result<Planned> {
        let mut named = self.named(&statement)?;
        named.extend(table.map(str::to_owned));
        self.check_reader(&named, room.reader.as_deref())?;
        if only_tells(&statement) {
            named.clear();
        }
        let applied = self.freshen(&named).await?;
        // transforms sort all that they write, and a filter is compiled for the columns as they are
        let filters = room.reader.as_ref().is_some_and(|reader| !reader.filters.is_empty()) || room.at.is_some();
        let mut reads = Reads::new(table.is_none() && !filters);
        match &room.at {
            None => reads.offsets = applied,
            Some(at) => past::prepare(self, &named, (at.as_ref(), &applied), room, &mut reads).await?,
        }
        let state = self.session(&named, room, &mut reads).await?;
        let plan = reads.plan(&state, &statement).await;
        match plan.and_then(|plan| bounded::share(plan, self.limits().memory_bytes)) {
            Ok(plan) => Ok(Planned { state, plan, reads }),
            Err(error) => Err(self.unplanned(statement, &named, &error).await),
        }
    }

    /// Waits for the named views, tables and derived streams.
    async fn freshen(&self, named: &BTreeSet<String>) -> Result<Offsets> {
        let (views, mut offsets) = (&self.source().views, Offsets::new());
        for view in named.iter().filter(|name| views.follows(name)) {
            merge(&mut offsets, views.fresh(view, FRESH_WAIT_MS_MAX.min(self.limits().time_ms)).await?);
        }
        Ok(offsets)
    }
}

/// What two parts of a query have both applied: the lesser offset.
pub(crate) fn merge(into: &mut Offsets, more: Offsets) {
    for (topic, partitions) in more {
        let known = into.entry(topic).or_default();
        for (partition, offset) in partitions {
            known.entry(partition).and_modify(|known| *known = offset.min(*known)).or_insert(offset);
        }
    }
}
