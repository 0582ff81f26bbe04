//! Files that left the manifest: deleted at once where no query reads them, else put aside, where readers of directories do
//! not look, until the last query ends.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::error::LakeError;
use crate::iceberg::Iceberg;
use crate::manifest_bytes::FileEntry;
use crate::objects::{Objects, RETIRED_DIR};

/// Time between two looks at files that queries held.
const SWEEP_EVERY: Duration = Duration::from_millis(500);

/// The files that left the manifest and are there yet. Nothing survives a crash: the start removes what the manifest does
/// not know.
pub struct Retired {
    iceberg: Option<Arc<Iceberg>>,
    gone: Mutex<Vec<Gone>>,
    sweeping: tokio::sync::Mutex<()>,
    waiting: AtomicBool,
}

/// A file that left the manifest. Who reads it holds it.
#[derive(Clone)]
pub struct Gone {
    /// The file.
    pub file: Arc<FileEntry>,
    /// Whether its directory may be empty without it.
    pub last: bool,
}

struct Swept {
    left: bool,
    error: Option<LakeError>,
}

impl Retired {
    /// Nothing that is gone. Where there are Iceberg tables, their snapshots let a file go before it leaves its place.
    pub fn new(iceberg: Option<Arc<Iceberg>>) -> Self {
        let (gone, sweeping, waiting) = (Mutex::default(), tokio::sync::Mutex::default(), AtomicBool::new(false));
        Self { iceberg, gone, sweeping, waiting }
    }

    /// Takes files out of their directories, now as far as that can be done.
    pub async fn retire(self: &Arc<Self>, objects: &Arc<Objects>, gone: impl IntoIterator<Item = Gone>) {
        self.gone.lock().extend(gone);
        let swept = self.sweep(objects).await;
        if let Some(error) = swept.error {
            tracing::warn!(%error, "an old file is still there, it is tried again");
        }
        if swept.left && !self.waiting.swap(true, Ordering::AcqRel) {
            // what is left when the process ends is removed at the next start
            tokio::spawn(self.clone().wait(objects.clone()));
        }
    }

    async fn wait(self: Arc<Self>, objects: Arc<Objects>) {
        loop {
            tokio::time::sleep(SWEEP_EVERY).await;
            if self.sweep(&objects).await.left {
                continue;
            }
            self.waiting.store(false, Ordering::Release);
            // what came in between found somebody waiting
            if self.gone.lock().is_empty() || self.waiting.swap(true, Ordering::AcqRel) {
                return;
            }
        }
    }

    /// Deletes what nobody reads and puts the rest aside.
    async fn sweep(&self, objects: &Objects) -> Swept {
        let _one = self.sweeping.lock().await;
        let known = self.gone.lock().clone();
        let (mut error, mut dirs) = (None, BTreeSet::new());
        for gone in known {
            let path = &gone.file.path;
            // this one and the list's
            let held = Arc::strong_count(&gone.file) > 2;
            let aside = objects.aside(path).is_some();
            let let_go = match &self.iceberg {
                Some(iceberg) => iceberg.let_go(&[path.as_str()]).await,
                None => Ok(()),
            };
            let done = match (let_go, held, aside) {
                (Err(failed), ..) => Err(failed),
                (_, false, _) => objects.delete(path).await,
                (_, true, false) => objects.put_aside(path).await,
                (_, true, true) => continue,
            };
            if let Err(failed) = done {
                error = Some(failed);
                continue;
            }
            if !held {
                self.gone.lock().retain(|known| !Arc::ptr_eq(&known.file, &gone.file));
                dirs.extend(aside.then(|| RETIRED_DIR.to_owned()));
                dirs.extend(path.rsplit_once('/').filter(|_| gone.last).map(|(dir, _)| dir.to_owned()));
            }
        }
        for dir in dirs {
            objects.remove_empty_dirs(&dir).await;
        }
        Swept { left: !self.gone.lock().is_empty(), error }
    }
}
