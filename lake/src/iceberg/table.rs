//! One Iceberg table: its metadata, brought in line with what the manifest has.
//!
//! A commit is four steps, each complete before the next:
//!
//! 1. each new data file gets its second name, where the destination knows such;
//! 2. manifests and their list are written, under names that are this attempt's alone;
//! 3. `v<N+1>.metadata.json` appears in one piece: the table has the snapshot;
//! 4. `version-hint.text` says so.
//!
//! Before 3 a crash leaves files that nothing reaches; between 3 and 4 an older hint, which readers see past or which shows
//! the snapshot before. The next start goes on from the newest metadata that can be read whole (`load`).

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema as ArrowSchema, SchemaRef};
use bytes::Bytes;
use iceberg::spec::{
    FormatVersion, PartitionSpecRef, Schema, Snapshot, SortOrder, TableMetadata, TableMetadataBuilder, Transform,
    UnboundPartitionSpec,
};

use super::avro::Writing;
use super::change::{self, Amount, Moment};
use super::columns::{name_mapping, schema_of};
use super::place::Place;
use super::reach::{Held, Reach};
use super::snapshot::{SnapshotWriter, Told};
use super::{LakeFile, told};
use crate::error::{LakeError, Result};
use crate::objects::{Linked, Objects};
use crate::settle::{Fault, Step};
use crate::slice::{FNV_START, Level, Value, fnv1a_on};

/// Snapshots that are kept, however long they are to be.
const SNAPSHOTS_MAX: usize = 1_000;
/// Versions of the metadata that are kept beside the current one.
const VERSIONS_KEPT: &str = "20";
/// Files that are deleted after one commit; the others go after the next ones.
const DELETES_MAX: usize = 1_000;
const NAME_MAPPING: &str = "schema.name-mapping.default";
const BRANCH: &str = "main";

/// What the table is to be.
#[derive(Debug)]
pub struct Wanted {
    /// Its columns.
    pub columns: SchemaRef,
    /// Those of them that are levels of directories, outermost first.
    pub levels: Vec<String>,
    /// Its files, of one moment.
    pub files: Vec<LakeFile>,
    /// Whether its rows are those of a topic.
    pub is_log: bool,
    /// How far the partitions of the topic were settled then, as JSON.
    pub offsets: Option<String>,
}

/// When it is, how long snapshots are kept, and what tells this attempt from all others.
pub struct Rules {
    /// Now, in ms since 1970.
    pub now_ms: i64,
    /// How long a snapshot can be read after another took its place, in ms.
    pub keep_ms: i64,
    /// Part of the names of what is written.
    pub attempt: String,
    /// Only in tests.
    pub fault: Option<Fault>,
}

impl Rules {
    fn step(&self, step: Step) -> Result<()> {
        self.fault.as_ref().map_or(Ok(()), |fault| fault(step))
    }
}

/// A table. Holds: its metadata, what its snapshots reach, and what can be deleted. The destination has the same; whoever
/// met an error forgets this one and loads it again.
pub struct IcebergTable {
    place: Place,
    metadata: TableMetadata,
    version: u64,
    /// The version that is written next: no file has its name.
    next: u64,
    is_written: bool,
    is_hinted: bool,
    reach: Reach,
    garbage: BTreeSet<String>,
}

/// A file that is new: its place in [`Wanted::files`], where its footer is read, and what manifests call it.
pub type New = (usize, String, String);

/// What a snapshot has to change.
#[derive(Debug, Default)]
pub struct Difference {
    /// Files that are new.
    pub added: Vec<New>,
    /// URLs of files that are gone.
    pub removed: HashSet<Arc<str>>,
}

/// A snapshot whose files are written.
struct Written {
    snapshot: Snapshot,
    held: Held,
    files: Vec<String>,
}

