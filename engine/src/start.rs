//! Bringing the engine up: topics, view ids, stored progress, and which members share a pipeline.

use std::collections::BTreeMap;
use std::sync::Arc;

use broker::{Ack, Broker, Change, Family, NewTopic, TopicName};

use crate::Offsets;
use crate::check::{Compiled, LATE_SUFFIX, REJECTED_SUFFIX};
use crate::definitions::Definitions;
use crate::derive::{DerivedMember, DerivedPlan, JoinMember, Side};
use crate::error::Result;
use crate::fill::{Fill, Reads};
use crate::follow::Follower;
use crate::history::HistorySlot;
use crate::identity::{Version, identify};
use crate::join_pipeline::JoinPipeline;
use crate::lookup::{LookupTable, TableFeed};
use crate::next_step::NextStep;
use crate::pipeline::{Pipeline, PipelineView, StreamMember};
use crate::quality::{Counters, Writer};
use crate::shared::{PipelineShared, Published, RunningDerived, RunningTable, RunningView, SharedHold};
use crate::source::Source;
use crate::start_view::{begin_first, is_behind, paused_view, view_member};
use crate::state::{self, Progress};
use crate::stream::Stream;
use crate::succession::Role;

/// The pipelines, ready to run, and what is seen of them.
#[derive(Default)]
pub(crate) struct Prepared {
    pub(crate) feeds: Vec<TableFeed>,
    pub(crate) pipelines: Vec<Pipeline>,
    pub(crate) joins: Vec<JoinPipeline>,
    pub(crate) tables: Vec<RunningTable>,
    pub(crate) derived: Vec<RunningDerived>,
    pub(crate) views: Vec<RunningView>,
    /// Views that are filled beside the versions that are served.
    pub(crate) successors: Vec<RunningView>,
    /// Each stream, and its reading end.
    pub(crate) streams: Vec<(Arc<Stream>, Follower)>,
    /// Where pipelines find what has left the log.
    history: Arc<HistorySlot>,
}

/// What all pipelines share.
pub(crate) struct Commons<'a> {
    pub(crate) hold: &'a Arc<SharedHold>,
    pub(crate) history: &'a Arc<HistorySlot>,
}

/// Members of one stream that stand at the same positions.
struct Group {
    stands: Progress,
    stream_member: Option<StreamMember>,
    views: Vec<PipelineView>,
    derived: Vec<DerivedMember>,
}

impl Group {
    fn new(stands: Progress) -> Group {
        Group { stands, stream_member: None, views: Vec::new(), derived: Vec::new() }
    }

    /// The topics that its steps write.
    fn writes(&self, stream: &Stream) -> Vec<String> {
        let mut topics = vec![format!("{}{REJECTED_SUFFIX}", stream.name())];
        for view in &self.views {
            let name = &view.member.plan.name;
            topics.extend([name.to_string(), format!("{name}{LATE_SUFFIX}")]);
        }
        for member in &self.derived {
            let stream = &member.plan.stream;
            topics.extend([stream.topic().to_string(), format!("{}{REJECTED_SUFFIX}", stream.name())]);
        }
        topics
    }
}

/// Creates topics, gives ids to new views, decides which versions of changed ones run, and groups members by position. Views that
/// are paused are shown only; a version that is filled beside another one has a pipeline of its own, also then.
pub(crate) async fn prepare(
    broker: &Arc<Broker>,
    compiled: &Compiled,
    by_sql: &Definitions,
    Commons { hold, history }: Commons<'_>,
) -> Result<Prepared> {
    ensure_topics(broker, compiled).await?;
    let mut prepared = Prepared { history: history.clone(), ..Prepared::default() };
    let (mut versions, mut successors) = (Vec::new(), Vec::new());
    let paused = by_sql.paused();
    for plan in &compiled.views {
        let of_view = identify(broker, plan, &compiled.streams).await?;
        successors.extend(of_view.successor);
        match paused.contains(&*plan.name) {
            true => prepared.views.push(paused_view(broker, &of_view.served, hold)?),
            false => versions.push(of_view.served),
        }
    }
    for table in &compiled.tables {
        let ack = ack_for(compiled, &[format!("{}{REJECTED_SUFFIX}", table.name())]);
        prepare_table(broker, (table, ack), hold, &mut prepared).await?;
    }
    for stream in &compiled.streams {
        for group in groups_of(broker, compiled, (&versions, history), stream)? {
            let ack = ack_for(compiled, &group.writes(stream));
            run_group(broker, (stream, ack), group, hold, &mut prepared);
        }
    }
    for version in &successors {
        run_alone(broker, (version, compiled), hold, &mut prepared)?;
    }
    for plan in compiled.derived.iter().filter(|plan| plan.join.is_some()) {
        prepare_join(broker, (plan, compiled), hold, &mut prepared).await?;
    }
    // In the order of the configuration, whatever pipeline they are in.
    let place = |view: &RunningView| compiled.views.iter().position(|plan| plan.name == view.plan.name);
    prepared.views.sort_by_key(place);
    Ok(prepared)
}

