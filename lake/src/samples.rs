//! Sample files by SQL: tables that are computed one from the other, and files whose lines are rows.
//!
//! Nothing is read: everything comes from `draw`, which gives the same number from 0 to 1 for the same arguments and seed,
//! for ever. `draw('rate', id)` is a property of `id`; `draw_normal` is the same with a bell curve. One thread, so that rows
//! come in the order that the SQL says, and the same description gives the same bytes.

use std::any::Any;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, RecordBatch};
use arrow::datatypes::{DataType, Schema};
use datafusion::datasource::MemTable;
use datafusion::error::{DataFusionError, Result as DfResult};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use datafusion::prelude::{SessionConfig, SessionContext};
use futures::StreamExt;

use crate::error::{LakeError, LakeErrorKind, Result};

/// Files that one statement may name.
const FILES_OPEN_MAX: usize = 256;

/// What is made.
#[derive(Clone, Debug, Default)]
pub struct Samples {
    /// Where all draws begin.
    pub seed: i64,
    /// The last day of the data, as `2026-11-20`.
    pub today: String,
    /// Numbers that the SQL finds in the one row of the table `given`, beside `seed` and `today`.
    pub given: BTreeMap<String, i64>,
    /// Names and SQL of tables, each of which sees those before it.
    pub tables: Vec<(String, String)>,
    /// The files.
    pub files: Vec<SampleFile>,
}

/// One file, or several of a kind.
#[derive(Clone, Debug)]
pub struct SampleFile {
    /// Where it goes, below the folder, when the SQL gives no column `file`.
    pub path: String,
    /// The first line of each file.
    pub header: Option<String>,
    /// SQL that gives `line`, and maybe `file`, in the order of writing.
    pub sql: String,
}

/// A file that was written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Written {
    /// Its path below the folder.
    pub path: String,
    /// Its lines, without the header.
    pub lines: u64,
}

impl Samples {
    /// Writes all files below `folder`; each appears whole or not at all.
    ///
    /// # Errors
    /// `Refused` for SQL that is wrong, `Destination` when a file cannot be written.
    pub async fn write(&self, folder: &Path) -> Result<Vec<Written>> {
        let context = self.context()?;
        for (name, sql) in &self.tables {
            let told = |error: DataFusionError| refused(name, &error);
            let frame = context.sql(sql).await.map_err(told)?;
            // the plan's own types are those before optimizing, and what may be null differs from batch to batch
            let plan = frame.schema().as_arrow().clone();
            let rows = frame.collect().await.map_err(told)?;
            let schema = rows.first().map_or(plan, |rows| rows.schema().as_ref().clone());
            let fields = schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
            let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
            let rows = rows.iter().map(|rows| RecordBatch::try_new(schema.clone(), rows.columns().to_vec()));
            let rows = rows.collect::<Result<Vec<_>, _>>().map_err(|error| told(error.into()))?;
            let table = MemTable::try_new(schema, vec![rows]).map_err(told)?;
            context.register_table(name.as_str(), Arc::new(table)).map_err(told)?;
        }
        let mut written = Vec::new();
        for file in &self.files {
            written.extend(write_file(&context, file, folder).await?);
        }
        written.sort();
        Ok(written)
    }

    fn context(&self) -> Result<SessionContext> {
        let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
        for normal in [false, true] {
            context.register_udf(ScalarUDF::from(Draw {
                seed: self.seed,
                normal,
                signature: Signature::user_defined(Volatility::Immutable),
            }));
        }
        let told = |error: DataFusionError| refused("given", &error);
        let mut columns: Vec<(String, ArrayRef)> = Vec::new();
        for (name, value) in self.given.iter().chain([(&"seed".to_owned(), &self.seed)]) {
            columns.push((name.clone(), Arc::new(arrow::array::Int64Array::from(vec![*value]))));
        }
        let today: ArrayRef = Arc::new(arrow::array::StringArray::from(vec![self.today.as_str()]));
        let today = arrow::compute::cast_with_options(&today, &DataType::Date32, &strict()).map_err(|_| {
            LakeError::new(LakeErrorKind::Refused, format!("{} is not a day such as 2026-11-20", self.today))
        })?;
        columns.push(("today".to_owned(), today));
        let rows = RecordBatch::try_from_iter(columns).map_err(|error| told(error.into()))?;
        context.register_batch("given", rows).map_err(told)?;
        Ok(context)
    }
}

fn strict() -> arrow::compute::CastOptions<'static> {
    arrow::compute::CastOptions { safe: false, ..Default::default() }
}

fn refused(name: &str, error: &DataFusionError) -> LakeError {
    LakeError::new(LakeErrorKind::Refused, format!("the SQL of {name} cannot be run: {}", error.strip_backtrace()))
}

/// A file under its hidden name while it grows.
struct Growing {
    out: BufWriter<File>,
    hidden: PathBuf,
    place: PathBuf,
    lines: u64,
}

