//! The session of one query: the tables and views by name, as one reader sees them, with the boundary of each that the
//! query names read once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use datafusion::catalog::{
    CatalogProvider, CatalogProviderList, MemoryCatalogProvider, MemoryCatalogProviderList, MemorySchemaProvider,
    SchemaProvider, TableProvider,
};
use datafusion::error::DataFusionError;
use datafusion::execution::context::SessionState;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::parser::Statement;
use engine::Filling;

use crate::Offsets;
use crate::error::{LakeError, LakeErrorKind, Result};
use crate::file_scan::{Files, FilesAt};
use crate::guarded::GuardedTable;
use crate::hybrid::{Boundary, HybridTable};
use crate::meter::Meter;
use crate::past;
use crate::prepare::merge;
use crate::query::{CATALOG, Queries, SCHEMA, Source};
use crate::reader::{Reader, RowFilter, Sight};
use crate::system_tables;
use crate::tables::Table;
use crate::text_views::{ReadAs, keeps_rows};
use crate::transform::{TableFiles, WrittenScan};
use crate::views::Views;

/// Longest wait for a destination that was not opened yet.
const OPEN_WAIT_MAX: Duration = Duration::from_secs(5);

/// Who reads, with what memory, and what counts it.
#[derive(Clone)]
pub struct Room {
    /// Memory and files.
    pub runtime: Arc<RuntimeEnv>,
    /// Counts what is read.
    pub meter: Arc<Meter>,
    /// Who reads; none: one who sees everything.
    pub reader: Option<Arc<Reader>>,
    /// The offsets that end what is read; none: all there is.
    pub at: Option<Arc<Offsets>>,
}

/// What a query reads, kept from being deleted as long as this lives.
pub struct Reads {
    /// How it reads text.
    pub read_as: Arc<ReadAs>,
    /// Of each topic, the next offset per partition.
    pub offsets: Offsets,
    /// What is not in it any more, and should be.
    pub notes: Vec<String>,
    /// The views that are read as they were, by name.
    pub past: BTreeMap<String, Arc<dyn TableProvider>>,
    /// Whether views have the columns that are declared, also while a version with others is served: then nothing is read.
    as_declared: bool,
    boundaries: Vec<Arc<Boundary>>,
    files: Vec<TableFiles>,
}

impl Reads {
    /// Nothing yet.
    pub fn new(views: bool) -> Self {
        Self {
            read_as: ReadAs::new(views),
            offsets: Offsets::new(),
            notes: Vec::new(),
            past: BTreeMap::new(),
            as_declared: false,
            boundaries: Vec::new(),
            files: Vec::new(),
        }
    }

    /// Nothing at all, of views as they are declared.
    pub fn of_declared() -> Self {
        Self { as_declared: true, ..Self::new(false) }
    }

    /// The plan of a statement, with text read as suits it.
    ///
    /// # Errors
    /// DataFusion's.
    pub async fn plan(&self, state: &SessionState, statement: &Statement) -> Result<LogicalPlan, DataFusionError> {
        let plan = state.statement_to_plan(statement.clone()).await?;
        if !self.read_as.is_views() || !keeps_rows(&plan)? {
            return Ok(plan);
        }
        self.read_as.set_plain();
        state.statement_to_plan(statement.clone()).await
    }

    /// Whether any file is read.
    fn any(&self) -> bool {
        self.boundaries.iter().any(|boundary| boundary.has_files()) || self.files.iter().any(|files| !files.is_empty())
    }
}

/// Names being given to tables, as the reader sees them.
struct Names<'a> {
    schema: MemorySchemaProvider,
    reader: Option<&'a Reader>,
    named: &'a BTreeSet<String>,
}

impl Names<'_> {
    /// Gives all views their names: as they were, as they are declared, or as they are served.
    fn add_views(&self, views: &dyn Views, reads: &Reads) -> Result<()> {
        for view in views.names() {
            // as it was, it has the columns of the version that is served
            let served = reads.past.get(&view).cloned().or_else(|| views.table(&view));
            match (views.filling(&view), served) {
                (Some((_, declared)), _) if reads.as_declared => self.add(&view, declared)?,
                (filling, Some(served)) => {
                    self.add_version(&view, served, filling.map(|(filling, _)| filling).as_ref())?
                }
                (_, None) => {}
            }
        }
        Ok(())
    }

    /// Gives a table its name, unless it is taken or closed to the reader.
    fn add(&self, name: &str, table: Arc<dyn TableProvider>) -> Result<()> {
        self.add_version(name, table, None)
    }

    /// The same for a view, of which another version may be `declared`.
    fn add_version(&self, name: &str, table: Arc<dyn TableProvider>, declared: Option<&Filling>) -> Result<()> {
        let table: Arc<dyn TableProvider> = match self.reader.map_or(Sight::Whole, |reader| reader.sight(name)) {
            Sight::Closed(_) => return Ok(()),
            Sight::Whole => table,
            Sight::Part(filter) => match guarded(name, table, (filter, declared)) {
                Ok(guarded) => Arc::new(guarded),
                // A filter that does not fit closes the table, and is told to who names it.
                Err(_) if !self.named.contains(name) => return Ok(()),
                Err(error) => return Err(error),
            },
        };
        if self.schema.table_exist(name) {
            return Ok(());
        }
        let bug = |e: DataFusionError| LakeError::bug(format!("a table cannot be named: {e}"));
        self.schema.register_table(name.to_owned(), table).map_err(bug)?;
        Ok(())
    }
}

