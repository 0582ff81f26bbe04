//! The engine's views as queries read them: as they are served. What a query needs that only the declared version of a view has waits until
//! that is filled.

use std::collections::BTreeSet;
use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::error::DataFusionError;
use datafusion::sql::parser::Statement;
use engine::{Engine, Filling};
use futures::future::BoxFuture;

use crate::Offsets;
use crate::error::{LakeError, LakeErrorKind, Result};
use crate::past::Declared;
use crate::query::Queries;

/// The engine's views and tables, as queries need them.
pub trait Views: Send + Sync {
    /// The names of all views and of what else the engine shows as a table.
    fn names(&self) -> Vec<String>;
    /// A view as a table.
    fn table(&self, view: &str) -> Option<Arc<dyn TableProvider>>;
    /// The declared version of a view and how far it is, while another one is served. As a table it is only planned with.
    fn filling(&self, _view: &str) -> Option<(Filling, Arc<dyn TableProvider>)> {
        None
    }
    /// Whether `fresh` can wait for this name: a view, or a table or stream that the engine computes.
    fn follows(&self, name: &str) -> bool {
        self.names().iter().any(|known| known == name)
    }
    /// What a view is computed again from; None for what has no past.
    fn declared<'a>(&'a self, _view: &'a str) -> BoxFuture<'a, Result<Option<Declared>>> {
        Box::pin(async { Ok(None) })
    }
    /// Waits until a view has applied everything appended before; gives the offsets applied.
    fn fresh<'a>(&'a self, view: &'a str, wait_ms: u64) -> BoxFuture<'a, Result<Offsets>>;
}

impl Views for Engine {
    fn names(&self) -> Vec<String> {
        self.sql_names()
    }

    fn table(&self, view: &str) -> Option<Arc<dyn TableProvider>> {
        self.sql_table(view)
    }

    fn filling(&self, view: &str) -> Option<(Filling, Arc<dyn TableProvider>)> {
        Engine::filling(self, view).zip(self.filling_table(view))
    }

    fn follows(&self, name: &str) -> bool {
        Engine::follows(self, name)
    }

    fn declared<'a>(&'a self, view: &'a str) -> BoxFuture<'a, Result<Option<Declared>>> {
        Box::pin(async move {
            if self.views().iter().all(|info| info.name != view) {
                return Ok(None);
            }
            let view = self.declared_view(view)?;
            let (not_counted, is_whole) = self.not_counted(&view).await?;
            Ok(Some(Declared { view, not_counted, is_whole }))
        })
    }

    fn fresh<'a>(&'a self, view: &'a str, wait_ms: u64) -> BoxFuture<'a, Result<Offsets>> {
        Box::pin(async move { self.wait_fresh(view, wait_ms).await.map_err(LakeError::from) })
    }
}

impl LakeError {
    /// `what` needs the declared version of a view, and that is still being filled.
    pub fn filling(filling: &Filling, what: &str) -> LakeError {
        LakeError::new(LakeErrorKind::Filling, filling.needed_by(what))
    }
}

impl Queries {
    /// The first of these views whose declared version is still being filled.
    pub(crate) fn filling(&self, named: &BTreeSet<String>) -> Option<Filling> {
        named.iter().find_map(|name| self.source().views.filling(name)).map(|(filling, _)| filling)
    }

    /// Why a query cannot be planned: one that fits the views as they are declared waits for them.
    pub(crate) async fn unplanned(
        &self,
        statement: Statement,
        named: &BTreeSet<String>,
        error: &DataFusionError,
    ) -> LakeError {
        match self.filling(named) {
            Some(filling) if self.plan(statement).await.is_ok() => LakeError::filling(&filling, "the query"),
            _ => self.explain(error),
        }
    }
}
