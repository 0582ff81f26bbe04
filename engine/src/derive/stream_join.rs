//! A join of two streams, compiled: by which columns and how near in event time rows meet, what else ON asks of them, and how
//! rows that wait, and rows that met, are laid out.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, RecordBatch, TimestampMillisecondArray, UInt32Array, new_null_array,
};
use arrow::compute::{and, concat};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimestampMillisecondType};
use arrow::row::{Row, RowConverter, SortField};
use datafusion::common::{DFSchema, JoinType, Result as DfResult};
use datafusion::execution::context::SessionContext;
use datafusion::logical_expr::{BinaryExpr, Expr, Join, Operator};
use datafusion::physical_plan::PhysicalExpr;

use super::interval::{Bounds, Interval, Side, Times};
use super::join::{conditions_of, mentions};
use super::parse::ROW;
use super::stored::{decode_row, encode_row};
use crate::conditions::Fault;
use crate::error::Result;
use crate::sql;
use crate::state;
use crate::stream::{META_COLUMNS, Stream};

/// A compiled join. Never changes after it is made.
pub(crate) struct StreamJoin {
    sides: [JoinSide; 2],
    keys: RowConverter,
    /// What else ON says, over `input`.
    conditions: Vec<Arc<dyn PhysicalExpr>>,
    pub(super) interval: Interval,
    /// LEFT, RIGHT, FULL: of which sides rows that meet none are told as well.
    keeps_all: [bool; 2],
    /// What conditions and SELECT take: the columns of both sides, each with the row number at its end.
    input: SchemaRef,
    /// Rows that met: the columns of both sides, then those about the record.
    met: SchemaRef,
    /// Of all that decides what rows that wait mean.
    pub(super) fingerprint: u64,
}

struct JoinSide {
    stream: Arc<Stream>,
    /// What is equal in rows that meet, over the stream's columns.
    keys: Vec<Arc<dyn PhysicalExpr>>,
    rows: RowConverter,
}

/// The streams of a FROM clause.
pub(super) struct JoinedStreams<'a> {
    pub(super) left: &'a Arc<Stream>,
    pub(super) right: &'a Arc<Stream>,
    /// As `WITHIN` says, in milliseconds.
    pub(super) within_ms: Option<i64>,
}

impl StreamJoin {
    /// Compiles a join; Err says what it lacks.
    pub(super) fn new(
        join: &Join,
        streams: &JoinedStreams<'_>,
        context: &SessionContext,
    ) -> std::result::Result<StreamJoin, String> {
        let JoinedStreams { left, right, within_ms } = streams;
        let (left_schema, right_schema): (&DFSchema, &DFSchema) = (join.left.schema(), join.right.schema());
        let times = Times { left: (left_schema, left.event_time()), right: (right_schema, right.event_time()) };
        let mut bounds = within_ms.map_or_else(Bounds::default, Bounds::within);
        let (mut pairs, mut rest) = (Vec::new(), Vec::new());
        for condition in conditions_of(join) {
            if bounds.take(&condition, &times) {
                continue;
            }
            match equation(&condition, left_schema, right_schema) {
                Some(pair) => pairs.push(pair),
                None => rest.push(condition),
            }
        }
        let names = [(left_schema, left), (right_schema, right)].map(|(schema, stream)| time_name(schema, stream));
        let interval = bounds.interval((&names[0], &names[1]))?;
        let text: Vec<String> = pairs.iter().map(|(left, right)| format!("{left} = {right}")).collect();
        let (keys, fields) = compile_keys(&pairs, (left_schema, right_schema), context)?;
        let physical = |expr: Expr| context.create_physical_expr(expr, &join.schema).map_err(|e| sql::message(&e));
        let keeps_all = match join.join_type {
            JoinType::Inner => [false, false],
            JoinType::Left => [true, false],
            JoinType::Right => [false, true],
            JoinType::Full => [true, true],
            other => {
                return Err(format!(
                    "a {other} join of streams is not supported: write JOIN, LEFT, RIGHT or FULL JOIN"
                ));
            }
        };
        let definition = format!("{} JOIN {}", left.definition(&|_| true), right.definition(&|_| true));
        let [left_keys, right_keys] = keys;
        Ok(StreamJoin {
            sides: [JoinSide::new(left, left_keys)?, JoinSide::new(right, right_keys)?],
            keys: RowConverter::new(fields).map_err(|error| error.to_string())?,
            conditions: rest.into_iter().map(physical).collect::<std::result::Result<_, _>>()?,
            interval,
            keeps_all,
            input: join.schema.inner().clone(),
            met: met_schema(left_schema, right_schema),
            fingerprint: state::fingerprint(&definition, &format!("{text:?} {interval:?} {keeps_all:?}")),
        })
    }

    /// How far rows that come out can be behind the newest, beside what the rows that go in were.
    pub(super) fn delay_ms(&self) -> i64 {
        self.interval.delay_ms()
    }

