//! Bringing the engine up: topics, view ids, stored progress, and which members share a pipeline.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use broker::{Ack, Broker, Change, Family, NewTopic, PartitionIndex, TopicName};

use crate::check::{Compiled, LATE_SUFFIX, REJECTED_SUFFIX};
use crate::derive::{DerivedMember, DerivedPlan, JoinMember, Side};
use crate::error::Result;
use crate::fill::Fill;
use crate::follow::Follower;
use crate::history::HistorySlot;
use crate::identity::identify;
use crate::join_pipeline::JoinPipeline;
use crate::lookup::{LookupTable, TableFeed};
use crate::member::ViewMember;
use crate::pipeline::{Pipeline, PipelineView, StreamMember};
use crate::quality::{Counters, Writer};
use crate::shared::{PipelineShared, Published, RunningDerived, RunningTable, RunningView, SharedHold};
use crate::source::Source;
use crate::state::{self, Position, Progress};
use crate::stream::Stream;
use crate::view::ViewPlan;

/// The pipelines, ready to run, and what is seen of them.
#[derive(Default)]
pub(crate) struct Prepared {
    pub(crate) feeds: Vec<TableFeed>,
    pub(crate) pipelines: Vec<Pipeline>,
    pub(crate) joins: Vec<JoinPipeline>,
    pub(crate) tables: Vec<RunningTable>,
    pub(crate) derived: Vec<RunningDerived>,
    pub(crate) views: Vec<RunningView>,
    /// Each stream, and its reading end.
    pub(crate) streams: Vec<(Arc<Stream>, Follower)>,
    /// Where pipelines of views find what has left the log.
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
    views: Vec<(PipelineView, u32)>,
    derived: Vec<DerivedMember>,
}

impl Group {
    fn new(stands: Progress) -> Group {
        Group { stands, stream_member: None, views: Vec::new(), derived: Vec::new() }
    }