impl IcebergTable {
    /// A table that is not written yet.
    ///
    /// # Errors
    /// `Bug` when the columns make no table.
    pub fn new(place: Place, wanted: &Wanted) -> Result<Self> {
        let failed = || told("a new table");
        let schema = schema_of(None, &columns_of(wanted))?;
        let spec = partitioning(&schema, &wanted.levels)?;
        let properties = HashMap::from([("write.metadata.previous-versions-max".into(), VERSIONS_KEPT.to_owned())]);
        let location = place.url(place.dir());
        let order = SortOrder::unsorted_order();
        let builder = TableMetadataBuilder::new(schema, spec, order, location, FormatVersion::V2, properties);
        let metadata = builder.and_then(TableMetadataBuilder::build).map_err(failed())?.metadata;
        let mapping = name_mapping(metadata.current_schema()).to_string();
        let builder = metadata.into_builder(None).set_properties(HashMap::from([(NAME_MAPPING.into(), mapping)]));
        let metadata = builder.and_then(TableMetadataBuilder::build).map_err(failed())?.metadata;
        let (reach, garbage) = (Reach::default(), BTreeSet::new());
        Ok(Self { place, metadata, version: 0, next: 1, is_written: false, is_hinted: false, reach, garbage })
    }

    /// A table as its directory has it.
    pub fn loaded(place: Place, metadata: TableMetadata, version: u64, reach: Reach) -> Self {
        let (next, garbage) = (version + 1, BTreeSet::new());
        Self { place, metadata, version, next, is_written: true, is_hinted: false, reach, garbage }
    }

    /// Notes what was found in its directory: what nothing reaches is garbage.
    pub fn found(&mut self, files: Vec<String>, hint: Option<&[u8]>) {
        let last = files.iter().filter_map(|at| self.place.version_of(at)).max();
        self.next = self.next.max(last.unwrap_or(0) + 1);
        self.is_hinted = self.is_written && hint == Some(self.version.to_string().as_bytes());
        let logged: HashSet<&str> = self.metadata.metadata_log().iter().map(|log| log.metadata_file.as_str()).collect();
        let hint = self.place.metadata("version-hint.text");
        let is_kept = |at: &String| {
            let url = self.place.url(at);
            let current = self.is_written && self.place.version_of(at) == Some(self.version);
            *at == hint || current || logged.contains(url.as_str()) || self.reach.has(&url)
        };
        self.garbage = files.into_iter().filter(|at| !is_kept(at)).collect();
    }

    /// The metadata, and the URL of its file; none before it is written.
    pub fn shown(&self) -> Option<(String, Arc<TableMetadata>)> {
        self.is_written.then(|| (self.place.url(&self.place.version(self.version)), Arc::new(self.metadata.clone())))
    }

    /// Snapshots that can be read.
    pub fn snapshots(&self) -> usize {
        self.reach.held().len()
    }

    /// Paths of the files that snapshots name where readers of directories find them, too.
    pub fn unlinked(&self) -> impl Iterator<Item = &str> {
        let paths = self.reach.files().filter_map(|url| self.place.below_root(url));
        paths.filter(|at| !self.place.is_link(at))
    }

    /// Brings the table in line with what it is to be; false when the files moved on meanwhile: to be asked again with those
    /// of a later moment.
    ///
    /// # Errors
    /// `Destination` or `Bug`; the table must be loaded again then.
    pub async fn sync(&mut self, objects: &Objects, wanted: &Wanted, rules: &Rules) -> Result<bool> {
        let evolved = self.evolved(wanted)?;
        let metadata = evolved.as_ref().unwrap_or(&self.metadata);
        let Some(difference) = self.difference(objects, wanted).await? else { return Ok(false) };
        let written = match difference.added.is_empty() && difference.removed.is_empty() {
            true => None,
            false => Some(self.write(objects, metadata, (wanted, &difference), rules).await?),
        };
        let expired = self.expired(wanted, written.as_ref(), rules);
        if written.is_some() || !expired.is_empty() || evolved.is_some() || !self.is_written {
            let metadata = evolved.unwrap_or_else(|| self.metadata.clone());
            self.commit(objects, (metadata, rules), written, &expired).await?;
        } else if !self.is_hinted {
            self.hint(objects).await?;
        }
        self.sweep(objects).await;
        Ok(true)
    }

