//! The engine's tables.

use std::fmt::Write;

use super::filling::ReadFrom;
use super::{Cost, Engine};
use crate::Outcome;
use crate::report::median;

const HEADER: &str =
    "events/s per core, engine's threads | per core, whole process | by the clock |\n|---|---|---|---|";

impl Engine {
    /// Adds its section.
    ///
    /// # Errors
    /// None in practice.
    pub fn describe(&self, text: &mut String) -> Outcome<()> {
        writeln!(text, "## Engine\n")?;
        self.describe_counts(text)?;
        self.describe_state(text)?;
        self.describe_nexmark(text)?;
        self.describe_visible(text)?;
        self.describe_fills(text)
    }

    fn describe_counts(&self, text: &mut String) -> Outcome<()> {
        if self.counts.iter().all(|(_, costs)| costs.is_empty()) {
            return Ok(());
        }
        writeln!(
            text,
            "{} JSON events, 8 fields and more of which up to 5 are read, in event-time order in one partition of the log before the \
             engine starts; every step is committed and emitted to the view's topic. An event that many views count is one event.\n",
            self.events
        )?;
        writeln!(text, "| | {HEADER}")?;
        for (case, costs) in &self.counts {
            let name = format!("{}: {}", case.name, case.describe());
            row(text, &name, self.events, costs)?;
        }
        Ok(writeln!(text)?)
    }

    fn describe_state(&self, text: &mut String) -> Outcome<()> {
        let Some(first) = self.state.first() else { return Ok(()) };
        writeln!(
            text,
            "### State larger than its memory\n\n`count(*), last(note) … GROUP BY user_id`, {} events over groups of about 1.1 KB that are \
             there already, without a pattern, from a start of the engine on. 64 MiB of them may be in memory.\n",
            self.bounds.state_events
        )?;
        writeln!(text, "| | {HEADER}")?;
        for (at, what) in ["in memory", "ten times larger"].into_iter().enumerate() {
            let costs: Vec<Cost> = self.state.iter().map(|round| round.costs[at]).collect();
            row(text, &format!("{what}: {} groups", first.groups[at]), self.bounds.state_events, &costs)?;
        }
        Ok(writeln!(text)?)
    }

    fn describe_nexmark(&self, text: &mut String) -> Outcome<()> {
        if self.nexmark.is_empty() {
            return Ok(());
        }
        writeln!(
            text,
            "### Nexmark\n\n{} events (1 person, 3 auctions, 46 bids in turn; a hundred a second of event time), each topic in one \
             partition of the log, from the declaration of the query on. Queries of several steps read their own topics again \
             ([docs/nexmark.md](../docs/nexmark.md)).\n",
            self.bounds.nexmark_events
        )?;
        writeln!(text, "| query | {HEADER}")?;
        for (name, costs) in &self.nexmark {
            row(text, name, self.bounds.nexmark_events, costs)?;
        }
        Ok(writeln!(text)?)
    }

    fn describe_visible(&self, text: &mut String) -> Outcome<()> {
        if self.visible.is_empty() {
            return Ok(());
        }
        let over =
            |of: &dyn Fn(&super::visible::Visible) -> f64| median(&mut self.visible.iter().map(of).collect::<Vec<_>>());
        writeln!(
            text,
            "### From acknowledged to visible\n\n{} events/s are offered for {} ms, a batch every 2 ms, acknowledged when it is on the \
             device; after an acknowledgement a reader asks for the view (minutes by genre) with all that is in the log, and again for the newest one \
             when it has its answer. From acknowledgement to answer, ms.\n",
            self.bounds.visible_rate, self.bounds.visible_ms
        )?;
        writeln!(
            text,
            "| events/s acknowledged | reads | p50 | p99 | p99.9 | cores busy |\n|---|---|---|---|---|---|"
        )?;
        writeln!(
            text,
            "| {:.0} | {:.0} | {:.2} | {:.2} | {:.2} | {:.2} |\n",
            over(&|round| round.rate),
            over(&|round| round.reads as f64),
            over(&|round| round.delay_ms[0]),
            over(&|round| round.delay_ms[1]),
            over(&|round| round.delay_ms[2]),
            over(&|round| round.cores)
        )?;
        Ok(())
    }

    fn describe_fills(&self, text: &mut String) -> Outcome<()> {
        if self.fills.is_empty() {
            return Ok(());
        }
        writeln!(
            text,
            "### A view declared after {} events\n\n`count(*) … GROUP BY TUMBLE(ts, INTERVAL '1' MINUTE), user_id`, from the declaration until \
             everything is counted that was there, while a producer writes 10,000 events/s; then the view is compared with all that was written.\n",
            self.bounds.fill_events
        )?;
        writeln!(text, "| the events are in | seconds | events/s by the clock | cores busy |\n|---|---|---|---|")?;
        for (from, what) in [(ReadFrom::Log, "the log"), (ReadFrom::Files, "Parquet files")] {
            let costs = || self.fills.iter().filter(|fill| fill.from == from).map(|fill| fill.cost);
            let seconds = median(&mut costs().map(|cost| cost.seconds).collect::<Vec<_>>());
            let cores = median(&mut costs().map(|cost| cost.process_cpu / cost.seconds).collect::<Vec<_>>());
            let rate = self.bounds.fill_events as f64 / seconds;
            writeln!(text, "| {what} | {seconds:.2} | {rate:.0} | {cores:.2} |")?;
        }
        Ok(writeln!(text)?)
    }
}

fn row(text: &mut String, name: &str, events: usize, costs: &[Cost]) -> Outcome<()> {
    let per = |of: fn(&Cost) -> f64| events as f64 / median(&mut costs.iter().map(of).collect::<Vec<_>>());
    let (engine, process) = (per(|cost| cost.engine_cpu), per(|cost| cost.process_cpu));
    Ok(writeln!(text, "| {name} | {engine:.0} | {process:.0} | {:.0} |", per(|cost| cost.seconds))?)
}