    /// The stream on a side.
    pub(crate) fn stream(&self, side: Side) -> &Arc<Stream> {
        &self.side(side).stream
    }

    /// Whether rows of a side that meet none are told as well.
    pub(super) fn keeps_all(&self, side: Side) -> bool {
        self.keeps_all[side as usize]
    }

    fn side(&self, side: Side) -> &JoinSide {
        &self.sides[side as usize]
    }

    /// What rows that meet have in common, of each row of a side; None where a part of it is null, which equals nothing. Rows of
    /// which it cannot be computed are at fault.
    pub(super) fn keys(&self, side: Side, rows: &RecordBatch, faults: &mut Vec<Fault>) -> Result<Vec<Option<Vec<u8>>>> {
        let mut columns: Vec<ArrayRef> = Vec::new();
        for key in &self.side(side).keys {
            columns.push(evaluate(key, rows, faults)?);
        }
        let encoded = self.keys.convert_columns(&columns)?;
        let key = |(row, key): (usize, Row<'_>)| {
            let is_whole = columns.iter().all(|column| column.is_valid(row));
            is_whole.then(|| key.data().to_vec())
        };
        Ok(encoded.iter().enumerate().map(key).collect())
    }

    /// The stored values of rows of a side.
    pub(super) fn encode(&self, side: Side, rows: &RecordBatch) -> Result<Vec<Vec<u8>>> {
        let encoded = self.side(side).rows.convert_columns(rows.columns())?;
        Ok(encoded.iter().map(|row| encode_row(row.data())).collect())
    }

    /// The columns of stored rows of a side.
    pub(super) fn decode<'v>(&self, side: Side, values: impl Iterator<Item = &'v [u8]>) -> Result<Vec<ArrayRef>> {
        let converter = &self.side(side).rows;
        let parser = converter.parser();
        let mut rows = Vec::new();
        for value in values {
            rows.push(parser.parse(decode_row(value)?));
        }
        Ok(converter.convert_rows(rows)?)
    }

    /// Rows that met, a left and a right one each. What comes of them has the key and the place of the left one, and the later one of
    /// both timestamps: before that they had not met.
    pub(super) fn meet(&self, left: Vec<ArrayRef>, right: Vec<ArrayRef>) -> Result<RecordBatch> {
        let [key, stamped, partition, offset] = about(&left);
        let record = [key, later(&stamped, &about(&right)[1]), partition, offset];
        Ok(RecordBatch::try_new(self.met.clone(), left.into_iter().chain(right).chain(record).collect())?)
    }

    /// Rows of a side that met none, beside nulls.
    pub(super) fn alone(&self, side: Side, own: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
        let other = self.side(side.other()).stream.schema();
        let nothing = other.fields().iter().map(|field| new_null_array(field.data_type(), rows)).collect();
        let record = about(&own);
        let (left, right) = if side == Side::Left { (own, nothing) } else { (nothing, own) };
        Ok(RecordBatch::try_new(self.met.clone(), left.into_iter().chain(right).chain(record).collect())?)
    }

    /// No rows that met.
    pub(super) fn none_met(&self) -> RecordBatch {
        RecordBatch::new_empty(self.met.clone())
    }

    /// What conditions and SELECT take of rows that met, which have these numbers.
    pub(super) fn input(&self, met: &RecordBatch, numbers: &ArrayRef) -> DfResult<RecordBatch> {
        let left = self.side(Side::Left).stream.schema().fields().len();
        let (of_left, rest) = met.columns().split_at(left);
        let of_right = &rest[..rest.len() - META_COLUMNS.len()];
        let numbers = std::slice::from_ref(numbers);
        Ok(RecordBatch::try_new(self.input.clone(), [of_left, numbers, of_right, numbers].concat())?)
    }

    /// Which of the rows that are equal and near enough meet by all that ON says. Err: some pair cannot be judged.
    pub(super) fn holds(&self, met: &RecordBatch) -> DfResult<BooleanArray> {
        let mut holds = BooleanArray::from(vec![true; met.num_rows()]);
        if self.conditions.is_empty() {
            return Ok(holds);
        }
        let numbers: ArrayRef = Arc::new(UInt32Array::from(vec![0; met.num_rows()]));
        let input = self.input(met, &numbers)?;
        for condition in &self.conditions {
            holds = and(&holds, &sql::mask(sql::condition(condition, &input)?))?;
        }
        Ok(holds)
    }
}

impl JoinSide {
    fn new(stream: &Arc<Stream>, keys: Vec<Arc<dyn PhysicalExpr>>) -> std::result::Result<JoinSide, String> {
        let schema = stream.schema();
        let fields = schema.fields().iter().map(|field| SortField::new(field.data_type().clone())).collect();
        let rows = RowConverter::new(fields).map_err(|error| error.to_string())?;
        Ok(JoinSide { stream: stream.clone(), keys, rows })
    }
}

