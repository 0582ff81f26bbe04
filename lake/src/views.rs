//! The engine's views as queries read them.

use std::sync::Arc;

use datafusion::catalog::TableProvider;
use engine::Engine;
use futures::future::BoxFuture;

use crate::Offsets;
use crate::error::{LakeError, Result};
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

    fn fresh<'a>(&'a self, view: &'a str, wait_ms: u64) -> BoxFuture<'a, Result<Offsets>> {
        Box::pin(async move { self.wait_fresh(view, wait_ms).await.map_err(LakeError::from) })
    }
}
