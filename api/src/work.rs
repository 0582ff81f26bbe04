//! What works beside the log: sinks, jobs, alerts, and notices on their way; started and stopped together.

use std::sync::Arc;

use broker::Broker;
use engine::Engine;
use engine::sources::Sources;
use lake::Lake;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::alerts::Alerts;
use crate::alerts::outbox::Outbox;
use crate::config::WorkConfig;
use crate::jobs::Jobs;
use crate::jobs::steps::Steps;
use crate::metrics::Text;
use crate::sinks::Sinks;

/// Sinks, jobs and alerts at work. Holds: their tasks. What must survive, each keeps in the store.
pub struct Work {
    sinks: Arc<Sinks>,
    jobs: Arc<Jobs>,
    alerts: Alerts,
    tasks: parking_lot::Mutex<Vec<JoinHandle<()>>>,
    stopping: watch::Sender<bool>,
}

impl Work {
    /// Begins all of it; `rows_max` is the most rows that one query answers.
    ///
    /// # Errors
    /// Every sink that does not fit; a store that cannot be read.
    pub async fn start(
        (broker, engine, lake, sources): (&Arc<Broker>, &Arc<Engine>, &Arc<Lake>, &Arc<Sources>),
        config: &WorkConfig,
        rows_max: usize,
    ) -> Result<Arc<Work>, String> {
        let sinks = Sinks::bind((broker, engine, lake), &config.sinks, rows_max);
        let sinks = Arc::new(sinks.map_err(|mistakes| mistakes.join("\n"))?);
        let told = |error: broker::Error| error.to_string();
        let outbox = Arc::new(Outbox::open(broker.clone(), config.smtp.clone()).map_err(told)?);
        let (stopping, stop) = watch::channel(false);
        let steps = Steps {
            clock: broker.clock().clone(),
            lake: lake.clone(),
            sources: sources.clone(),
            sinks: sinks.clone(),
            outbox: outbox.clone(),
        };
        let (jobs, running) = Jobs::start(broker.clone(), steps, &config.jobs, &stop).await.map_err(told)?;
        let parts = (broker.clone(), lake.clone(), outbox.clone());
        let (alerts, looking) = Alerts::start(parts, &config.alerts, &stop).await.map_err(told)?;
        let mut tasks = sinks.run(&stop);
        tasks.extend(looking);
        tasks.push(running);
        tasks.push(tokio::spawn(outbox.run(stop)));
        Ok(Arc::new(Work { sinks, jobs, alerts, tasks: parking_lot::Mutex::new(tasks), stopping }))
    }

    /// Ends all of it; what is under way is begun again at the next start.
    pub async fn stop(&self) {
        self.stopping.send_replace(true);
        let tasks = std::mem::take(&mut *self.tasks.lock());
        for task in tasks {
            if let Err(error) = task.await {
                tracing::error!(%error, "a sink, job or alert ended with a fault");
            }
        }
    }

    /// The sinks.
    pub fn sinks(&self) -> &Sinks {
        &self.sinks
    }

    /// The jobs.
    pub fn jobs(&self) -> &Arc<Jobs> {
        &self.jobs
    }

    /// The alerts.
    pub fn alerts(&self) -> &Alerts {
        &self.alerts
    }

    /// Figures for `/metrics`.
    pub async fn figures(&self, text: &mut Text) {
        self.sink_figures(text);
        self.alert_figures(text);
        let jobs = self.jobs.figures().await;
        text.family("millpond_job_runs_total", "counter", "Runs of jobs that ended, since the start.");
        for (name, figures, ..) in &jobs {
            for (state, count) in [("succeeded", figures.succeeded), ("failed", figures.failed)] {
                text.value("millpond_job_runs_total", &[("job", name), ("state", state)], count as f64);
            }
        }
        text.family("millpond_job_running", "gauge", "Whether a job runs.");
        for (name, _, running, _) in &jobs {
            text.value("millpond_job_running", &[("job", name)], f64::from(u8::from(*running)));
        }
        text.family("millpond_job_last_success_seconds", "gauge", "When a job last succeeded, in seconds since 1970.");
        for (name, at) in jobs.iter().filter_map(|(name, _, _, success)| Some((name, success.as_ref()?.0))) {
            text.value("millpond_job_last_success_seconds", &[("job", name)], at as f64 / 1000.0);
        }
        text.family("millpond_job_last_duration_seconds", "gauge", "How long the last run that succeeded took.");
        for (name, took) in jobs.iter().filter_map(|(name, _, _, success)| Some((name, success.as_ref()?.1))) {
            text.value("millpond_job_last_duration_seconds", &[("job", name)], took);
        }
    }

    fn sink_figures(&self, text: &mut Text) {
        // without a database there is nothing that could be away
        let mut tables = self.sinks.tables();
        tables.retain(|(_, status)| !status.off);
        let mut family = |name: &str, kind: &str, help: &str, value: &dyn Fn(&crate::sinks::TableStatus) -> f64| {
            text.family(name, kind, help);
            tables.iter().for_each(|(sink, status)| text.value(name, &[("sink", sink)], value(status)));
        };
        family("millpond_sink_up", "gauge", "Whether a sink's database answers.", &|s| {
            f64::from(u8::from(s.connected))
        });
        family("millpond_sink_lag_records", "gauge", "Records that a sink has not taken yet.", &|s| s.lag as f64);
        family("millpond_sink_records_total", "counter", "Records that a sink took.", &|s| s.records as f64);
        family("millpond_sink_rows_total", "counter", "Rows that a database took.", &|s| s.rows as f64);
        family("millpond_sink_refused_total", "counter", "Rows that a database refused.", &|s| s.refused as f64);
        family("millpond_sink_transactions_total", "counter", "Transactions of a sink.", &|s| s.transactions as f64);
        family("millpond_sink_retries_total", "counter", "Connections of a sink that failed.", &|s| s.retries as f64);
    }

    fn alert_figures(&self, text: &mut Text) {
        let alerts = self.alerts.list();
        text.family("millpond_alert_instances", "gauge", "What an alert holds to be wrong.");
        for (alert, seen) in &alerts {
            let (name, severity) = (alert.config.name.as_str(), alert.config.severity.as_str());
            for (state, phase) in
                [("firing", crate::alerts::state::Phase::Firing), ("pending", crate::alerts::state::Phase::Pending)]
            {
                let count = seen.state.instances.values().filter(|instance| instance.phase == phase).count();
                let labels = [("alert", name), ("severity", severity), ("state", state)];
                text.value("millpond_alert_instances", &labels, count as f64);
            }
        }
        text.family("millpond_alert_failures_total", "counter", "Looks of an alert that failed.");
        for (alert, seen) in &alerts {
            text.value("millpond_alert_failures_total", &[("alert", &alert.config.name)], seen.failures as f64);
        }
        text.family("millpond_notices", "gauge", "Notices to URLs and mail servers that are remembered.");
        for (state, count) in self.alerts.outbox().counts() {
            text.value("millpond_notices", &[("state", state)], count as f64);
        }
    }
}