/// A table seen through a filter. Filters are written for the columns that are declared: a version of a view that has others,
/// or that the filter does not fit, is not shown.
fn guarded(
    name: &str,
    table: Arc<dyn TableProvider>,
    (filter, declared): (&RowFilter, Option<&Filling>),
) -> Result<GuardedTable> {
    let Some(declared) = declared else { return GuardedTable::new(name, table, filter) };
    let waits = || LakeError::filling(declared, "the token's filter");
    if !declared.knows(&table.schema()) {
        return Err(waits());
    }
    GuardedTable::new(name, table, filter).map_err(|_| waits())
}

impl Queries {
    /// Refuses a query that names what is closed to its reader.
    pub(crate) fn check_reader(&self, named: &BTreeSet<String>, reader: Option<&Reader>) -> Result<()> {
        let Some(reader) = reader else { return Ok(()) };
        let known = self.names();
        let is_known = |name: &String| known.contains(name) || system_tables::NAMES.contains(&name.as_str());
        let closed = named.iter().filter(|name| is_known(name)).find_map(|name| match reader.sight(name) {
            Sight::Closed(why) => Some(why),
            Sight::Whole | Sight::Part(_) => None,
        });
        closed.map_or(Ok(()), |why| Err(LakeError::new(LakeErrorKind::Forbidden, why)))
    }

    /// The names of the tables and views that are declared.
    pub(crate) fn names(&self) -> Vec<String> {
        let source = self.source();
        let mut names: Vec<String> = source.tables.now().iter().map(|table| table.name.clone()).collect();
        names.extend(source.written.iter().map(|table| table.config.name.clone()));
        names.extend(source.views.names());
        names
    }

    /// A session in which the tables and views have their names, those that the query names with their boundaries read.
    pub(crate) async fn session(
        &self,
        named: &BTreeSet<String>,
        room: &Room,
        reads: &mut Reads,
    ) -> Result<SessionState> {
        let names = Names { schema: MemorySchemaProvider::new(), reader: room.reader.as_deref(), named };
        names.add_views(self.source().views.as_ref(), reads)?;
        let tables = self.source().tables.now();
        let mut hybrids = Vec::with_capacity(tables.len());
        for table in tables.iter() {
            let boundary = match named.contains(&table.name) {
                true => Some(self.boundary(table, room.at.as_deref(), reads)?),
                false => None,
            };
            let (table, decoded, meter) = (table.clone(), self.decoded().clone(), room.meter.clone());
            hybrids.push(HybridTable { table, boundary, read_as: reads.read_as.clone(), files: None, decoded, meter });
        }
        let mut written = Vec::new();
        for table in &self.source().written {
            let Some(planned) = table.planned.get() else { continue };
            let is_named = named.contains(&table.config.name);
            let files = if is_named { table.files() } else { TableFiles::default() };
            reads.files.push(files.clone());
            written.push(WrittenScan {
                name: table.config.name.clone(),
                layout: planned.layout.clone(),
                is_named,
                read_as: reads.read_as.clone(),
                files,
                at: None,
            });
        }
        let at = if reads.any() { self.files(room).await } else { None };
        for table in hybrids {
            let name = table.table.name.clone();
            let beyond = table.boundary.as_ref().and_then(|boundary| boundary.beyond());
            let table = Arc::new(HybridTable { files: at.clone(), ..table });
            match beyond {
                None => names.add(&name, table)?,
                Some(within) => {
                    let filter = RowFilter { condition: Some(within), masked: Vec::new() };
                    names.add(&name, Arc::new(GuardedTable::new(&name, table, &filter)?))?;
                }
            }
        }
        for table in written {
            let name = table.name.clone();
            names.add(&name, Arc::new(WrittenScan { at: at.clone(), ..table }))?;
        }
        for (name, table) in system_tables::tables(self) {
            names.add(name, table)?;
        }
        let (catalog, catalogs) = (MemoryCatalogProvider::new(), MemoryCatalogProviderList::new());
        let bug = |e: DataFusionError| LakeError::bug(format!("a table cannot be named: {e}"));
        catalog.register_schema(SCHEMA, Arc::new(names.schema)).map_err(bug)?;
        catalogs.register_catalog(CATALOG.to_owned(), Arc::new(catalog));
        let builder = SessionStateBuilder::new_from_existing(self.base().clone());
        let mut state = builder.with_runtime_env(room.runtime.clone()).with_catalog_list(Arc::new(catalogs)).build();
        // What now() is, for the whole statement.
        let now = chrono::DateTime::from_timestamp_millis(self.source().broker.clock().now_ms());
        state.execution_props_mut().query_execution_start_time = now;
        Ok(state)
    }

    /// Reads the boundary of a table, as of now or as of offsets before it.
    fn boundary(&self, table: &Table, at: Option<&Offsets>, reads: &mut Reads) -> Result<Arc<Boundary>> {
        let Source { broker, manifest, floors, .. } = &**self.source();
        let mut boundary = Boundary::read(table, broker, manifest, floors);
        if let Some(at) = at {
            reads.notes.extend(boundary.end_at(&table.topic, past::ends(at, &table.topic, &table.name)?)?);
            if table.settles.as_ref().is_some_and(|settles| settles.expire_after_ms.is_some()) {
                reads
                    .notes
                    .push(format!("old slices of {} are deleted (expire_after): their rows are missing", table.name));
            }
        }
        let boundary = Arc::new(boundary);
        merge(&mut reads.offsets, BTreeMap::from([(table.topic.clone(), boundary.offsets())]));
        reads.boundaries.push(boundary.clone());
        Ok(boundary)
    }

    /// Where files are; none when the destination does not answer soon.
    async fn files(&self, room: &Room) -> Files {
        let objects = tokio::time::timeout(OPEN_WAIT_MAX, self.source().destination.get()).await.ok()?.ok()?;
        let url = objects.register(&room.runtime).ok()?;
        Some(FilesAt { objects, url, meter: room.meter.clone() })
    }
}
