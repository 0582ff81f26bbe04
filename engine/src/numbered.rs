//! Rows by equal keys: the groups of a step, by number.

use broker::Packed;
use datafusion::common::HashMap;

/// Which rows are of one group. Groups are numbered in the order of their first rows.
pub(crate) struct Numbered {
    /// The group of each row.
    pub(crate) groups: Vec<usize>,
    /// The first row of each group.
    pub(crate) firsts: Vec<usize>,
}

impl Numbered {
    pub(crate) fn new(keys: &Packed) -> Numbered {
        let mut known: HashMap<&[u8], usize> = HashMap::with_capacity(keys.len());
        let mut firsts = Vec::with_capacity(keys.len());
        let mut number = |(row, key)| {
            *known.entry(key).or_insert_with(|| {
                firsts.push(row);
                firsts.len() - 1
            })
        };
        let groups = keys.iter().enumerate().map(&mut number).collect();
        Numbered { groups, firsts }
    }

    /// Whether each row is a group of its own.
    pub(crate) fn are_different(&self) -> bool {
        self.groups.len() == self.firsts.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_numbered_by_their_first_rows() {
        let mut keys = Packed::default();
        ["b", "a", "b", "", "a", "c"].iter().for_each(|key| keys.push(&[key.as_bytes()]));
        let numbered = Numbered::new(&keys);
        assert_eq!(
            (numbered.groups.as_slice(), numbered.firsts.as_slice()),
            (&[0, 1, 0, 2, 1, 3][..], &[0, 1, 3, 5][..])
        );
        assert!(!numbered.are_different());
        assert!(Numbered::new(&Packed::default()).are_different());
    }
}