    /// The metadata with other columns or another partitioning, where they changed.
    fn evolved(&self, wanted: &Wanted) -> Result<Option<TableMetadata>> {
        let failed = || told("a changed table");
        let mut metadata = self.metadata.clone();
        let mut changed = false;
        let schema = schema_of(Some(&metadata), &columns_of(wanted))?;
        if schema.as_struct() != metadata.current_schema().as_struct() {
            let builder = metadata.into_builder(None).add_current_schema(schema).map_err(failed())?;
            // the default partitioning may need a column that is no level any more
            metadata = self.with_partitioning(builder, wanted)?;
            let mapping = name_mapping(metadata.current_schema()).to_string();
            let builder = metadata.into_builder(None).set_properties(HashMap::from([(NAME_MAPPING.into(), mapping)]));
            metadata = builder.and_then(TableMetadataBuilder::build).map_err(failed())?.metadata;
            changed = true;
        } else if !is_of(metadata.default_partition_spec(), &metadata, &wanted.levels) {
            metadata = self.with_partitioning(metadata.into_builder(None), wanted)?;
            changed = true;
        }
        for levels in wanted.files.iter().map(|file| level_names(&file.levels)).collect::<BTreeSet<_>>() {
            if spec_of(&metadata, &levels).is_none() {
                let spec = partitioning(metadata.current_schema(), &levels)?;
                let builder = metadata.into_builder(None).add_partition_spec(spec).map_err(failed())?;
                metadata = builder.build().map_err(failed())?.metadata;
                changed = true;
            }
        }
        Ok(changed.then_some(metadata))
    }

    fn with_partitioning(&self, builder: TableMetadataBuilder, wanted: &Wanted) -> Result<TableMetadata> {
        let failed = || told("a changed partitioning");
        let schema = schema_of(Some(&self.metadata), &columns_of(wanted))?;
        let spec = partitioning(&schema, &wanted.levels)?;
        let built = builder.add_default_partition_spec(spec).and_then(TableMetadataBuilder::build);
        Ok(built.map_err(failed())?.metadata)
    }

    /// What is new and what is gone. None when a file is not where the manifest had it.
    async fn difference(&self, objects: &Objects, wanted: &Wanted) -> Result<Option<Difference>> {
        let mut removed: HashSet<Arc<str>> =
            self.reach.current().iter().flat_map(|manifest| manifest.live.iter().cloned()).collect();
        let mut added = Vec::new();
        for (at, file) in wanted.files.iter().enumerate() {
            let link = self.place.link(file);
            let (linked, plain) = (self.place.url(&link), self.place.url(&file.path));
            if removed.remove(linked.as_str()) || removed.remove(plain.as_str()) {
                continue;
            }
            match objects.link(&file.path, &link).await? {
                Linked::Done => added.push((at, link, linked)),
                Linked::Refused => added.push((at, file.path.clone(), plain)),
                Linked::Gone => return Ok(None),
            }
        }
        Ok(Some(Difference { added, removed }))
    }

    async fn write(
        &self,
        objects: &Objects,
        metadata: &TableMetadata,
        (wanted, difference): (&Wanted, &Difference),
        rules: &Rules,
    ) -> Result<Written> {
        let writing = Writing {
            id: self.new_id(&rules.attempt),
            parent: metadata.current_snapshot_id(),
            sequence: metadata.last_sequence_number() + 1,
        };
        let mut writer = SnapshotWriter::new((objects, &self.place), metadata, writing, &rules.attempt);
        let Told { added, removed, slices } = writer.tell(self.reach.current(), wanted, difference).await?;
        let (list, manifests, mut files) = writer.finish().await?;
        files.extend(difference.added.iter().map(|(_, at, _)| at.clone()).filter(|at| self.place.is_link(at)));
        let mut total = Amount::default();
        wanted.files.iter().for_each(|file| total.add(file.rows, file.bytes));
        let mut summary = change::summary((added, removed), total, slices, wanted.is_log);
        if let Some(offsets) = &wanted.offsets {
            summary.additional_properties.insert("millpond.offsets".into(), offsets.clone());
        }
        let snapshot = Snapshot::builder()
            .with_snapshot_id(writing.id)
            .with_parent_snapshot_id(writing.parent)
            .with_sequence_number(writing.sequence)
            .with_timestamp_ms(rules.now_ms.max(metadata.last_updated_ms()))
            .with_manifest_list(list.clone())
            .with_schema_id(metadata.current_schema_id())
            .with_summary(summary)
            .build();
        Ok(Written { snapshot, held: Held { id: writing.id, list, manifests }, files })
    }

