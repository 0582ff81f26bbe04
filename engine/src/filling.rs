//! A view whose declaration has changed, for who goes by what is declared: panels, sinks, alerts, transforms, filters of tokens. Until
//! the declared version is filled, the former one is served with the columns that it had. What fits those goes on with
//! them; what does not waits, and says how far the filling is.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::Schema;
use datafusion::catalog::TableProvider;

use crate::engine::{Engine, ViewInfo};
use crate::status::{SuccessorStatus, successor_status};
use crate::table::view_table;

/// The declared version of a view, while it is filled beside the one that is served.
#[derive(Debug, Clone)]
pub struct Filling {
    /// The view as it is declared.
    pub view: ViewInfo,
    /// How far it is.
    pub status: SuccessorStatus,
}

impl Filling {
    /// Whether a filter of rows and columns, which is written for the declared columns, knows all columns that are served: one
    /// that was taken out of the declaration may be what nobody is to see any more.
    pub fn knows(&self, served: &Schema) -> bool {
        let declared = &self.view.schema;
        served.fields().iter().all(|field| declared.field_with_name(field.name()).is_ok())
    }

    /// What is said where `what` does not fit the version that is served.
    pub fn needed_by(&self, what: &str) -> String {
        format!("{self}: {what} does not fit the former version, which is served until then")
    }
}

impl fmt::Display for Filling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, SuccessorStatus { left, error, fill, .. }) = (&self.view.name, &self.status);
        match (error, &fill.waits_for) {
            (Some(error), _) => write!(f, "view {name} cannot be filled: {error}"),
            (None, Some(why)) => write!(f, "view {name} is being filled: {left} offsets left, it waits: {why}"),
            (None, None) => write!(f, "view {name} is being filled: {left} offsets left"),
        }
    }
}

impl Engine {
    /// The version of a view that is filled beside the one that is served; None where the one that is declared is served.
    pub fn filling(&self, view: &str) -> Option<Filling> {
        let running = self.running();
        let successor = running.successor(view)?;
        let served = running.view(view).ok()?;
        let status = successor_status(&self.broker, served, successor);
        Some(Filling { view: ViewInfo::of(&successor.plan), status })
    }

    /// The same as a table, for planning queries that will read it: it has a part of its rows.
    pub fn filling_table(&self, view: &str) -> Option<Arc<dyn TableProvider>> {
        let successor = self.running().successor(view)?.clone();
        Some(view_table(self.broker.clone(), successor))
    }
}