/// What comes to what runs already.
pub(crate) struct More<'a> {
    pub(crate) new: &'a Compiled,
    /// The versions of views that come.
    pub(crate) versions: &'a [Version],
    /// Everything with `new`.
    pub(crate) whole: &'a Compiled,
}

/// The same for what comes to what runs already: each of it has a pipeline of its own, as nothing stands where it stands.
/// `tables` are those that run.
pub(crate) async fn prepare_more(
    broker: &Arc<Broker>,
    More { new, versions, whole }: More<'_>,
    tables: &[RunningTable],
    Commons { hold, history }: Commons<'_>,
) -> Result<Prepared> {
    ensure_topics(broker, new).await?;
    let mut prepared = Prepared { tables: tables.to_vec(), history: history.clone(), ..Prepared::default() };
    for table in &new.tables {
        let ack = ack_for(whole, &[format!("{}{REJECTED_SUFFIX}", table.name())]);
        prepare_table(broker, (table, ack), hold, &mut prepared).await?;
    }
    let mut groups: Vec<(Arc<Stream>, Group)> = Vec::new();
    for stream in &new.streams {
        groups.push((stream.clone(), reading_group(broker, stream)?));
    }
    for plan in &new.derived {
        if plan.join.is_some() {
            prepare_join(broker, (plan, whole), hold, &mut prepared).await?;
            continue;
        }
        let member = derived_member(broker, plan, history)?;
        let mut group = Group::new(member.progress.clone());
        group.derived.push(member);
        groups.push((plan.source.clone(), group));
    }
    for (stream, group) in groups {
        let ack = ack_for(whole, &group.writes(&stream));
        run_group(broker, (&stream, ack), group, hold, &mut prepared);
    }
    for version in versions {
        run_alone(broker, (version, whole), hold, &mut prepared)?;
    }
    Ok(prepared)
}

/// Makes a pipeline of its own for a version of a view.
fn run_alone(
    broker: &Arc<Broker>,
    (version, whole): (&Version, &Compiled),
    hold: &Arc<SharedHold>,
    prepared: &mut Prepared,
) -> Result<()> {
    let view = view_member(broker, version, &whole.streams, &prepared.history)?;
    let mut group = Group::new(view.member.progress.clone());
    group.views.push(view);
    let stream = &version.plan.stream;
    let ack = ack_for(whole, &group.writes(stream));
    run_group(broker, (stream, ack), group, hold, prepared);
    Ok(())
}

/// When the steps of who writes these topics are done. Offsets are told as applied after the commit; where somebody waits
/// for them to read on, what was written must be visible by then.
fn ack_for(compiled: &Compiled, written: &[String]) -> Ack {
    let streams = compiled.streams.iter().map(|stream| stream.topic());
    let mut read = streams.chain(compiled.tables.iter().filter_map(|table| table.topic()));
    if read.any(|topic| written.iter().any(|other| **other == **topic)) { Ack::Durable } else { Ack::Written }
}

/// A view writes the same keys again and again: short segments are compacted soon, long ones would grow to a GiB first.
const VIEW_SEGMENTS: [(&str, &str); 2] = [("segment.bytes", "16777216"), ("segment.ms", "3600000")];