    /// An id that no snapshot of the table has.
    fn new_id(&self, attempt: &str) -> i64 {
        let text = format!("{} {} {attempt}", self.metadata.uuid(), self.metadata.last_sequence_number());
        let mut hash = fnv1a_on(FNV_START, text.as_bytes());
        loop {
            let id = (hash & (u64::MAX >> 1)).cast_signed();
            if id > 0 && self.metadata.snapshot_by_id(id).is_none() {
                return id;
            }
            hash = hash.wrapping_add(1);
        }
    }

    /// The snapshots that go now: too old, too many, or naming a file that is about to leave its place.
    fn expired(&self, wanted: &Wanted, written: Option<&Written>, rules: &Rules) -> Vec<i64> {
        let staying: HashSet<&str> = wanted.files.iter().map(|file| file.path.as_str()).collect();
        let leaving: HashSet<String> =
            self.unlinked().filter(|at| !staying.contains(at)).map(|at| self.place.url(at)).collect();
        let is_losing = |held: &Held| {
            let names = |url: &Arc<str>| leaving.contains(&**url);
            !leaving.is_empty() && held.manifests.iter().any(|manifest| manifest.live.iter().any(names))
        };
        let at_ms = |id| self.metadata.snapshot_by_id(id).map_or(0, |snapshot| snapshot.timestamp_ms());
        let of = |held: &Held| Moment { id: held.id, at_ms: at_ms(held.id), is_losing: is_losing(held) };
        let mut moments: Vec<Moment> = self.reach.held().iter().map(of).collect();
        moments.extend(written.map(|written| Moment {
            id: written.held.id,
            at_ms: written.snapshot.timestamp_ms(),
            is_losing: false,
        }));
        change::expired(&moments, rules.now_ms, rules.keep_ms, SNAPSHOTS_MAX)
    }

    async fn commit(
        &mut self,
        objects: &Objects,
        (metadata, rules): (TableMetadata, &Rules),
        written: Option<Written>,
        expired: &[i64],
    ) -> Result<()> {
        let failed = || told("a commit");
        let previous = self.is_written.then(|| self.place.url(&self.place.version(self.version)));
        let mut builder = metadata.into_builder(previous);
        let (mut held, mut files) = (None, Vec::new());
        if let Some(written) = written {
            builder = builder.set_branch_snapshot(written.snapshot, BRANCH).map_err(failed())?;
            (held, files) = (Some(written.held), written.files);
        }
        let built = builder.remove_snapshots(expired).build().map_err(failed())?;
        let json = serde_json::to_vec(&built.metadata).map_err(|e| LakeError::bug(format!("Iceberg metadata: {e}")))?;
        rules.step(Step::Listed)?;
        let version = self.next;
        let file = self.place.version(version);
        objects.put_whole(&file, Bytes::from(json)).await?;
        files.push(file);
        objects.sync(&files).await?;
        rules.step(Step::Hinted)?;
        self.metadata = built.metadata;
        (self.version, self.next, self.is_written) = (version, version + 1, true);
        self.hint(objects).await?;
        held.into_iter().for_each(|held| self.reach.push(held));
        let mut gone: Vec<String> = expired.iter().flat_map(|id| self.reach.forget(*id)).collect();
        gone.extend(built.expired_metadata_logs.into_iter().map(|log| log.metadata_file));
        let ours = |at: &&str| self.place.is_link(at) || at.starts_with(&self.place.metadata(""));
        let gone = gone.iter().filter_map(|url| self.place.below_root(url)).filter(ours);
        self.garbage.extend(gone.map(str::to_owned));
        Ok(())
    }

