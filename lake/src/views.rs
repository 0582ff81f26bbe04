//! The engine's views as queries read them.

use std::sync::Arc;

use datafusion::catalog::TableProvider;
use engine::Engine;
use futures::future::BoxFuture;

use crate::Offsets;
use crate::error::{LakeError, Result};
use crate::past::Declared;
use crate::query::Views;

impl Views for Engine {
    fn names(&self) -> Vec<String> {
        self.sql_names()
    }

    fn table(&self, view: &str) -> Option<Arc<dyn TableProvider>> {
        self.sql_table(view)
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
