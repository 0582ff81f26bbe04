//! Writes a described file: the same description, seed and shares give the same bytes.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::Arc;

use super::description::Description;
use super::generate::{Event, Generator, Kind, Shares, csv_field};
use crate::failure::Failure;

/// What a file is to hold.
pub struct FileOrder {
    /// What its rows are.
    pub description: Arc<Description>,
    /// `csv`, `ndjson` or `json`.
    pub format: String,
    /// How many.
    pub rows: u64,
    /// The seed of all draws.
    pub seed: u64,
    /// How many are not clean.
    pub shares: Shares,
    /// The time of fields of kind time, epoch milliseconds.
    pub now_ms: i64,
}

/// Writes the file whole under another name, then renames it. Gives how many rows of each kind it has.
pub fn write(order: &FileOrder, path: &Path) -> Result<Vec<(String, u64)>, Failure> {
    let failed = |error: io::Error| Failure::Failed(format!("{} cannot be written: {error}", path.display()));
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::create_dir_all(folder).map_err(failed)?;
    }
    let mut half = path.as_os_str().to_owned();
    half.push(".part");
    let counts = write_rows(order, Path::new(&half)).map_err(failed)?;
    fs::rename(&half, path).map_err(failed)?;
    Ok(Kind::names(&order.description).into_iter().zip(counts).collect())
}

fn write_rows(order: &FileOrder, path: &Path) -> io::Result<Vec<u64>> {
    let mut out = BufWriter::new(File::create(path)?);
    let mut generator = Generator::new(order.description.clone(), order.shares, order.seed);
    let mut counts = vec![0; Kind::names(&order.description).len()];
    let (mut event, mut row, mut clean) = (Event::default(), Vec::new(), Vec::new());
    if order.format == "csv" {
        writeln!(out, "{}", header(&order.description))?;
    }
    for index in 0..order.rows {
        let kind = generator.next(order.now_ms, &mut event);
        counts[kind.number()] += 1;
        match order.format.as_str() {
            "csv" if kind == Kind::Duplicate => row.clone_from(&clean),
            "csv" => generator.csv_row(kind, &mut row),
            _ => row.clone_from(&event.value),
        }
        if kind == Kind::Clean {
            clean.clone_from(&row);
        }
        if order.format == "json" {
            out.write_all(if index == 0 { b"[\n" } else { b",\n" })?;
        }
        out.write_all(&row)?;
        if order.format != "json" {
            out.write_all(b"\n")?;
        }
    }
    if order.format == "json" {
        out.write_all(b"\n]\n")?;
    }
    out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
    Ok(counts)
}

fn header(description: &Description) -> String {
    let shown = description.fields.iter().filter(|field| !field.hidden);
    let names: Vec<String> =
        shown.map(|field| if field.unnamed { String::new() } else { csv_field(&field.name) }).collect();
    names.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(format: &str, seed: u64) -> FileOrder {
        let source = crate::systems::simulators("spotify").unwrap().remove(0);
        FileOrder {
            description: Arc::new(Description::read(&source).unwrap()),
            format: format.to_owned(),
            rows: 3_000,
            seed,
            shares: Shares { dirty: 0.1, late: 0.0, duplicates: 0.01 },
            now_ms: 0,
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_file_in_the_shape_of_the_dataset() {
        let dir = tempfile::tempdir().unwrap();
        let text = |name: &str, seed| {
            let path = dir.path().join("sample").join(name);
            let counts = write(&order("csv", seed), &path).unwrap();
            assert_eq!(counts.iter().map(|(_, count)| count).sum::<u64>(), 3_000);
            assert!(counts.iter().all(|(kind, count)| *count > 0 || kind == "late"), "{counts:?}");
            String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned()
        };
        let first = text("a.csv", 1);
        assert_eq!(first, text("b.csv", 1));
        assert_ne!(first, text("c.csv", 2));
        let header = first.lines().next().unwrap();
        assert!(header.starts_with(",track_id,artists,album_name,") && header.ends_with(",track_genre"), "{header}");
        assert_eq!(header.split(',').count(), 21);
        for part in [";", "\"Ça va,", "\nReprise\"", "海", "\"\"Demo\"\""] {
            assert!(first.contains(part), "{part}");
        }
    }

    #[test]
    fn objects_are_written_by_line_or_as_an_array() {
        let dir = tempfile::tempdir().unwrap();
        let mut clean = order("json", 1);
        clean.shares = Shares::default();
        write(&clean, &dir.path().join("a.json")).unwrap();
        let array: Vec<serde_json::Value> =
            serde_json::from_slice(&fs::read(dir.path().join("a.json")).unwrap()).unwrap();
        clean.format = "ndjson".to_owned();
        write(&clean, &dir.path().join("a.ndjson")).unwrap();
        let lines = fs::read_to_string(dir.path().join("a.ndjson")).unwrap();
        let lines: Vec<serde_json::Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!((array.len(), &array), (3_000, &lines));
    }
}