    /// The topics that its steps write.
    fn writes(&self, stream: &Stream) -> Vec<String> {
        let mut topics = vec![format!("{}{REJECTED_SUFFIX}", stream.name())];
        for (view, _) in &self.views {
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

/// Creates topics, gives ids to new views, throws away the state of changed ones, and groups members by position. Views
/// that are paused are shown only.
pub(crate) async fn prepare(
    broker: &Arc<Broker>,
    compiled: &Compiled,
    paused: &BTreeSet<String>,
    Commons { hold, history }: Commons<'_>,
) -> Result<Prepared> {
    ensure_topics(broker, compiled).await?;
    let mut prepared = Prepared { history: history.clone(), ..Prepared::default() };
    let mut ids = Vec::new();
    for plan in &compiled.views {
        let view_id = identify(broker, plan).await?;
        match paused.contains(&*plan.name) {
            true => prepared.views.push(paused_view(broker, plan, view_id, hold)?),
            false => ids.push((plan.clone(), view_id)),
        }
    }
    for table in &compiled.tables {
        let ack = ack_for(compiled, &[format!("{}{REJECTED_SUFFIX}", table.name())]);
        prepare_table(broker, (table, ack), hold, &mut prepared).await?;
    }
    for stream in &compiled.streams {
        for group in groups_of(broker, compiled, (ids.as_slice(), history), stream)? {
            let ack = ack_for(compiled, &group.writes(stream));
            run_group(broker, (stream, ack), group, hold, &mut prepared);
        }
    }
    for plan in compiled.derived.iter().filter(|plan| plan.join.is_some()) {
        prepare_join(broker, (plan, compiled), hold, &mut prepared).await?;
    }
    // In the order of the configuration, whatever pipeline they are in.
    let place = |view: &RunningView| compiled.views.iter().position(|plan| plan.name == view.plan.name);
    prepared.views.sort_by_key(place);
    Ok(prepared)
}

/// The same for what comes to what runs already: each of `new` has a pipeline of its own, as nothing stands where it stands.
/// `tables` are those that run, `whole` is everything with `new`.
pub(crate) async fn prepare_more(
    broker: &Arc<Broker>,
    (new, whole): (&Compiled, &Compiled),
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
        let member = derived_member(broker, plan)?;
        let mut group = Group::new(member.progress.clone());
        group.derived.push(member);
        groups.push((plan.source.clone(), group));
    }
    for plan in &new.views {
        let (view, view_id) = view_member(broker, plan, identify(broker, plan).await?, history)?;
        let mut group = Group::new(view.member.progress.clone());
        group.views.push((view, view_id));
        groups.push((plan.stream.clone(), group));
    }
    for (stream, group) in groups {
        let ack = ack_for(whole, &group.writes(&stream));
        run_group(broker, (&stream, ack), group, hold, &mut prepared);
    }
    Ok(prepared)
}

/// A view that stands still: it is read as of where it stands, and the log is kept from there on.
pub(crate) fn paused_view(
    broker: &Arc<Broker>,
    plan: &Arc<ViewPlan>,
    view_id: u32,
    hold: &Arc<SharedHold>,
) -> Result<RunningView> {
    let progress = load(broker, &state::view_progress_key(view_id))?;
    let shared = PipelineShared::new(broker::Waiter::new(), Ack::Written);
    *shared.failure.lock() = Some(format!("it is paused: RESUME MATERIALIZED VIEW \"{}\" lets it go on", plan.name));
    shared.end();
    let number = hold.number();
    hold.set_all(number, &progress.positions);
    let follower = Follower {
        what: format!("view {}", plan.name).into(),
        topic: plan.stream.topic().clone(),
        published: Arc::new(Published::new(progress)),
        pipeline: Arc::new(shared),
    };
    let (fill_to, paused) = (BTreeMap::new(), Some(number));
    Ok(RunningView { plan: plan.clone(), view_id, follower, fill_to, began_ms: 0, paused })
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
        let prefix = state::table_row_prefix(table.name());
        let end = state::after(&prefix);
        let changes = vec![Change::DeleteRange(Family::State, prefix, end), Change::Delete(Family::State, key)];
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
    (views, history): (&[(Arc<ViewPlan>, u32)], &Arc<HistorySlot>),
    stream: &Arc<Stream>,
) -> Result<Vec<Group>> {
    let mut groups = vec![reading_group(broker, stream)?];
    // Those that are behind the log read what nobody else does, wherever the others stand.
    let mut behind: Vec<Group> = Vec::new();
    let of_stream = |plan: &&Arc<DerivedPlan>| plan.source.name() == stream.name() && plan.join.is_none();
    for plan in compiled.derived.iter().filter(of_stream) {
        let member = derived_member(broker, plan)?;
        let progress = member.progress.clone();
        group_at(&mut groups, &progress).derived.push(member);
    }
    for (plan, view_id) in views.iter().filter(|(plan, _)| plan.stream.name() == stream.name()) {
        let member = view_member(broker, plan, *view_id, history)?;
        let progress = member.0.member.progress.clone();
        let is_behind = history.is_expected() && is_behind(broker, stream.topic(), &progress);
        let groups = if is_behind { &mut behind } else { &mut groups };
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

fn derived_member(broker: &Arc<Broker>, plan: &Arc<DerivedPlan>) -> Result<DerivedMember> {
    let progress = load(broker, &state::branch_progress_key(plan.stream.name(), plan.branch))?;
    let published = Arc::new(Published::new(progress.clone()));
    Ok(DerivedMember::new(plan.clone(), progress, published))
}

fn view_member(
    broker: &Arc<Broker>,
    plan: &Arc<ViewPlan>,
    view_id: u32,
    history: &HistorySlot,
) -> Result<(PipelineView, u32)> {
    let mut progress = load(broker, &state::view_progress_key(view_id))?;
    if progress == Progress::default() && history.is_expected() {
        progress.positions = first_positions(broker, plan.stream.topic());
    }
    let published = Arc::new(Published::new(progress.clone()));
    let member = ViewMember::new(plan.clone(), view_id, progress, broker.store())?;
    let counters = Counters::new(Writer::View, &plan.name);
    Ok((PipelineView { member, published, counters }, view_id))
}

/// Where a view begins that reads what has left the log too: at the very first offsets. None where all is in the log.
fn first_positions(broker: &Broker, topic: &TopicName) -> BTreeMap<PartitionIndex, Position> {
    let partitions = broker.catalog().topic(topic).map(|topic| topic.partitions());
    let all: Vec<_> = partitions.iter().flat_map(|all| all.iter()).collect();
    if all.iter().all(|partition| partition.log_start() == 0) {
        return BTreeMap::new();
    }
    let first = |log| Position { log, next_offset: 0, max_event_ms: None };
    all.into_iter().map(|partition| (partition.index(), first(partition.id()))).collect()
}

/// Whether the log no longer has what comes next.
fn is_behind(broker: &Broker, topic: &TopicName, progress: &Progress) -> bool {
    let Some(topic) = broker.catalog().topic(topic) else { return false };
    topic.partitions().iter().any(|partition| {
        let position = progress.positions.get(&partition.index()).filter(|position| position.log == partition.id());
        position.is_some_and(|position| position.next_offset < partition.log_start())
    })
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
    let is_of_views = group.stream_member.is_none() && group.derived.is_empty();
    let fill = (is_of_views && prepared.history.is_expected()).then(|| {
        source.keep_place();
        let plans: Vec<&ViewPlan> = group.views.iter().map(|(view, _)| &*view.member.plan).collect();
        // What was committed before has its time.
        Fill::new(prepared.history.clone(), stream, &plans, group.stands.updated_at == 0)
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
    for member in &group.derived {
        prepared.derived.push(RunningDerived {
            plan: member.plan.clone(),
            follower: follower(format!("stream {}", member.plan.stream.name()), &member.published),
            joined: None,
        });
    }
    for (view, view_id) in &group.views {
        let follower = follower(format!("view {}", view.member.plan.name), &view.published);
        let fill_to = if group.stream_member.is_none() { follower.ends(broker) } else { BTreeMap::new() };
        let (plan, began_ms) = (view.member.plan.clone(), broker.clock().steady_ms());
        prepared.views.push(RunningView { plan, view_id: *view_id, follower, fill_to, began_ms, paused: None });
    }
    let tables = tables_of(group.derived.iter().map(|member| &member.plan), prepared);
    prepared.pipelines.push(Pipeline {
        number,
        broker: broker.clone(),
        stream: stream.clone(),
        source,
        stream_member: group.stream_member,
        views: group.views.into_iter().map(|(view, _)| view).collect(),
        derived: group.derived,
        tables,
        fill,
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
    let (join, changes) = JoinMember::load(derived_member(broker, plan)?, broker.store())?;
    if !changes.is_empty() {
        broker.lane().commit(changes, Ack::Durable).await?;
    }
    let topics = Side::BOTH.map(|side| join.join().stream(side).topic().clone());
    let positions = [&join.member.progress.positions, &join.right.positions];
    let numbers = Side::BOTH.map(|_| hold.number());
    numbers.iter().zip(positions).for_each(|(number, positions)| hold.set_all(*number, positions));
    let left = Source::new(broker.clone(), topics[0].clone(), positions[0].clone());
    let right = left.beside(topics[1].clone(), positions[1].clone());
    let written = [plan.stream.topic().to_string(), format!("{name}{REJECTED_SUFFIX}"), format!("{name}{LATE_SUFFIX}")];
    let shared = Arc::new(PipelineShared::new(left.waiter().clone(), ack_for(whole, &written)));
    let follower = |topic: &TopicName, published: &Arc<Published>| Follower {
        what: format!("stream {name}").into(),
        topic: topic.clone(),
        published: published.clone(),
        pipeline: shared.clone(),
    };
    prepared.derived.push(RunningDerived {
        plan: plan.clone(),
        follower: follower(&topics[0], &join.member.published),
        joined: Some(follower(&topics[1], &join.right_published)),
    });
    let tables = tables_of(std::iter::once(plan), prepared);
    let (broker, hold) = (broker.clone(), hold.clone());
    prepared.joins.push(JoinPipeline { broker, join, sources: [left, right], numbers, tables, shared, hold });
    Ok(())
}

/// The tables with a topic that these derived streams join.
fn tables_of<'p>(plans: impl Iterator<Item = &'p Arc<DerivedPlan>>, prepared: &Prepared) -> Vec<Follower> {
    let used: Vec<&Arc<LookupTable>> = plans.flat_map(|plan| &plan.tables).collect();
    let joins = |table: &Arc<LookupTable>| used.iter().any(|other| Arc::ptr_eq(other, table));
    let joined = prepared.tables.iter().filter(|running| joins(&running.table));
    joined.filter_map(|running| running.follower.clone()).collect()
}

fn load(broker: &Arc<Broker>, key: &[u8]) -> Result<Progress> {
    match broker.store().get(Family::State, key)? {
        Some(bytes) => Progress::decode(&bytes),
        None => Ok(Progress::default()),
    }
}