async fn ensure_topics(broker: &Arc<Broker>, compiled: &Compiled) -> Result<()> {
    let catalog = broker.catalog();
    let new = |name: String, partitions: i32, config: BTreeMap<String, String>| NewTopic { name, partitions, config };
    let compact = || BTreeMap::from([("cleanup.policy".to_string(), "compact".to_string())]);
    let of_view = || {
        let segments = VIEW_SEGMENTS.map(|(name, value)| (name.to_string(), value.to_string()));
        compact().into_iter().chain(segments).collect::<BTreeMap<_, _>>()
    };
    let default_partitions = broker.config().num_partitions;
    for table in &compiled.tables {
        if let Some(topic) = table.topic() {
            catalog.ensure(new(topic.to_string(), default_partitions, compact())).await?;
            catalog.ensure(new(format!("{}{REJECTED_SUFFIX}", table.name()), 1, BTreeMap::new())).await?;
        }
    }
    for stream in &compiled.streams {
        // A derived stream keeps the partitions of what it reads, so that its records can keep their places.
        let plans = compiled.derived.iter().filter(|plan| plan.stream.name() == stream.name());
        let sources = plans.filter_map(|plan| catalog.topic(plan.source.topic()));
        let partitions = sources.map(|topic| topic.partitions().len() as i32).max().unwrap_or(default_partitions);
        catalog.ensure(new(stream.topic().to_string(), partitions, BTreeMap::new())).await?;
        catalog.ensure(new(format!("{}{REJECTED_SUFFIX}", stream.name()), 1, BTreeMap::new())).await?;
    }
    for plan in compiled.derived.iter().filter(|plan| plan.join.is_some()) {
        catalog.ensure(new(format!("{}{LATE_SUFFIX}", plan.stream.name()), 1, BTreeMap::new())).await?;
    }
    for plan in &compiled.views {
        catalog.ensure(new(plan.name.to_string(), 1, of_view())).await?;
        catalog.ensure(new(format!("{}{LATE_SUFFIX}", plan.name), 1, BTreeMap::new())).await?;
    }
    Ok(())
}

/// A table that follows a topic gets a feed; rows that another definition wrote are forgotten and read again.
async fn prepare_table(
    broker: &Arc<Broker>,
    (table, ack): (&Arc<LookupTable>, Ack),
    hold: &Arc<SharedHold>,
    prepared: &mut Prepared,
) -> Result<()> {
    let Some(topic) = table.topic() else {
        prepared.tables.push(RunningTable { table: table.clone(), follower: None });
        return Ok(());
    };
    let key = state::table_progress_key(table.name());
    let stored = broker.store().get(Family::State, &key)?;
    let known = match &stored {
        Some(bytes) => state::decode_table_progress(table.fingerprint(), bytes)?,
        None => None,
    };
    if known.is_none() && stored.is_some() {
        tracing::info!(table = table.name(), "the table has changed, it is read again from its topic");
        let rows = state::delete_below(state::table_row_prefix(table.name()));
        let changes = vec![rows, Change::Delete(Family::State, key)];
        broker.lane().commit(changes, Ack::Durable).await?;
    }
    let progress = known.unwrap_or_default();
    let source = Source::new(broker.clone(), topic.clone(), progress.positions.clone());
    let shared = Arc::new(PipelineShared::new(source.waiter().clone(), ack));
    let published = Arc::new(Published::new(progress.clone()));
    let follower = Follower {
        what: format!("table {}", table.name()).into(),
        topic: topic.clone(),
        published: published.clone(),
        pipeline: shared.clone(),
    };
    prepared.feeds.push(TableFeed {
        number: hold.number(),
        broker: broker.clone(),
        table: table.clone(),
        source,
        progress,
        published,
        shared,
        hold: hold.clone(),
        counters: Counters::new(Writer::Table, table.name()),
    });
    prepared.tables.push(RunningTable { table: table.clone(), follower: Some(follower) });
    Ok(())
}

/// The members of a stream: itself, the streams derived from it, and its views.
fn groups_of(
    broker: &Arc<Broker>,
    compiled: &Compiled,
    (versions, history): (&[Version], &Arc<HistorySlot>),
    stream: &Arc<Stream>,
) -> Result<Vec<Group>> {
    let mut groups = vec![reading_group(broker, stream)?];
    // Those that are behind the log read what nobody else does, wherever the others stand.
    let mut behind: Vec<Group> = Vec::new();
    let is_behind = |progress: &Progress| history.is_expected() && is_behind(broker, stream.topic(), progress);
    let of_stream = |plan: &&Arc<DerivedPlan>| plan.source.name() == stream.name() && plan.join.is_none();
    for plan in compiled.derived.iter().filter(of_stream) {
        let member = derived_member(broker, plan, history)?;
        let progress = member.progress.clone();
        let groups = if is_behind(&progress) { &mut behind } else { &mut groups };
        group_at(groups, &progress).derived.push(member);
    }
    for version in versions.iter().filter(|version| version.plan.stream.name() == stream.name()) {
        let member = view_member(broker, version, &compiled.streams, history)?;
        let progress = member.member.progress.clone();
        let groups = if is_behind(&progress) { &mut behind } else { &mut groups };
        group_at(groups, &progress).views.push(member);
    }
    groups.append(&mut behind);
    Ok(groups)
}

