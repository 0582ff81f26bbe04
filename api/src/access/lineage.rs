//! What is computed from what: so that a token that sees a part of a table does not see the rest in what was made of it.

use std::collections::{BTreeMap, BTreeSet};

use engine::{Engine, Kind, Made};
use lake::{Lake, SYSTEM_TABLES};

/// The table of the engine that counts the records of all streams.
const QUALITY: &str = "data_quality";

/// A table, by its name in SQL, or a topic.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Node {
    /// A stream, view or table.
    Table(String),
    /// A topic.
    Topic(String),
}

/// From what each is made. A stream is made of its topic, and a topic of the stream or view that writes it.
#[derive(Clone, Debug, Default)]
pub struct Lineage {
    from: BTreeMap<Node, BTreeSet<Node>>,
    /// What holds what queries and rows of any table say.
    everything: BTreeSet<Node>,
}

impl Lineage {
    /// Adds everything that runs.
    pub fn add_running(&mut self, engine: &Engine, lake: &Lake) {
        let lineage = self;
        for stream in engine.streams() {
            lineage.arrow(topic(stream.topic()), table(stream.name()));
            lineage.refuses(table(stream.name()), stream.name());
        }
        for status in engine.stream_status() {
            let Some(derived) = status.derived else { continue };
            let written = engine.streams().into_iter().find(|stream| stream.name() == status.stream);
            let late = derived.late_topic.as_deref().map(topic);
            for from in derived.sources.iter().chain(&derived.tables) {
                lineage.arrow(table(from), table(&status.stream));
                written.iter().for_each(|stream| lineage.arrow(table(from), topic(stream.topic())));
                late.iter().for_each(|late| lineage.arrow(table(from), late.clone()));
            }
        }
        for status in engine.tables() {
            status.topic.iter().for_each(|from| lineage.arrow(topic(from), table(&status.table)));
            lineage.refuses(table(&status.table), &status.table);
        }
        // One that will take over counts already: what is closed then is closed before.
        for view in engine.views().into_iter().chain(engine.successors()) {
            lineage.arrow(table(&view.stream), table(&view.name));
            lineage.arrow(table(&view.name), topic(&view.name));
            // a late row is one of the stream's
            lineage.arrow(table(&view.stream), topic(&format!("{}.late", view.name)));
        }
        for transform in lake.transforms() {
            for from in &transform.sources {
                lineage.arrow(table(from), table(&transform.config.name));
            }
        }
        lineage.everything.extend(SYSTEM_TABLES.into_iter().chain([QUALITY]).map(table));
    }

    /// Adds what is about to run.
    pub fn add(&mut self, made: &Made) {
        let name = &made.name;
        match (made.kind, &made.topic) {
            (Kind::View, _) => {
                self.arrow(table(name), topic(name));
                made.from.iter().for_each(|from| self.arrow(table(from), topic(&format!("{name}.late"))));
            }
            (Kind::Stream | Kind::Table, read) => {
                read.iter().for_each(|read| self.arrow(topic(read), table(name)));
                self.refuses(table(name), name);
                // a derived stream writes the topic that it reads back
                let written = read.iter().flat_map(|read| made.from.iter().map(move |from| (from, read)));
                for (from, read) in written.collect::<Vec<_>>() {
                    self.arrow(table(from), topic(read));
                    // where it joins two streams: their late rows
                    self.arrow(table(from), topic(&format!("{name}.late")));
                }
            }
        }
        made.from.iter().for_each(|from| self.arrow(table(from), table(name)));
    }

    /// Notes that a topic holds rows of any table.
    pub fn mixes(&mut self, name: &str) {
        self.everything.insert(topic(name));
    }

    /// Notes that what `name` refuses of `from` lies in a topic of its own.
    pub fn refuses(&mut self, from: Node, name: &str) {
        self.arrow(from, topic(&format!("{name}.rejected")));
    }

    /// Adds an arrow.
    pub fn arrow(&mut self, from: Node, to: Node) {
        self.from.entry(to).or_default().insert(from);
    }

    /// The tables that hold something of a filtered table, with that table's name, and the topics that hold nothing of one.
    pub fn taint(&self, filtered: &BTreeSet<String>) -> (BTreeMap<String, String>, BTreeSet<String>) {
        let Some(any) = filtered.first() else { return Default::default() };
        let mut tainted: BTreeMap<Node, String> =
            self.everything.iter().map(|node| (node.clone(), any.clone())).collect();
        for name in filtered {
            // the topic that it reads holds the rows that are not to be seen
            tainted.insert(table(name), name.clone());
            let read = self.from.get(&table(name)).into_iter().flatten();
            read.filter(|node| matches!(node, Node::Topic(_))).for_each(|node| {
                tainted.insert(node.clone(), name.clone());
            });
        }
        loop {
            let reached = self.from.iter().filter(|(to, _)| !tainted.contains_key(to)).filter_map(|(to, from)| {
                let name = from.iter().find_map(|node| tainted.get(node))?;
                Some((to.clone(), name.clone()))
            });
            let reached: Vec<(Node, String)> = reached.collect();
            if reached.is_empty() {
                break;
            }
            tainted.extend(reached);
        }
        let known = self.from.iter().flat_map(|(to, from)| std::iter::once(to).chain(from));
        let clean = known.filter(|node| !tainted.contains_key(node)).filter_map(|node| match node {
            Node::Topic(name) => Some(name.clone()),
            Node::Table(_) => None,
        });
        let clean = clean.collect();
        let tables = tainted.into_iter().filter_map(|(node, from)| match node {
            Node::Table(name) => Some((name, from)),
            Node::Topic(_) => None,
        });
        (tables.collect(), clean)
    }
}

fn table(name: &str) -> Node {
    Node::Table(name.to_owned())
}

fn topic(name: &str) -> Node {
    Node::Topic(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_made_of_a_part_is_tainted_and_nothing_else() {
        let mut lineage = Lineage::default();
        lineage.arrow(topic("in"), table("s"));
        lineage.arrow(topic("in"), table("other_name_of_in"));
        lineage.arrow(table("s"), table("clean_s"));
        lineage.arrow(table("s"), topic("clean_s"));
        lineage.arrow(topic("clean_s"), table("clean_s"));
        lineage.arrow(topic("clean_s"), table("again"));
        lineage.arrow(table("clean_s"), table("view"));
        lineage.arrow(table("view"), topic("view"));
        lineage.arrow(topic("free"), table("free"));
        lineage.mixes("alerts");
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<String>>();
        let (tables, clean) = lineage.taint(&names(&["s"]));
        let tables: BTreeSet<String> = tables.into_keys().collect();
        assert_eq!(tables, names(&["s", "other_name_of_in", "clean_s", "again", "view"]));
        assert_eq!(clean, names(&["free"]));
        let (tables, clean) = lineage.taint(&names(&["clean_s"]));
        assert!(tables.contains_key("again") && tables.contains_key("view") && !tables.contains_key("s"));
        assert_eq!(clean, names(&["free", "in"]));
        assert_eq!(lineage.taint(&BTreeSet::new()).0.len(), 0);
    }
}
