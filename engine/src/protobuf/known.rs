//! Schemas and message types that were compiled, by the schema's id.

use std::collections::HashMap;
use std::sync::Arc;

use broker::SchemaId;
use parking_lot::RwLock;
use protox::prost_reflect::FileDescriptor;

use super::program::Program;
use super::schema::{Path, message_at};

/// Most files, and most message types, that one stream keeps; beyond, it begins anew.
const KEPT_MAX: usize = 4_096;

/// The message type that the record before had.
pub(crate) type LastMessage = Option<(SchemaId, Path, Arc<Program>)>;

/// What a stream has met; it never changes for an id. Nothing of it is stored.
#[derive(Default)]
pub(crate) struct Known {
    files: RwLock<HashMap<SchemaId, FileDescriptor>>,
    programs: RwLock<HashMap<(SchemaId, Path), Arc<Program>>>,
}

impl Known {
    /// The type of the message at a path of a schema, when it was compiled before.
    pub(crate) fn find(&self, id: SchemaId, path: &Path) -> Option<Arc<Program>> {
        self.programs.read().get(&(id, path.clone())).cloned()
    }

    /// Compiles it for the columns; `file` compiles the schema, and is asked once for each id.
    ///
    /// # Errors
    /// What is wrong with the schema, or that it has no such message.
    pub(crate) fn compile(
        &self,
        (id, path): (SchemaId, &Path),
        file: impl FnOnce() -> Result<FileDescriptor, String>,
        columns: &[&str],
    ) -> Result<Arc<Program>, String> {
        let file = self.file(id, file)?;
        let message = message_at(&file, path).ok_or_else(|| match path.as_slice() {
            [] => "it declares no message".to_owned(),
            path => format!("it declares no message at {path:?}, the path that the record names"),
        })?;
        let program = Arc::new(Program::compile(&message, columns)?);
        keep(&mut self.programs.write(), (id, path.clone()), program.clone());
        Ok(program)
    }

    /// The compiled schema of an id.
    pub(crate) fn file(
        &self,
        id: SchemaId,
        file: impl FnOnce() -> Result<FileDescriptor, String>,
    ) -> Result<FileDescriptor, String> {
        if let Some(known) = self.files.read().get(&id) {
            return Ok(known.clone());
        }
        let compiled = file()?;
        keep(&mut self.files.write(), id, compiled.clone());
        Ok(compiled)
    }
}

fn keep<K: Eq + std::hash::Hash, V>(kept: &mut HashMap<K, V>, key: K, value: V) {
    if kept.len() >= KEPT_MAX {
        kept.clear();
    }
    kept.insert(key, value);
}