    async fn hint(&mut self, objects: &Objects) -> Result<()> {
        let hint = self.place.metadata("version-hint.text");
        objects.put_whole(&hint, Bytes::from(self.version.to_string())).await?;
        objects.sync(&[hint]).await?;
        self.is_hinted = true;
        Ok(())
    }

    /// Deletes what nothing reaches; what cannot be deleted now is tried again.
    async fn sweep(&mut self, objects: &Objects) {
        let some: Vec<String> = self.garbage.iter().take(DELETES_MAX).cloned().collect();
        for at in some {
            if !self.reach.has(&self.place.url(&at))
                && let Err(error) = objects.delete(&at).await
            {
                tracing::debug!(%error, "a file of an expired snapshot stays until the next commit");
                return;
            }
            self.garbage.remove(&at);
        }
    }
}

/// The columns of the table, and those that are levels of older files only.
fn columns_of(wanted: &Wanted) -> ArrowSchema {
    let mut fields: Vec<Arc<Field>> = wanted.columns.fields().iter().cloned().collect();
    let known: HashSet<String> = fields.iter().map(|field| field.name().clone()).collect();
    let mut older: BTreeMap<&str, DataType> = BTreeMap::new();
    let levels = wanted.files.iter().flat_map(|file| &file.levels);
    for level in levels.filter(|level| !known.contains(&level.column)) {
        let kind = match (&level.value, level.derived) {
            (Value::Int(_), true) => DataType::Int32,
            (Value::Int(_), false) => DataType::Int64,
            (Value::Bool(_), _) => DataType::Boolean,
            (Value::Date(_), _) => DataType::Date32,
            (Value::Text(_), _) => DataType::Utf8,
            // a file with a value tells more
            (Value::Null, _) => DataType::Null,
        };
        let found = older.entry(&level.column).or_insert(DataType::Null);
        if *found == DataType::Null {
            *found = kind;
        }
    }
    for (name, kind) in older {
        let kind = if kind == DataType::Null { DataType::Utf8 } else { kind };
        fields.push(Arc::new(Field::new(name, kind, true)));
    }
    ArrowSchema::new(fields)
}

/// The names of a slice's levels that are columns of the table.
fn level_names(levels: &[Level]) -> Vec<String> {
    levels.iter().map(|level| level.column.clone()).collect()
}

/// Partitioning by the values of these columns.
fn partitioning(schema: &Schema, levels: &[String]) -> Result<UnboundPartitionSpec> {
    let mut builder = UnboundPartitionSpec::builder();
    for level in levels {
        let field = schema.as_struct().fields().iter().find(|field| field.name == *level);
        let field = field.ok_or_else(|| LakeError::bug(format!("{level} is a level and no column")))?;
        let name = partition_name(schema, level);
        builder = builder.add_partition_field(field.id, name, Transform::Identity).map_err(told("a partitioning"))?;
    }
    Ok(builder.build())
}

/// The name of a partition field: the column's, as far as Avro allows it.
fn partition_name(schema: &Schema, column: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' };
    let mut name: String = column.chars().map(plain).collect();
    if name.starts_with(|c: char| c.is_ascii_digit()) {
        name.insert(0, '_');
    }
    while name != column && schema.as_struct().fields().iter().any(|field| field.name == name) {
        name.push('_');
    }
    name
}

/// The partitioning by these columns, if the table has it.
pub fn spec_of(metadata: &TableMetadata, levels: &[String]) -> Option<PartitionSpecRef> {
    let default = metadata.default_partition_spec();
    let mut specs = std::iter::once(default).chain(metadata.partition_specs_iter());
    specs.find(|spec| is_of(spec, metadata, levels)).cloned()
}

fn is_of(spec: &PartitionSpecRef, metadata: &TableMetadata, levels: &[String]) -> bool {
    let id = |level: &String| metadata.current_schema().field_id_by_name(level);
    let sources = spec.fields().iter().map(|field| Some(field.source_id));
    sources.eq(levels.iter().map(id))
}

/// The names of a file's levels.
pub fn levels_of(file: &LakeFile) -> Vec<String> {
    level_names(&file.levels)
}