/// The sides of an equation between both streams.
fn equation(condition: &Expr, left: &DFSchema, right: &DFSchema) -> Option<(Expr, Expr)> {
    let Expr::BinaryExpr(BinaryExpr { left: one, op: Operator::Eq, right: other }) = condition else { return None };
    let is_of = |expr: &Expr, own: &DFSchema, foreign: &DFSchema| mentions(expr, own) && !mentions(expr, foreign);
    if is_of(one, left, right) && is_of(other, right, left) {
        Some(((**one).clone(), (**other).clone()))
    } else if is_of(one, right, left) && is_of(other, left, right) {
        Some(((**other).clone(), (**one).clone()))
    } else {
        None
    }
}

type Keys = [Vec<Arc<dyn PhysicalExpr>>; 2];

/// The equations' sides, and the types they compare as.
fn compile_keys(
    pairs: &[(Expr, Expr)],
    (left, right): (&DFSchema, &DFSchema),
    context: &SessionContext,
) -> std::result::Result<(Keys, Vec<SortField>), String> {
    if pairs.is_empty() {
        return Err("streams are joined by what is equal in both: write ON a.column = b.column AND …".into());
    }
    let compile = |expr: &Expr, schema: &DFSchema| {
        let key = context.create_physical_expr(expr.clone(), schema).map_err(|error| sql::message(&error))?;
        let kind = key.data_type(schema.as_arrow()).map_err(|error| sql::message(&error))?;
        Ok::<_, String>((key, kind))
    };
    let (mut keys, mut fields): (Keys, Vec<SortField>) = ([Vec::new(), Vec::new()], Vec::new());
    for (one, other) in pairs {
        let ((left_key, kind), (right_key, other_kind)) = (compile(one, left)?, compile(other, right)?);
        if kind != other_kind {
            return Err(format!(
                "{one} is {kind} and {other} is {other_kind}, cast one side of ON to the type of the other"
            ));
        }
        if kind.is_floating() || kind.is_nested() || kind == DataType::Null {
            return Err(format!(
                "{one} = {other}: {kind} does not compare exactly, cast both sides to BIGINT, DECIMAL or VARCHAR"
            ));
        }
        keys[0].push(left_key);
        keys[1].push(right_key);
        fields.push(SortField::new(kind));
    }
    Ok((keys, fields))
}

/// The event time of a side, as the query calls it.
fn time_name(schema: &DFSchema, stream: &Stream) -> String {
    let relation = schema.iter().find_map(|(relation, _)| relation);
    relation.map_or_else(|| stream.event_time().to_string(), |relation| format!("{relation}.{}", stream.event_time()))
}

/// Columns by the names of their sides, as a refused row shows them; then those about the record.
fn met_schema(left: &DFSchema, right: &DFSchema) -> SchemaRef {
    let mut fields: Vec<Field> = Vec::new();
    for (relation, field) in left.iter().chain(right.iter()).filter(|(_, field)| field.name() != ROW) {
        let name = relation.map_or_else(|| field.name().clone(), |relation| format!("{relation}.{}", field.name()));
        fields.push(Field::new(name, field.data_type().clone(), true));
    }
    for name in META_COLUMNS {
        let found = left.iter().find(|(_, field)| field.name() == name);
        fields.extend(found.map(|(_, field)| field.as_ref().clone()));
    }
    Arc::new(Schema::new(fields))
}

/// The columns about the record, which are the last ones of a row.
fn about(columns: &[ArrayRef]) -> [ArrayRef; META_COLUMNS.len()] {
    columns.last_chunk().cloned().expect("a stream's rows end with the columns about the record")
}

/// A key of each row; where it cannot be computed it is null, and the row at fault.
fn evaluate(key: &Arc<dyn PhysicalExpr>, rows: &RecordBatch, faults: &mut Vec<Fault>) -> Result<ArrayRef> {
    let values = |rows: &RecordBatch| key.evaluate(rows).and_then(|value| value.into_array(rows.num_rows()));
    if let Ok(all) = values(rows) {
        return Ok(all);
    }
    let kind = key.data_type(&rows.schema())?;
    let mut parts: Vec<ArrayRef> = Vec::new();
    for row in 0..rows.num_rows() {
        match values(&rows.slice(row, 1)) {
            Ok(value) => parts.push(value),
            Err(error) => {
                faults.push((row, "expression".into(), error.strip_backtrace()));
                parts.push(new_null_array(&kind, 1));
            }
        }
    }
    let parts: Vec<&dyn Array> = parts.iter().map(AsRef::as_ref).collect();
    Ok(concat(&parts)?)
}

/// The later of two timestamps; one alone where the other is missing.
fn later(one: &ArrayRef, other: &ArrayRef) -> ArrayRef {
    let (one, other) =
        (one.as_primitive::<TimestampMillisecondType>(), other.as_primitive::<TimestampMillisecondType>());
    let later: TimestampMillisecondArray = one.iter().zip(other.iter()).map(|(one, other)| one.max(other)).collect();
    Arc::new(later.with_timezone("UTC"))
}