/// The stream itself: what records its refused records.
fn reading_group(broker: &Arc<Broker>, stream: &Stream) -> Result<Group> {
    let progress = load(broker, &state::stream_progress_key(stream.name()))?;
    let published = Arc::new(Published::new(progress.clone()));
    let counters = Counters::new(Writer::Stream, stream.name());
    let mut group = Group::new(progress.clone());
    group.stream_member = Some(StreamMember { progress, published, counters });
    Ok(group)
}

fn derived_member(broker: &Arc<Broker>, plan: &Arc<DerivedPlan>, history: &HistorySlot) -> Result<DerivedMember> {
    let mut progress = load(broker, &state::branch_progress_key(plan.stream.name(), plan.branch))?;
    begin_first(broker, (plan.source.topic(), history), &mut progress);
    let published = Arc::new(Published::new(progress.clone()));
    Ok(DerivedMember::new(plan.clone(), progress, published))
}

fn group_at<'g>(groups: &'g mut Vec<Group>, progress: &Progress) -> &'g mut Group {
    let at = groups.iter().position(|group| group.stands.stands_with(progress)).unwrap_or(groups.len());
    if at == groups.len() {
        groups.push(Group::new(progress.clone()));
    }
    &mut groups[at]
}

/// Makes the pipeline of a group, and what is seen of its members.
fn run_group(
    broker: &Arc<Broker>,
    (stream, ack): (&Arc<Stream>, Ack),
    group: Group,
    hold: &Arc<SharedHold>,
    prepared: &mut Prepared,
) {
    let number = hold.number();
    hold.set_all(number, &group.stands.positions);
    let mut source = Source::new(broker.clone(), stream.topic().clone(), group.stands.positions);
    let fill = (group.stream_member.is_none() && prepared.history.is_expected()).then(|| {
        source.keep_place();
        let uses = |index| !group.derived.is_empty() || group.views.iter().any(|view| view.member.plan.uses(index));
        // What was committed before has its time.
        let reads = Reads { stream, uses: &uses, is_new: group.stands.updated_at == 0 };
        Fill::new(prepared.history.clone(), reads)
    });
    let shared = Arc::new(PipelineShared::new(source.waiter().clone(), ack));
    let follower = |what: String, published: &Arc<Published>| Follower {
        what: what.into(),
        topic: stream.topic().clone(),
        published: published.clone(),
        pipeline: shared.clone(),
    };
    if let Some(member) = &group.stream_member {
        let seen = follower(format!("stream {}", stream.name()), &member.published);
        prepared.streams.push((stream.clone(), seen));
    }
    let is_filled = group.stream_member.is_none();
    for member in &group.derived {
        let follower = follower(format!("stream {}", member.plan.stream.name()), &member.published);
        let fill_to = if is_filled { follower.high_watermarks(broker) } else { Offsets::new() };
        let (plan, began_ms) = (member.plan.clone(), broker.clock().steady_ms());
        prepared.derived.push(RunningDerived { plan, follower, joined: None, fill_to, began_ms });
    }
    for view in &group.views {
        let follower = follower(format!("view {}", view.member.plan.name), &view.published);
        let fill_to = if is_filled { follower.ends(broker) } else { BTreeMap::new() };
        let (plan, view_id, began_ms) = (view.member.plan.clone(), view.member.view_id, broker.clock().steady_ms());
        let seen = if matches!(view.role, Role::Successor) { &mut prepared.successors } else { &mut prepared.views };
        seen.push(RunningView { plan, view_id, follower, fill_to, began_ms, paused: None });
    }
    let tables = tables_of(group.derived.iter().map(|member| &member.plan), prepared);
    prepared.pipelines.push(Pipeline {
        number,
        broker: broker.clone(),
        stream: stream.clone(),
        source,
        stream_member: group.stream_member,
        views: group.views,
        derived: group.derived,
        tables,
        fill,
        next: NextStep::default(),
        event_watermark: group.stands.event_watermark,
        shared,
        hold: hold.clone(),
    });
}

