//! A table's columns as Iceberg has them: each column keeps its id for as long as there is a table. The files carry no ids; readers find columns by
//! the name mapping.

use arrow::datatypes::{DataType, Field, Schema as ArrowSchema, TimeUnit};
use iceberg::spec::{
    ListType, MapType, NestedField, NestedFieldRef, PrimitiveType, Schema, StructType, TableMetadata, Type,
};
use serde_json::{Value, json};

use super::told;
use crate::error::Result;

/// Largest number of decimal digits.
const PRECISION_MAX: u8 = 38;

/// Gives ids: what had one keeps it.
struct Ids<'a> {
    known: Option<&'a TableMetadata>,
    next: i32,
}

/// The Iceberg schema of these columns. A column that was in the table before keeps its id, if what the older files hold
/// can be read as it; of two types that fit each other the wider one stays. Columns of types that Iceberg lacks are left out.
///
/// # Errors
/// `Bug`.
pub fn schema_of(known: Option<&TableMetadata>, columns: &ArrowSchema) -> Result<Schema> {
    let next = known.map_or(1, |known| known.last_column_id() + 1);
    let mut ids = Ids { known, next };
    let fields = columns.fields().iter().filter_map(|field| ids.column(field));
    let fields: Vec<NestedFieldRef> = fields.collect();
    Schema::builder().with_fields(fields).build().map_err(told("columns"))
}

/// Which ids the columns of files have, by their names (`schema.name-mapping.default`).
pub fn name_mapping(schema: &Schema) -> Value {
    schema.as_struct().fields().iter().map(|field| mapped(field, &field.name)).collect()
}

fn mapped(field: &NestedField, name: &str) -> Value {
    let inner: Vec<Value> = match field.field_type.as_ref() {
        Type::Primitive(_) => Vec::new(),
        Type::Struct(fields) => fields.fields().iter().map(|field| mapped(field, &field.name)).collect(),
        Type::List(list) => vec![mapped(&list.element_field, "element")],
        Type::Map(map) => vec![mapped(&map.key_field, "key"), mapped(&map.value_field, "value")],
    };
    let mut mapped = json!({"field-id": field.id, "names": [name]});
    if !inner.is_empty() {
        mapped["fields"] = inner.into();
    }
    mapped
}

impl Ids<'_> {
    fn column(&mut self, field: &Field) -> Option<NestedFieldRef> {
        let before = self.before(field.name());
        self.field(field, before.as_deref())
    }

    /// A column of that name in the newest schema that has one.
    fn before(&self, name: &str) -> Option<NestedFieldRef> {
        let known = self.known?;
        let mut schemas: Vec<_> = known.schemas_iter().collect();
        schemas.sort_by_key(|schema| (schema.schema_id() != known.current_schema_id(), -schema.schema_id()));
        let of = |schema: &Schema| schema.as_struct().fields().iter().find(|field| field.name == name).cloned();
        schemas.into_iter().find_map(|schema| of(schema))
    }

    fn field(&mut self, field: &Field, before: Option<&NestedField>) -> Option<NestedFieldRef> {
        let fresh = self.next;
        self.next += 1;
        let old = before.map(|before| before.field_type.as_ref());
        let Some(kind) = self.type_of(field.data_type(), old) else {
            // what is left out takes no id
            self.next = fresh;
            return None;
        };
        let kept = before.and_then(|before| Some((before.id, wider(&before.field_type, &kind)?)));
        if kept.is_some() && self.next == fresh + 1 {
            self.next = fresh;
        }
        let (id, kind) = kept.unwrap_or((fresh, kind));
        Some(NestedField::optional(id, field.name(), kind).into())
    }

    fn type_of(&mut self, column: &DataType, before: Option<&Type>) -> Option<Type> {
        let kind = match column {
            DataType::Boolean => PrimitiveType::Boolean,
            DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::UInt8 | DataType::UInt16 => {
                PrimitiveType::Int
            }
            DataType::Int64 => PrimitiveType::Long,
            DataType::Float32 => PrimitiveType::Float,
            DataType::Float64 => PrimitiveType::Double,
            DataType::Date32 => PrimitiveType::Date,
            DataType::Timestamp(TimeUnit::Millisecond | TimeUnit::Microsecond, zone) => match zone {
                Some(_) => PrimitiveType::Timestamptz,
                None => PrimitiveType::Timestamp,
            },
            DataType::Decimal128(precision, scale) if *precision <= PRECISION_MAX => {
                PrimitiveType::Decimal { precision: (*precision).into(), scale: u32::try_from(*scale).ok()? }
            }
            DataType::Utf8 => PrimitiveType::String,
            DataType::Binary => PrimitiveType::Binary,
            DataType::FixedSizeBinary(bytes) => PrimitiveType::Fixed(u64::try_from(*bytes).ok()?),
            DataType::List(item) => return self.list(item, before),
            DataType::Struct(fields) => return self.structure(fields.iter().map(AsRef::as_ref), before),
            DataType::Map(entries, _) => return self.map(entries, before),
            _ => return None,
        };
        Some(Type::Primitive(kind))
    }

    fn list(&mut self, item: &Field, before: Option<&Type>) -> Option<Type> {
        let old = match before {
            Some(Type::List(list)) => Some(list.element_field.clone()),
            _ => None,
        };
        let element = self.field(item, old.as_deref())?;
        let kind = element.field_type.as_ref().clone();
        Some(Type::List(ListType::new(NestedField::list_element(element.id, kind, false).into())))
    }

    fn structure<'f>(&mut self, fields: impl Iterator<Item = &'f Field>, before: Option<&Type>) -> Option<Type> {
        let old = match before {
            Some(Type::Struct(fields)) => fields.fields().to_vec(),
            _ => Vec::new(),
        };
        let named = |name: &str| old.iter().find(|field| field.name == name).cloned();
        let inner = fields.filter_map(|field| self.field(field, named(field.name()).as_deref()));
        let inner: Vec<NestedFieldRef> = inner.collect();
        (!inner.is_empty()).then(|| Type::Struct(StructType::new(inner)))
    }

    fn map(&mut self, entries: &Field, before: Option<&Type>) -> Option<Type> {
        let DataType::Struct(pair) = entries.data_type() else { return None };
        let (key, value) = (pair.first()?, pair.get(1)?);
        let (old_key, old_value) = match before {
            Some(Type::Map(map)) => (Some(map.key_field.clone()), Some(map.value_field.clone())),
            _ => (None, None),
        };
        let (key, value) = (self.field(key, old_key.as_deref())?, self.field(value, old_value.as_deref())?);
        let (key_type, value_type) = (key.field_type.as_ref().clone(), value.field_type.as_ref().clone());
        let key = NestedField::map_key_element(key.id, key_type).into();
        Some(Type::Map(MapType::new(key, NestedField::map_value_element(value.id, value_type, false).into())))
    }
}

