//! A joined table as a table of SQL: all its rows, read from one snapshot when the query is planned to run.

use std::sync::Arc;

use arrow::array::RecordBatch;
use broker::{Broker, Family};
use datafusion::catalog::TableProvider;
use datafusion::logical_expr::TableType;

use super::{Contents, LookupTable};
use crate::error::{EngineError, ErrorKind, Result};
use crate::read_when_planned::{Grow, ReadError, ReadWhenPlanned};

/// Rows decoded at once.
const CHUNK_ROWS: usize = 16_384;
/// Most bytes of rows that one query reads of a table.
const BYTES_MAX: usize = 512 << 20;

/// A table that SQL can select from.
pub(crate) fn lookup_table(broker: Arc<Broker>, table: Arc<LookupTable>) -> Arc<dyn TableProvider> {
    let (name, schema) = (table.name().to_string(), table.schema().clone());
    let read = move |_: &[_], limit: Option<usize>, grow: Grow<'_>| {
        table.read_all(&broker, limit, grow).map_err(|error| Box::new(error) as ReadError)
    };
    ReadWhenPlanned::table(&name, schema, TableType::Base, read)
}

impl LookupTable {
    /// All rows, by key. Blocks.
    pub(crate) fn read_all(&self, broker: &Broker, limit: Option<usize>, grow: Grow<'_>) -> Result<Vec<RecordBatch>> {
        let rows = match &self.contents {
            Contents::Inline(rows) => return Ok(vec![rows.rows().clone()]),
            Contents::Stored(_, rows) => rows,
        };
        let (from, to) = rows.range();
        let snapshot = broker.store().snapshot();
        let mut scan = snapshot.scan(Family::State, &from, &to);
        let (mut batches, mut bytes, mut count) = (Vec::new(), 0, 0);
        let mut values: Vec<Vec<u8>> = Vec::new();
        while let Some(entry) = scan.next_ref() {
            let (_, value) = entry?;
            values.push(value.to_vec());
            if values.len() >= CHUNK_ROWS {
                let batch = rows.decode(values.iter().map(Vec::as_slice))?;
                values.clear();
                grow(batch.get_array_memory_size())?;
                bytes += batch.get_array_memory_size();
                count += batch.num_rows();
                batches.push(batch);
                if bytes > BYTES_MAX {
                    let message = format!("table {} has more rows than one query takes", self.name());
                    return Err(EngineError::new(ErrorKind::TooLarge, message));
                }
                if limit.is_some_and(|limit| count >= limit) {
                    return Ok(batches);
                }
            }
        }
        let batch = rows.decode(values.iter().map(Vec::as_slice))?;
        grow(batch.get_array_memory_size())?;
        batches.push(batch);
        Ok(batches)
    }
}