async fn write_file(context: &SessionContext, file: &SampleFile, folder: &Path) -> Result<Vec<Written>> {
    let told = |error: DataFusionError| refused(&file.path, &error);
    let mut rows = context.sql(&file.sql).await.map_err(told)?.execute_stream().await.map_err(told)?;
    let mut growing: BTreeMap<String, Growing> = BTreeMap::new();
    if rows.schema().column_with_name("file").is_none() {
        growing.insert(file.path.clone(), Growing::open(folder, &file.path, file.header.as_deref())?);
    }
    while let Some(batch) = rows.next().await {
        write_rows(&batch.map_err(told)?, file, folder, &mut growing)?;
    }
    growing
        .into_iter()
        .map(|(path, growing)| Ok(Written { lines: growing.lines, path: growing.finish(path)? }))
        .collect()
}

fn write_rows(
    batch: &RecordBatch,
    file: &SampleFile,
    folder: &Path,
    growing: &mut BTreeMap<String, Growing>,
) -> Result<()> {
    let text = |name: &str| {
        let column = batch.column_by_name(name)?;
        arrow::compute::cast(column, &DataType::Utf8).ok()
    };
    let (lines, paths) = (text("line"), text("file"));
    let Some(lines) = lines else {
        let message = format!("the SQL of {} must give a column line", file.path);
        return Err(LakeError::new(LakeErrorKind::Refused, message));
    };
    for (row, line) in lines.as_string::<i32>().iter().enumerate() {
        let path = paths.as_ref().map_or(file.path.as_str(), |paths| paths.as_string::<i32>().value(row));
        if !growing.contains_key(path) {
            if growing.len() >= FILES_OPEN_MAX {
                let message = format!("the SQL of {} names more than {FILES_OPEN_MAX} files", file.path);
                return Err(LakeError::new(LakeErrorKind::Refused, message));
            }
            growing.insert(path.to_owned(), Growing::open(folder, path, file.header.as_deref())?);
        }
        if let Some(file) = growing.get_mut(path) {
            file.line(line.unwrap_or(""))?;
        }
    }
    Ok(())
}

impl Growing {
    fn open(folder: &Path, path: &str, header: Option<&str>) -> Result<Growing> {
        let relative = Path::new(path);
        let (true, Some(name)) =
            (relative.components().all(|part| matches!(part, Component::Normal(_))), relative.file_name())
        else {
            let message = format!("{path} is not a path below the folder: give one such as input/invoices.csv");
            return Err(LakeError::new(LakeErrorKind::Refused, message));
        };
        let place = folder.join(relative);
        let hidden = place.with_file_name(format!(".{}.part", name.to_string_lossy()));
        let failed = |error| failed(&place, error);
        std::fs::create_dir_all(place.parent().unwrap_or(folder)).map_err(failed)?;
        let out = BufWriter::new(File::create(&hidden).map_err(failed)?);
        let mut growing = Growing { out, hidden, place, lines: 0 };
        if let Some(header) = header {
            growing.line(header)?;
            growing.lines = 0;
        }
        Ok(growing)
    }

    fn line(&mut self, line: &str) -> Result<()> {
        self.lines += 1;
        writeln!(self.out, "{line}").map_err(|error| failed(&self.place, error))
    }

    fn finish(mut self, path: String) -> Result<String> {
        let done = self.out.flush().and_then(|()| std::fs::rename(&self.hidden, &self.place));
        done.map(|()| path).map_err(|error| failed(&self.place, error))
    }
}

fn failed(place: &Path, error: std::io::Error) -> LakeError {
    LakeError::destination(format!("{} cannot be written: {error}", place.display()))
}

/// `draw(…)` and `draw_normal(…)`: a number that the arguments decide.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Draw {
    seed: i64,
    normal: bool,
    signature: Signature,
}

impl ScalarUDFImpl for Draw {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn name(&self) -> &str {
        if self.normal { "draw_normal" } else { "draw" }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> DfResult<Vec<DataType>> {
        Ok(vec![DataType::Utf8; types.len()])
    }

    fn return_type(&self, _: &[DataType]) -> DfResult<DataType> {
        Ok(DataType::Float64)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let mut hashes = vec![mixed(self.seed.cast_unsigned()); args.number_rows];
        for column in ColumnarValue::values_to_arrays(&args.args)? {
            let texts = column.as_string::<i32>();
            // arguments that are all constants come as one value for every row
            let places = if texts.len() == 1 { 0 } else { 1 };
            for (row, hash) in hashes.iter_mut().enumerate() {
                let at = row * places;
                let text = if texts.is_valid(at) { texts.value(at) } else { "" };
                *hash = text
                    .bytes()
                    .chain([0xff])
                    .fold(*hash, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
            }
        }
        let draws = hashes.into_iter().map(|hash| {
            let (first, second) = (uniform(mixed(hash)), uniform(mixed(hash.wrapping_add(1))));
            if self.normal {
                (-2.0 * (1.0 - first).ln()).sqrt() * (std::f64::consts::TAU * second).cos()
            } else {
                first
            }
        });
        Ok(ColumnarValue::Array(Arc::new(Float64Array::from_iter_values(draws))))
    }
}

/// SplitMix64's step: its numbers must never change with a library's version.
fn mixed(seed: u64) -> u64 {
    let mut mixed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// From 0 to just below 1.
fn uniform(bits: u64) -> f64 {
    (bits >> 11) as f64 / (1u64 << 53) as f64
}