/// The type as which values of both can be read, if there is one.
fn wider(old: &Type, new: &Type) -> Option<Type> {
    use PrimitiveType::{Decimal, Double, Float, Int, Long};
    let (Type::Primitive(before), Type::Primitive(after)) = (old, new) else {
        let alike = matches!(
            (old, new),
            (Type::List(_), Type::List(_)) | (Type::Struct(_), Type::Struct(_)) | (Type::Map(_), Type::Map(_))
        );
        return alike.then(|| new.clone());
    };
    let kind = match (before, after) {
        (before, after) if before == after => after.clone(),
        (Int, Long) | (Long, Int) => Long,
        (Float, Double) | (Double, Float) => Double,
        (Decimal { precision: one, scale }, Decimal { precision: other, scale: same }) if scale == same => {
            Decimal { precision: *one.max(other), scale: *scale }
        }
        _ => return None,
    };
    Some(Type::Primitive(kind))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Arc;

    use iceberg::spec::{FormatVersion, SortOrder, TableMetadataBuilder, UnboundPartitionSpec};

    use super::*;

    fn arrow(columns: &[(&str, DataType)]) -> ArrowSchema {
        ArrowSchema::new(columns.iter().map(|(name, kind)| Field::new(*name, kind.clone(), true)).collect::<Vec<_>>())
    }

    fn table(schema: Schema) -> TableMetadata {
        let none = UnboundPartitionSpec::builder().build();
        let order = SortOrder::unsorted_order();
        let builder =
            TableMetadataBuilder::new(schema, none, order, "file:///t".into(), FormatVersion::V2, HashMap::new());
        builder.unwrap().build().unwrap().metadata
    }

    fn told_of(schema: &Schema) -> Vec<String> {
        let fields = schema.as_struct().fields().iter();
        fields.map(|field| format!("{} {} {}", field.id, field.name, field.field_type)).collect()
    }

    fn text_list() -> DataType {
        DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true)))
    }

    #[test]
    fn columns_keep_their_ids_while_others_come_go_and_widen() {
        let moment = || DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()));
        let first = [("ts", moment()), ("n", DataType::Int32), ("tags", text_list()), ("gone", DataType::Utf8)];
        let known = table(schema_of(None, &arrow(&first)).unwrap());
        let names = told_of(known.current_schema());
        assert_eq!(names[..2], ["1 ts timestamptz", "2 n int"]);
        let id = |name: &str| known.current_schema().field_id_by_name(name).unwrap();
        let (tags, element, gone) = (id("tags"), id("tags.element"), id("gone"));

        let second = [("new", DataType::Date32), ("n", DataType::Int64), ("ts", moment()), ("tags", text_list())];
        let wider = schema_of(Some(&known), &arrow(&second)).unwrap();
        let last = known.last_column_id();
        assert_eq!(
            told_of(&wider)[..3],
            [format!("{} new date", last + 1), "2 n long".to_owned(), "1 ts timestamptz".to_owned()]
        );
        assert_eq!(wider.field_id_by_name("tags"), Some(tags));
        assert_eq!(wider.field_id_by_name("tags.element"), Some(element));
        let known = known.into_builder(None).add_current_schema(wider).unwrap().build().unwrap().metadata;

        // back again: the older files still hold it, and a narrower type is not gone back to
        let third = [("gone", DataType::Utf8), ("n", DataType::Int32), ("ts", DataType::Utf8)];
        let back = schema_of(Some(&known), &arrow(&third)).unwrap();
        let told = told_of(&back);
        assert_eq!(told[..2], [format!("{gone} gone string"), "2 n long".to_owned()]);
        assert_ne!(back.field_id_by_name("ts"), Some(1), "text is no moment: another column");
    }

    #[test]
    fn what_iceberg_lacks_is_left_out_and_takes_no_id() {
        let columns = [("a", DataType::UInt64), ("b", DataType::Boolean), ("c", DataType::Decimal128(20, 4))];
        assert_eq!(told_of(&schema_of(None, &arrow(&columns)).unwrap()), ["1 b boolean", "2 c decimal(20, 4)"]);
    }

    #[test]
    fn names_of_files_are_mapped_to_ids() {
        let schema = schema_of(None, &arrow(&[("a", DataType::Int64), ("l", text_list())])).unwrap();
        let want = json!([
            {"field-id": 1, "names": ["a"]},
            {"field-id": 2, "names": ["l"], "fields": [{"field-id": 3, "names": ["element"]}]},
        ]);
        assert_eq!(name_mapping(&schema), want);
    }
}