/// Makes the pipeline of a joined stream, and what is seen of it. Rows that wait by another definition cannot be read, and go.
async fn prepare_join(
    broker: &Arc<Broker>,
    (plan, whole): (&Arc<DerivedPlan>, &Compiled),
    hold: &Arc<SharedHold>,
    prepared: &mut Prepared,
) -> Result<()> {
    let name = plan.stream.name();
    let history = prepared.history.clone();
    let (mut join, changes) = JoinMember::load(derived_member(broker, plan, &history)?, broker.store())?;
    if !changes.is_empty() {
        broker.lane().commit(changes, Ack::Durable).await?;
    }
    let topics = Side::BOTH.map(|side| join.join().stream(side).topic().clone());
    begin_first(broker, (&topics[1], &history), &mut join.right);
    *join.right_published.progress.lock() = join.right.clone();
    let positions = [&join.member.progress.positions, &join.right.positions];
    let numbers = Side::BOTH.map(|_| hold.number());
    numbers.iter().zip(positions).for_each(|(number, positions)| hold.set_all(*number, positions));
    let left = Source::new(broker.clone(), topics[0].clone(), positions[0].clone());
    let right = left.beside(topics[1].clone(), positions[1].clone());
    let mut sources = [left, right];
    let fills = Side::BOTH.map(|side| join_fill(&join, side, (&mut sources[side as usize], &history)));
    let [left, right] = sources;
    let written = [plan.stream.topic().to_string(), format!("{name}{REJECTED_SUFFIX}"), format!("{name}{LATE_SUFFIX}")];
    let shared = Arc::new(PipelineShared::new(left.waiter().clone(), ack_for(whole, &written)));
    let follower = |topic: &TopicName, published: &Arc<Published>| Follower {
        what: format!("stream {name}").into(),
        topic: topic.clone(),
        published: published.clone(),
        pipeline: shared.clone(),
    };
    let followers = [follower(&topics[0], &join.member.published), follower(&topics[1], &join.right_published)];
    let fill_to = followers.iter().flat_map(|follower| follower.high_watermarks(broker)).collect();
    let (plan, began_ms, [follower, joined]) = (plan.clone(), broker.clock().steady_ms(), followers);
    let tables = tables_of(std::iter::once(&plan), prepared);
    prepared.derived.push(RunningDerived { plan, follower, joined: Some(joined), fill_to, began_ms });
    let (broker, hold, sources) = (broker.clone(), hold.clone(), [left, right]);
    prepared.joins.push(JoinPipeline { broker, join, sources, fills, numbers, tables, shared, hold });
    Ok(())
}

/// What reads of one side of a join that has left the log: all columns, as rows wait with all of them.
fn join_fill(join: &JoinMember, side: Side, (source, history): (&mut Source, &Arc<HistorySlot>)) -> Option<Fill> {
    let progress = if side == Side::Left { &join.member.progress } else { &join.right };
    history.is_expected().then(|| {
        source.keep_place();
        let reads = Reads { stream: join.join().stream(side), uses: &|_| true, is_new: progress.updated_at == 0 };
        Fill::new(history.clone(), reads)
    })
}

/// The tables with a topic that these derived streams join.
fn tables_of<'p>(plans: impl Iterator<Item = &'p Arc<DerivedPlan>>, prepared: &Prepared) -> Vec<Follower> {
    let used: Vec<&Arc<LookupTable>> = plans.flat_map(|plan| &plan.tables).collect();
    let joins = |table: &Arc<LookupTable>| used.iter().any(|other| Arc::ptr_eq(other, table));
    let joined = prepared.tables.iter().filter(|running| joins(&running.table));
    joined.filter_map(|running| running.follower.clone()).collect()
}

/// A stored progress.
pub(crate) fn load(broker: &Arc<Broker>, key: &[u8]) -> Result<Progress> {
    match broker.store().get(Family::State, key)? {
        Some(bytes) => Progress::decode(&bytes),
        None => Ok(Progress::default()),
    }
}
