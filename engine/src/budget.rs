//! The memory of views that are read outside of SQL, all readers together.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::error::{EngineError, ErrorKind, Result};

/// Most bytes of rows that readers hold at once: two reads of the largest size.
const BYTES_MAX: usize = 1 << 30;

/// What is left for readers. Holds: the bytes that are taken, which never exceed the most. Nothing survives a crash.
#[derive(Debug)]
pub(crate) struct Budget {
    taken: AtomicUsize,
    most: usize,
}

/// What one reader has taken, given back when the last of its copies goes.
#[derive(Debug, Clone, Default)]
pub struct Held(Option<Arc<Part>>);

#[derive(Debug)]
struct Part {
    budget: Arc<Budget>,
    bytes: AtomicUsize,
}

impl Default for Budget {
    fn default() -> Self {
        Self { taken: AtomicUsize::new(0), most: BYTES_MAX }
    }
}

impl Budget {
    /// For a reader that has nothing yet.
    pub(crate) fn begin(self: &Arc<Self>) -> Held {
        Held(Some(Arc::new(Part { budget: self.clone(), bytes: AtomicUsize::new(0) })))
    }
}

impl Held {
    /// Takes so many more bytes.
    ///
    /// # Errors
    /// `Busy` when others have them.
    pub(crate) fn grow(&self, bytes: usize) -> Result<()> {
        let Some(part) = &self.0 else { return Ok(()) };
        let budget = &part.budget;
        let fits = |taken: usize| taken.checked_add(bytes).filter(|taken| *taken <= budget.most);
        if budget.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_err() {
            let message = format!(
                "views that are being read hold nearly {} bytes, which is the limit: try again, or read less at a time",
                budget.most
            );
            return Err(EngineError::new(ErrorKind::Busy, message));
        }
        part.bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.budget.taken.fetch_sub(self.bytes.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_readers_hold_is_bounded_and_given_back() {
        let budget = Arc::new(Budget { taken: AtomicUsize::new(0), most: 100 });
        let (one, two) = (budget.begin(), budget.begin());
        one.grow(60).unwrap();
        let refused = two.grow(41).unwrap_err();
        assert!(refused.kind == ErrorKind::Busy && refused.message.contains("try again"), "{refused}");
        two.grow(40).unwrap();
        let copy = one.clone();
        drop(one);
        assert_eq!(two.grow(1).unwrap_err().kind, ErrorKind::Busy, "a copy of the answer is there");
        drop(copy);
        two.grow(60).unwrap();
        drop(two);
        assert_eq!(budget.taken.load(Ordering::Relaxed), 0);
        Held::default().grow(1 << 40).unwrap();
    }
}
