//! Which files a source's path names, and how a file is told from another: by what it holds, not by its name.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use broker::Store;

use super::config::FileFormat;
use super::stored::{self, FileRecord, Id, PathRecord, VERSION};
use crate::error::Result;

/// Most files that one path may name.
pub(crate) const FILES_MAX: usize = 100_000;
/// Ends of names under which programs write what is not whole yet.
pub(crate) const UNFINISHED: [&str; 4] = [".tmp", ".part", ".partial", ".crdownload"];

/// A file that a path names.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Found {
    /// Where it is.
    pub(crate) path: PathBuf,
    /// How it is called: its path below the source's, which does not depend on where that stands.
    pub(crate) name: String,
    pub(crate) bytes: u64,
    pub(crate) modified_ns: i64,
    /// For a file of another machine, which is fetched to `path` before it is read: what it is remembered by, and its path
    /// there.
    pub(crate) remote: Option<(String, String)>,
}

/// The files of a path, by name: the file itself, the files of a folder, or what fits a pattern with `*` and `?`.
pub(crate) fn find(path: &str) -> io::Result<Vec<Found>> {
    let mut found = Vec::new();
    if path.contains(['*', '?']) {
        let path = Path::new(path);
        let parts: Vec<String> =
            path.components().map(|part| part.as_os_str().to_string_lossy().into_owned()).collect();
        let fixed = parts.iter().take_while(|part| !part.contains(['*', '?'])).count();
        let base: PathBuf = parts[..fixed].iter().collect();
        let base = if fixed == 0 { PathBuf::from(".") } else { base };
        matching(&base, &base, &parts[fixed..], &mut found)?;
    } else if fs::metadata(path)?.is_dir() {
        matching(Path::new(path), Path::new(path), &["*".to_owned()], &mut found)?;
    } else {
        let path = Path::new(path);
        let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        found.push(look(path.to_path_buf(), name)?);
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

fn matching(base: &Path, folder: &Path, patterns: &[String], found: &mut Vec<Found>) -> io::Result<()> {
    let [pattern, rest @ ..] = patterns else { return Ok(()) };
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let hidden = name.starts_with('.') && !pattern.starts_with('.');
        if hidden || !fits(pattern, &name) {
            continue;
        }
        let path = entry.path();
        // A link that leads nowhere is no file, nor is one that went in this moment.
        let Some(data) = there(fs::metadata(&path))? else { continue };
        let is_dir = data.is_dir();
        if is_dir && !rest.is_empty() {
            matching(base, &path, rest, found)?;
        } else if !is_dir && rest.is_empty() && !UNFINISHED.iter().any(|end| name.ends_with(end)) {
            let shown = path.strip_prefix(base).unwrap_or(&path).to_string_lossy().into_owned();
            found.extend(there(look(path, shown))?);
        }
        if found.len() > FILES_MAX {
            return Err(io::Error::other(format!("the path names more than {FILES_MAX} files, move some away")));
        }
    }
    Ok(())
}

/// None of what is not there.
fn there<T>(looked: io::Result<T>) -> io::Result<Option<T>> {
    match looked {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        looked => looked.map(Some),
    }
}

/// A file as it is now.
pub(crate) fn look(path: PathBuf, name: String) -> io::Result<Found> {
    let data = fs::metadata(&path)?;
    let modified = data.modified()?.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    Ok(Found { path, name, bytes: data.len(), modified_ns: i64::try_from(modified).unwrap_or(i64::MAX), remote: None })
}

/// Whether a name fits a pattern in which `*` is any letters and `?` is one.
pub(crate) fn fits(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut at, mut to, mut star) = (0, 0, None);
    while to < name.len() {
        match pattern.get(at) {
            Some('*') => {
                star = Some((at, to));
                at += 1;
            }
            Some(c) if *c == '?' || *c == name[to] => {
                at += 1;
                to += 1;
            }
            _ => match star {
                Some((star_at, star_to)) => {
                    star = Some((star_at, star_to + 1));
                    at = star_at + 1;
                    to = star_to + 1;
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|c| *c == '*')
}

/// What is to be done about a file.
#[derive(Debug)]
pub(crate) enum Due {
    /// Its content is loaded; `changed` when the path was not known to hold it.
    Known {
        /// What the path is to be remembered by.
        changed: Option<PathRecord>,
    },
    /// It is to be read from where `record` ends.
    Load {
        /// The opened file.
        file: File,
        /// The id of the content.
        content: Id,
        /// How far it is loaded.
        record: FileRecord,
        /// What the path is to be remembered by.
        path: PathRecord,
    },
}

/// Whether the path's stamp says that its content is loaded, without reading it.
pub(crate) fn is_known(store: &Store, source: &str, found: &Found) -> Result<bool> {
    let Some(path) = stored::get::<PathRecord>(store, &stored::path_key(source, &path_of(found)))? else {
        return Ok(false);
    };
    if (path.bytes, path.modified_ns) != (found.bytes, found.modified_ns) {
        return Ok(false);
    }
    let Some(content) = stored::unhex(&path.content) else { return Ok(false) };
    let record: Option<FileRecord> = stored::get(store, &stored::file_key(source, &content))?;
    Ok(record.is_some_and(|record| record.done))
}

/// The path under which a file is remembered.
pub(crate) fn path_of(found: &Found) -> String {
    match &found.remote {
        Some((name, _)) => name.clone(),
        None => found.path.to_string_lossy().into_owned(),
    }
}

/// Reads the file once to know it: loaded before under whatever name, begun, grown since, or new. The outer error is the
/// store's, the inner the file's.
pub(crate) fn examine(store: &Store, source: &str, format: &FileFormat, found: &Found) -> Result<io::Result<Due>> {
    let before: Option<PathRecord> = stored::get(store, &stored::path_key(source, &path_of(found)))?;
    let prefix = before.as_ref().map(|before| before.bytes).filter(|_| *format != FileFormat::Json);
    let (file, bytes, content, beginning) = match read_ids(found, prefix) {
        Ok(read) => read,
        Err(error) => return Ok(Err(error)),
    };
    let path = PathRecord { v: VERSION, bytes, modified_ns: found.modified_ns, content: stored::hex(&content) };
    if let Some(record) = stored::get::<FileRecord>(store, &stored::file_key(source, &content))? {
        if record.done {
            let changed = (before.as_ref() != Some(&path)).then_some(path);
            return Ok(Ok(Due::Known { changed }));
        }
        return Ok(Ok(Due::Load { file, content, record, path }));
    }
    let mut record = FileRecord { v: VERSION, path: found.name.clone(), bytes, ..FileRecord::default() };
    if let (Some(before), Some(beginning)) = (&before, beginning)
        && before.content == stored::hex(&beginning)
        && let Some(loaded) = stored::get::<FileRecord>(store, &stored::file_key(source, &beginning))?
    {
        record = FileRecord { bytes, done: false, ..loaded };
    }
    Ok(Ok(Due::Load { file, content, record, path }))
}

type Ids = (File, u64, Id, Option<Id>);

/// The opened file, its size, its content's id, and that of its first `prefix` bytes when it has more.
fn read_ids(found: &Found, prefix: Option<u64>) -> io::Result<Ids> {
    let file = File::open(&found.path)?;
    let mut hasher = blake3::Hasher::new();
    let mut beginning = None;
    let mut left = file.metadata()?.len();
    let bytes = left;
    let mut reader = &file;
    let mut buffer = vec![0; 256 << 10];
    while left > 0 {
        let done = bytes - left;
        let until_prefix = prefix.filter(|prefix| *prefix > done).map_or(left, |prefix| prefix - done);
        let want = usize::try_from(left.min(until_prefix)).unwrap_or(usize::MAX).min(buffer.len());
        let got = reader.read(&mut buffer[..want])?;
        if got == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file has become shorter while it was read"));
        }
        hasher.update(&buffer[..got]);
        left -= got as u64;
        if prefix == Some(bytes - left) && left > 0 {
            beginning = Some(stored::id_of(&hasher));
        }
    }
    Ok((file, bytes, stored::id_of(&hasher), beginning))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, name, expected) in [
            ("*", "a", true),
            ("*.csv", "a.csv", true),
            ("*.csv", "a.csv.gz", false),
            ("a?c*", "abcdef", true),
            ("a?c", "ac", false),
            ("*b*d", "abcbd", true),
            ("", "", true),
            ("é*", "été", true),
        ] {
            assert_eq!(fits(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn files_folders_and_patterns() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b.csv", "a.csv", ".hidden", "c.csv.part", "in/d.csv", "in2/e.csv", "in2/f.txt"] {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, name).unwrap();
        }
        for link in ["z.csv", "in2/nowhere"] {
            std::os::unix::fs::symlink("is not there", dir.path().join(link)).unwrap();
        }
        let names = |path: &str| -> Vec<String> {
            let path = dir.path().join(path).to_string_lossy().into_owned();
            find(&path).unwrap().into_iter().map(|found| found.name).collect()
        };
        assert_eq!(names(""), ["a.csv", "b.csv"]);
        assert_eq!(names("b.csv"), ["b.csv"]);
        assert_eq!(names("b*"), ["b.csv"]);
        assert_eq!(names("in*/*.csv"), ["in/d.csv", "in2/e.csv"]);
        assert!(find(&dir.path().join("none").to_string_lossy()).is_err());
    }

    #[test]
    fn the_beginning_of_a_file_has_an_id_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let id = |bytes: &[u8], prefix| {
            fs::write(&path, bytes).unwrap();
            let found = look(path.clone(), "a".into()).unwrap();
            let (_, size, id, beginning) = read_ids(&found, prefix).unwrap();
            assert_eq!(size, bytes.len() as u64);
            (id, beginning)
        };
        let (short, none) = id(b"abc", Some(3));
        assert_eq!(none, None);
        let (long, beginning) = id(b"abcdef", Some(3));
        assert_eq!(beginning, Some(short));
        assert_ne!(long, short);
        assert_eq!(id(b"xbcdef", Some(10)).1, None);
    }
}
